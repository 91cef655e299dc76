"""One choice on its way: what it has, when it ends, and the pieces it hands out."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

from proxy.embedded.language_model import TokenRow
from proxy.embedded.sampling import LogprobsMode, Sampler, SamplingParams
from watermark.text import TextAssembler
from watermark.wire.openai_answers import Piece

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from watermark.text import TokenTable


class FinishReason(enum.StrEnum):
    """Why a choice ended, in the API's words."""

    STOP = "stop"
    LENGTH = "length"


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationParams:
    """How one request wants its replies.

    Attributes:
        sampling: How tokens are drawn.
        max_tokens: Most tokens of a reply, at least 1, within the context limit.
        stop: Strings that end the text.
        end_ids: Tokens that end the reply; none where the request ignores them.
    """

    sampling: SamplingParams
    max_tokens: int
    stop: tuple[str, ...] = ()
    end_ids: frozenset[int] = frozenset()


class Generation:
    """The state of one choice; advanced by the engine's thread only."""

    def __init__(
        self,
        prompt: list[int],
        params: GenerationParams,
        *,
        choice: int,
        table: TokenTable,
        mode: LogprobsMode,
    ) -> None:
        self.row = TokenRow(tokens=list(prompt))
        self.pieces: list[Piece] = []
        self.is_cancelled = False
        self._choice = choice
        self._params = params
        self._sampler = Sampler(params.sampling, choice=choice, mode=mode)
        self._text = TextAssembler(table, prompt, params.stop)

    def advance(self, logits: NDArray[np.float64]) -> Piece:
        """Draw the next token, record its piece and return it."""
        token, report = self._sampler.draw(logits)
        self.row.tokens.append(token)
        offset = self._text.length
        ends = token in self._params.end_ids
        text = "" if ends else self._text.add(token)
        reason = self._finish_reason(ends=ends)
        if reason is not None:
            text += self._text.finish()
            if self._text.is_stopped:
                reason = FinishReason.STOP
        piece = Piece(
            choice=self._choice,
            token=token,
            text=text,
            text_offset=offset,
            report=report,
            finish_reason=reason,
        )
        self.pieces.append(piece)
        return piece

    def _finish_reason(self, *, ends: bool) -> FinishReason | None:
        if ends or self._text.is_stopped:
            return FinishReason.STOP
        if len(self.pieces) + 1 >= self._params.max_tokens:
            return FinishReason.LENGTH
        return None
