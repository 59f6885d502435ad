"""The process that opens a model's files: `python -m control.pins.examiner`. It is shut in before it reads a byte of them.

One `Question` on standard input, one `Answer` on standard output. Whatever goes wrong with a file is an answer; a crash, a limit or a
time-out is one too, which the other side gives (`control.pins.sandbox`).
"""

from __future__ import annotations

import contextlib
import json
import secrets
import sys
from typing import Any, Final, NoReturn

from jinja2 import TemplateError, meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

from appliance.core.errors import HostError, PinError, RefusedError
from control.pins import cage
from control.pins.facts import MAX_TEMPLATE, Answer, Facts, Question
from control.pins.gguf import Array, Head, parse_head, read_texts

MAX_RENDERED: Final = 2**20  # characters, as in the cell
_TOKENS: Final = "tokenizer.ggml.tokens"
_TOOL: Final = {
    "type": "function",
    "function": {"name": "look", "description": "Look.", "parameters": {"type": "object", "properties": {}}},
}


def main() -> int:
    """Answer one question."""
    question = Question.parse_canonical(sys.stdin.buffer.read())
    warm_up()
    try:
        cage.shut_in()
    except HostError as error:
        answer = Answer(refusal=error.message, field="host")
    else:
        answer = answer_question(question)
    sys.stdout.buffer.write(answer.canonical_bytes())
    return 0


def warm_up() -> None:
    """Have Jinja and Python load what they load late: shut in, nothing can be loaded any more."""
    everything = """{% macro m(x) %}{{ x | trim | wordwrap(9) | urlize | pprint }}{% endmacro %}{% set n = namespace(a="\\u00e9") %}
{% for i in range(2) %}{% if i %}{% break %}{% endif %}{{ m("a b") ~ n.a ~ {"k": [1]} | tojson(indent=2) }}{% endfor %}"""
    environment = make_environment()
    environment.from_string(everything).render()
    for broken in ("{% for %}", "{{ 1 / 0 }}"):
        with contextlib.suppress(TemplateError, ArithmeticError):
            environment.from_string(broken).render()


def answer_question(question: Question) -> Answer:
    """Parse the files and render the template."""
    try:
        return Answer(facts=_examine(question))
    except RefusedError as refused:
        field = refused.field or "files"
        return Answer(refusal=refused.message.removeprefix(f"{field}: "), field=field)
    except MemoryError:
        return Answer(refusal="examining it takes more memory than it may", field="files")


def _examine(question: Question) -> Facts:
    heads = [_parse(descriptor, index) for index, descriptor in enumerate(question.descriptors)]
    verify_shards(heads)
    first, descriptor = heads[0], question.descriptors[0]
    architecture = first.text("general.architecture")
    if not architecture:
        raise PinError("it does not say of what architecture it is", field="files.0")
    tokens = _role_texts(first, descriptor)
    found = first.text("tokenizer.chat_template")
    template = found if question.template is None else question.template
    if template:
        render(template, tokens, with_tools=question.with_tools)
    ends = dict.fromkeys(tokens.get(role, "") for role in ("eot", "eos"))
    return Facts(
        architecture=architecture[:256],
        context_tokens=min(max(0, first.whole(f"{architecture}.context_length")), 2**40),
        licence=first.text("general.license")[:256],
        parameters=min(sum(head.parameters for head in heads), 2**53 - 1),
        tensors=sum(head.tensors for head in heads),
        template=found if len(found) <= MAX_TEMPLATE else "",
        end=tuple(text for text in ends if text and len(text) <= 64),
    )


def _parse(descriptor: int, index: int) -> Head:
    try:
        return parse_head(descriptor)
    except PinError as error:
        raise PinError(error.message, field=f"files.{index}") from error


def verify_shards(heads: list[Head]) -> None:
    """Check that the files are all shards of one model, in their order; return None or raise.

    Raises:
        PinError: Naming the file.
    """
    count = heads[0].whole("split.count") or 1
    if count != len(heads):
        raise PinError("the model has another number of shards than there are files", field="files")
    if count == 1:
        return
    for index, head in enumerate(heads):
        if head.whole("split.no") != index or head.whole("split.count") != count:
            raise PinError("not this shard of the model", field=f"files.{index}")
    if heads[0].whole("split.tensors.count") != sum(head.tensors for head in heads):
        raise PinError("the shards have another number of tensors than the model", field="files")


def _role_texts(head: Head, descriptor: int) -> dict[str, str]:
    """Return the texts of the tokens that begin and end."""
    array = head.metadata.get(_TOKENS)
    if not isinstance(array, Array):
        return {}
    ids = {role: head.whole(f"tokenizer.ggml.{role}_token_id", -1) for role in ("bos", "eos", "eot")}
    texts = read_texts(descriptor, array, set(ids.values()))
    return {role: texts[number] for role, number in ids.items() if number in texts}


def make_environment() -> ImmutableSandboxedEnvironment:
    """Return the dialect in which cells render templates (`inference.engine.template`); a test compares the two."""
    environment = ImmutableSandboxedEnvironment(
        loader=None,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.loopcontrols"],
        autoescape=False,
    )
    environment.filters["tojson"] = _to_json
    return environment


def _to_json(value: Any, *, indent: int | None = None, sort_keys: bool = False, **_options: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent, sort_keys=sort_keys)


def render(template: str, tokens: dict[str, str], *, with_tools: bool) -> None:
    """Render a short conversation as a cell would; return None or raise.

    Raises:
        PinError: If the template does not compile, does not take it, changes what was said, or grows without end.
    """
    marks = [secrets.token_hex(16) for _ in range(3)]
    messages = [
        {"role": role, "content": mark}
        for role, mark in zip(("user", "assistant", "user"), marks, strict=True)
    ]
    names: dict[str, Any] = {
        "bos_token": tokens.get("bos", ""),
        "eos_token": tokens.get("eos", ""),
        "raise_exception": _refuse,
    }
    environment = make_environment()
    try:
        compiled = environment.from_string(template)
        if with_tools and "tools" not in meta.find_undeclared_variables(environment.parse(template)):
            raise PinError("the chat template takes no tools", field="tool_calls")
        names |= {"tools": [_TOOL]} if with_tools else {}
        rendered = _bounded(compiled.generate(messages=messages, add_generation_prompt=True, **names))
    except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError, RecursionError) as error:
        # `from None`: Jinja's message can quote the template.
        del error
        raise PinError("the chat template does not render a conversation", field="chat_template") from None
    if marks[-1] not in rendered:
        raise PinError("the chat template leaves out what the user said", field="chat_template")


def _bounded(parts: Any) -> str:
    rendered: list[str] = []
    length = 0
    for part in parts:
        rendered.append(part)
        length += len(part)
        if length > MAX_RENDERED:
            raise PinError("the chat template writes without end", field="chat_template")
    return "".join(rendered)


def _refuse(_message: str = "") -> NoReturn:
    raise TemplateError("refused by the template")


if __name__ == "__main__":
    sys.exit(main())
