"""Whole replies: asked for in the client's own words, and kept as the upstream gave them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from proxy.errors import UpstreamProtocolError
from proxy.sampling.questions import Continuation, Drafted, Finish, TextPiece
from watermark.wire.origins import origins_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from proxy.sampling.questions import Draft
    from watermark.wire.openai_requests import GenerationRequest

_LEFT_OUT: Final = ("stream", "stream_options", "n", "seed")
_CHARACTERS_A_TOKEN: Final = 4  # roughly, where an upstream counts nothing
_FINISHES: Final = {one.value: one for one in (Finish.STOP, Finish.LENGTH)}


def question_of(request: GenerationRequest, draft: Draft) -> dict[str, Any]:
    """Return the client's own request, for several choices at once."""
    body = {name: value for name, value in request.body.items() if name not in _LEFT_OUT}
    optional = {"n": draft.n if draft.n > 1 else None, "seed": draft.seed}
    return body | {name: value for name, value in optional.items() if value is not None}


def read_replies(data: bytes, draft: Draft) -> Drafted:
    """Return the replies of one answer.

    Raises:
        UpstreamProtocolError: It cannot be read.
    """
    try:
        origins = origins_of(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as err:
        raise UpstreamProtocolError(
            f"the upstream's answer cannot be read ({err}); check that upstream.url is an "
            "OpenAI-style API"
        ) from err
    total = origins[0].completion_tokens if origins else None
    shares = _shares([one.text for one in origins], draft.max_tokens, total)
    return Drafted(
        tuple(
            Continuation(
                tokens=(),
                finish=_FINISHES.get(one.finish or "", Finish.OTHER),
                pieces=(TextPiece(one.text, share),),
                generated=share,
                origin=one,
            )
            for one, share in zip(origins, shares, strict=True)
        ),
        prompt_tokens=origins[0].prompt_tokens if origins else None,
    )


def _shares(texts: Sequence[str], asked: int, total: int | None) -> list[int]:
    """Return about how many tokens each of several replies took: its share by length."""
    length = sum(map(len, texts))
    tokens = length // _CHARACTERS_A_TOKEN if total is None else total
    return [min(asked, max(1, round(tokens * len(one) / max(1, length)))) for one in texts]
