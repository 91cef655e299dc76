"""Reports about positions in the two forms that the API has.

Two tokens can look the same (two halves of characters both read U+FFFD), and then share one key
in the completions form; with `as_ids` every token has a key of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from proxy.embedded.generation import Piece
    from proxy.embedded.token_bytes import TokenTable


class LogprobsWriter:
    """Writes reports for one tokenizer, with tokens as text or as ids."""

    def __init__(self, table: TokenTable, *, as_ids: bool) -> None:
        self._table = table
        self._as_ids = as_ids

    def label(self, token: int) -> str:
        """Return the token as the API shows it."""
        return f"token_id:{token}" if self._as_ids else self._table.labels[token]

    def completion(self, pieces: Sequence[Piece]) -> dict[str, Any]:
        """Return the `logprobs` object of the completions endpoint."""
        reports = [piece.logprobs for piece in pieces if piece.logprobs is not None]
        return {
            "tokens": [self.label(piece.token) for piece in pieces],
            "token_logprobs": [report.logprob for report in reports],
            "top_logprobs": [self._top_dict(piece) for piece in pieces],
            "text_offset": [piece.text_offset for piece in pieces],
        }

    def chat(self, pieces: Sequence[Piece]) -> dict[str, Any]:
        """Return the `logprobs` object of the chat endpoint."""
        return {"content": [self._content(piece) for piece in pieces], "refusal": None}

    def _top_dict(self, piece: Piece) -> dict[str, float] | None:
        report = piece.logprobs
        if report is None:
            return None
        labels = [self.label(token) for token in report.ids.tolist()]
        top = dict(zip(labels, report.values.tolist(), strict=True))
        if len(top) < len(labels):  # Of tokens with one label the most probable stays.
            top = {}
            for label, value in zip(labels, report.values.tolist(), strict=True):
                top.setdefault(label, value)
        top[self.label(piece.token)] = report.logprob
        return top

    def _content(self, piece: Piece) -> dict[str, Any]:
        report = piece.logprobs
        if report is None:
            return self._entry(piece.token, 0.0) | {"top_logprobs": []}
        ids, values = report.ids.tolist(), report.values.tolist()
        top = [self._entry(token, value) for token, value in zip(ids, values, strict=True)]
        return self._entry(piece.token, report.logprob) | {"top_logprobs": top}

    def _entry(self, token: int, logprob: float) -> dict[str, Any]:
        special = token in self._table.special
        return {
            "token": self.label(token),
            "logprob": logprob,
            "bytes": None if special else list(self._table.content[token]),
        }
