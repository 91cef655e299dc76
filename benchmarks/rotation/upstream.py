"""A model API in a process of its own that says random letters: a mark shows in few tokens.

    python -m benchmarks.rotation.upstream TOKENIZER

Its base URL is the one line that it prints; it ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import random
import sys
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer

from tests.support.fake_upstream import FakeUpstream

if TYPE_CHECKING:
    from tests.support.fake_upstream import Turn

LETTERS = "abcdefghijklmnopqrstuvwx"
PROMPT_IDS = [1, 2, 3]


def letters(asked: dict[str, Any], ids: list[int]) -> dict[str, Any]:
    """Return an honest answer to a draft: letters, each as likely as any other."""
    size = asked["max_tokens"]
    return {
        "choices": [
            {
                "index": place,
                "token_ids": random.choices(ids, k=size),  # noqa: S311 - no secret
                "finish_reason": "length",
                "logprobs": None,
            }
            for place in range(asked["n"])
        ]
    }


async def _serve(tokenizer: str) -> None:
    known = Tokenizer.from_file(tokenizer)
    found = [known.token_to_id(letter) for letter in LETTERS]
    ids = [one for one in found if one is not None]
    models = [{"id": name, "max_model_len": 4096} for name in ("m", "g")]

    async def answer(turn: Turn) -> None:
        try:
            body = letters(turn.request.json(), ids)
        except (ValueError, KeyError, TypeError):
            await turn.answer({"error": {"message": "no request of the proxy's own"}}, status=400)
        else:
            await turn.answer(body)

    async def behave(turn: Turn) -> None:
        if turn.request.target == b"/v1/models":
            await turn.answer({"data": models})
        elif turn.request.target == b"/tokenize":
            await turn.answer({"tokens": PROMPT_IDS})
        else:
            await answer(turn)
        upstream.requests.clear()

    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), ended.set)
    async with FakeUpstream(behave).serving() as upstream:
        print(upstream.url, flush=True)
        await ended.wait()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1]))
