"""POST /v1/completions."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from inference.cell.answer import answer_prompt, read_content
from inference.cell.cell import Cell
from inference.cell.errors import Refusal
from inference.cell.prompt import Prompt, text_tokens
from inference.cell.text_form import TextForm
from inference.cell.text_request import parse_text


async def answer_text(cell: Cell, request: Request) -> Response:
    """Continue one prompt, in the order of `answer_chat`.

    Raises:
        Refusal: As its parts say.
    """
    body, bounds = await read_content(cell, request)
    asked = parse_text(body, bounds)
    prompt = asked.prompt
    if isinstance(prompt, str):
        prompt = await text_tokens(cell.engine, prompt, "prompt", add_special=True)
    if not prompt:
        raise Refusal("invalid_value", "prompt")  # there is nothing to continue
    return await answer_prompt(
        cell, request, asked.generation, Prompt(prompt), TextForm(), prompt_field="prompt"
    )
