"""POST /v1/chat/completions."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from inference.cell.answer import answer_prompt, read_content
from inference.cell.cell import Cell
from inference.cell.chat_form import ChatForm
from inference.cell.chat_request import parse_chat
from inference.cell.prompt import chat_prompt


async def answer_chat(cell: Cell, request: Request) -> Response:
    """Answer one chat request.

    1. read, parse and tokenise: what is refused here opens no session; 2. find or open the session; 3. decode.

    Raises:
        Refusal: As its parts say.
    """
    body, bounds = await read_content(cell, request)
    chat = parse_chat(body, bounds)
    tools = chat.tools.offered if chat.tools else ()
    share = cell.policy.current.limits.share_prefixes
    prompt = await chat_prompt(cell.engine, chat.messages, tools, share=share)
    return await answer_prompt(
        cell, request, chat.generation, prompt, ChatForm(), prompt_field="messages", tools=chat.tools
    )
