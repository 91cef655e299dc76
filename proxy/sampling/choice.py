"""One choice of an answer: tokens in, pieces of text out.

Between the flow, which chooses tokens, and whoever writes the answer. Stop strings are found
here, because the upstream sees only parts of the text.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from proxy.sampling.questions import Chosen, Draft, Finish
from watermark.text import TextAssembler
from watermark.wire.openai_answers import Piece, TokenReport

if TYPE_CHECKING:
    from collections.abc import Generator

    from proxy.sampling.questions import Drafted, Flow, TokenLogprobs
    from watermark.text import StopCutter


def spell(
    flow: Flow,
    text: StopCutter,
    *,
    choice: int,
    end_ids: frozenset[int],
    logprobs: int | None,
) -> Generator[Draft | tuple[Piece, ...], Drafted | None, None]:
    """Yield the flow's questions, and between them the pieces that have become certain.

    Args:
        flow: Chooses the tokens.
        text: Assembles them, and knows the stop strings; a `TextAssembler` where tokens come.
        choice: Index of the choice in the answer.
        end_ids: Tokens that have no text.
        logprobs: Likeliest tokens to report a position; None for no report.
    """
    pieces: list[Piece] = []
    answer: Drafted | None = None
    finish: Finish | None = None
    while finish is None:
        try:
            event = flow.send(answer)
        except StopIteration as done:
            finish = done.value or Finish.LENGTH
            break
        answer = None
        if isinstance(event, Chosen):
            offset = text.length
            added = _add(text, event, end_ids)
            report = None if logprobs is None else _report(event, logprobs)
            pieces.append(
                Piece(
                    choice=choice,
                    token=event.token,
                    text=added,
                    text_offset=offset,
                    report=report,
                    n_tokens=1 if event.piece is None else event.piece.n_tokens,
                    origin=event.origin,
                )
            )
            if text.is_stopped:
                flow.close()
                finish = Finish.STOP
            continue
        # All but the last piece are certain not to be the last.
        if pieces:
            yield tuple(pieces)
            pieces = []
        answer = yield event
    if pieces:
        last = pieces[-1]
        pieces[-1] = replace(
            last,
            text=last.text + text.finish(),
            finish_reason=_reason(finish, last),
            stop_string=text.stopped_by,
        )
        yield tuple(pieces)


def _reason(finish: Finish, last: Piece) -> str | None:
    """Return why a choice ended; of a whole reply the upstream's own word, where it has ended."""
    is_own = last.origin is not None and finish is not Finish.STOP
    return last.origin.finish if last.origin is not None and is_own else finish.value


def _add(text: StopCutter, chosen: Chosen, end_ids: frozenset[int]) -> str:
    """Return the text that a choice makes certain."""
    if chosen.piece is not None:
        return text.add_text(chosen.piece.text)
    if chosen.token in end_ids or not isinstance(text, TextAssembler):
        return ""
    return text.add(chosen.token)


def _report(chosen: Chosen, count: int) -> TokenReport | None:
    """Return what the client asked to see of a position."""
    listed: TokenLogprobs | None = chosen.alternatives
    if chosen.logprob is None or listed is None:
        return None
    order = np.argsort(-listed.logprobs, kind="stable")[:count]
    return TokenReport(chosen.logprob, listed.ids[order], listed.logprobs[order])
