"""What an examination is asked, and what it answers: the two closed schemas between control and the process that opens the file."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from appliance.core.schema import Closed

MAX_TEMPLATE = 65_536  # characters, as in a manifest
Short = Annotated[str, StringConstraints(max_length=256)]


class Question(Closed):
    """What to examine.

    Attributes:
        descriptors: Of the GGUF files, in the order of the shards.
        template: The chat template to render; null: the one in the first file.
        with_tools: Whether the template must take tools.
    """

    descriptors: Annotated[tuple[int, ...], Field(min_length=1, max_length=64)]
    template: Annotated[str, StringConstraints(max_length=MAX_TEMPLATE)] | None = None
    with_tools: bool = False


class Facts(Closed):
    """What a model's files say of themselves. Whoever made them chose these words.

    Attributes:
        architecture: For example llama.
        context_tokens: Longest sequence it is made for, 0 if it does not say.
        licence: As the file names it.
        parameters, tensors: Over all shards.
        template: The chat template in the first file, "" if there is none.
        end: Texts of the tokens that end a turn.
    """

    architecture: Short
    context_tokens: Annotated[int, Field(ge=0, le=2**40)]
    licence: Short
    parameters: Annotated[int, Field(ge=0, le=2**53 - 1)]
    tensors: Annotated[int, Field(ge=0, le=2**23)]
    template: Annotated[str, StringConstraints(max_length=MAX_TEMPLATE)]
    end: Annotated[tuple[Annotated[str, StringConstraints(max_length=64)], ...], Field(max_length=2)]


class Answer(Closed):
    """What came of it: facts, or why the model is refused.

    Attributes:
        facts: Null if it is refused.
        refusal: One of our own sentences; never a word of the file.
        field: The part of the manifest that is at fault; `host` if no process can be confined here.
    """

    facts: Facts | None = None
    refusal: Short = ""
    field: Short = ""
