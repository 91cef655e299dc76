"""One choice of an answer: tokens in, pieces of text out.

Between the flow, which chooses tokens, and whoever writes the answer. Stop strings are found
here, because the upstream sees only parts of the text.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from proxy.sampling.questions import Chosen, Draft, Finish
from proxy.sampling.reasoning import Part
from watermark.text import TextAssembler
from watermark.wire.openai_answers import Piece, TokenReport

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from proxy.sampling.questions import Drafted, Flow, TokenLogprobs
    from proxy.sampling.reasoning import Parts
    from watermark.text import StopCutter


@dataclass(slots=True)
class Speller:
    """Puts the text of one choice together.

    Attributes:
        choice: Index of the choice in the answer.
        text: Assembles it, and knows the stop strings; a `TextAssembler` where tokens come.
        end_ids: Tokens that have no text.
        logprobs: Likeliest tokens to report a position; None for no report.
        parts: Tells reasoning from the answer.
        anew: Begins the text of the next part; None where tags are part of one text.
        hides_reasoning: Whether the client gets no reasoning.
    """

    choice: int
    text: StopCutter
    end_ids: frozenset[int]
    logprobs: int | None
    parts: Parts
    anew: Callable[[], StopCutter] | None = None
    hides_reasoning: bool = False

    def piece(self, chosen: Chosen) -> Piece:
        """Return a choice of the flow's as a piece, with what text it makes certain."""
        offset = self.text.length
        part = self.parts.add(chosen.token)
        if part is Part.TAG and self.anew is not None:
            added, self.text = self.text.finish(), self.anew()
        else:
            added = _add(self.text, chosen, self.end_ids)
        is_hidden = self.hides_reasoning and part is not Part.ANSWER
        return Piece(
            choice=self.choice,
            token=chosen.token,
            text="" if is_hidden else added,
            text_offset=offset,
            report=None if self.logprobs is None else _report(chosen, self.logprobs),
            n_tokens=1 if chosen.piece is None else chosen.piece.n_tokens,
            is_reasoning=part is not Part.ANSWER,
            origin=chosen.origin,
        )

    def last(self, piece: Piece, finish: Finish) -> Piece:
        """Return a piece as the last of its choice."""
        rest = self.text.finish()
        return replace(
            piece,
            text=piece.text + ("" if self.hides_reasoning and piece.is_reasoning else rest),
            finish_reason=_reason(finish, piece),
            stop_string=self.text.stopped_by,
        )


def spell(
    flow: Flow, speller: Speller
) -> Generator[Draft | tuple[Piece, ...], Drafted | None, None]:
    """Yield the flow's questions, and between them the pieces that have become certain.

    Args:
        flow: Chooses the tokens.
        speller: Puts their text together.
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
            pieces.append(speller.piece(event))
            if speller.text.is_stopped:
                flow.close()
                finish = Finish.STOP
            continue
        # All but the last piece are certain not to be the last.
        if pieces:
            yield tuple(pieces)
            pieces = []
        answer = yield event
    if pieces:
        yield (*pieces[:-1], speller.last(pieces[-1], finish))


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
