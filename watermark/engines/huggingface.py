"""This project's mark inside `transformers`' `generate`.

`generate` runs processors that a caller passes *before* temperature, top-k and top-p, and the one
of `watermarking_config` after them, which is where a mark belongs. So the way in is::

    mark = CopulaWatermarkingConfig(record)
    model.generate(**inputs, do_sample=True, watermarking_config=mark)

Rule 1: the processor sees the whole batch; what it has not marked it leaves to `generate`. Rule 2:
a call that does not go on from the last one starts new replies. Rule 3: a processor is not told
how tokens are chosen, and sees the same scores in greedy decoding as in sampling at temperature 1:
it marks, and so samples, in both. Leave the mark out where `do_sample` is false, and in a search
with beams, each of which it would cut to one token.

Source: transformers 5.24, `generation/utils.py` (`_get_logits_processor`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import torch
from transformers import LogitsProcessor
from transformers.generation.configuration_utils import BaseWatermarkingConfig

from watermark.engines.replies import ReplyContexts
from watermark.engines.torch_race import choose, force
from watermark.seeding import KeyedUniforms, as_token_ids

if TYPE_CHECKING:
    from collections.abc import Collection

    from watermark.keys import KeyRecord


class CopulaLogitsProcessor(LogitsProcessor):  # type: ignore[misc]  # transformers has no types
    """Leaves the marked token as the only candidate, row by row.

    For loops of one's own; the scores given must be those that are sampled from. What is decoded
    greedily is not to go through here: it would be sampled.

    Args:
        record: The marking key; its unit is the model's tokenizer.
        account: Who is served; None leaves account-channel positions unmarked.
        breaks: Token ids after which a reply of its own starts: special tokens.
        generator: Private randomness, on the model's device; torch's own where none is given.
    """

    def __init__(
        self,
        record: KeyRecord,
        *,
        account: str | None = None,
        breaks: Collection[int] = (),
        generator: torch.Generator | None = None,
    ) -> None:
        self._keyed = KeyedUniforms(record, account=account)
        self._breaks = frozenset(breaks)
        self._generator = generator
        self._replies: list[ReplyContexts] = []
        self._before = torch.zeros((0, 0), dtype=torch.int64)

    def __repr__(self) -> str:
        """Show the key id only."""
        return f"<CopulaLogitsProcessor {self._keyed.record.key_id!r}>"

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return the scores, those of marked rows but their winner -inf.

        Args:
            input_ids: Prompts and replies so far, shape (batch, length).
            scores: What is sampled from, shape (batch, vocab).
        """
        self._follow(input_ids)
        taken = [reply.take() for reply in self._replies]
        rows = [row for row, context in enumerate(taken) if context is not None]
        if not rows:
            return scores
        contexts = as_token_ids([token for context in taken if context for token in context])
        found = self._keyed.at_each(contexts.reshape(len(rows), -1))
        if not found.is_keyed.all():
            rows = [row for row, is_keyed in zip(rows, found.is_keyed, strict=True) if is_keyed]
            found = found.keyed()
        if not rows:
            return scores
        where = torch.tensor(rows, device=scores.device)
        chosen = scores if len(rows) == len(scores) else scores[where]
        winners = choose(chosen, found, self._keyed.record.rho, self._generator)
        return force(scores.clone(), where, winners)

    def _follow(self, input_ids: torch.Tensor) -> None:
        """Take the last token of every row, or start new replies."""
        before = self._before
        goes_on = input_ids.shape == (len(before), before.shape[1] + 1) and torch.equal(
            input_ids[:, :-1], before
        )
        self._before = input_ids
        if not goes_on:
            width = self._keyed.record.context_width
            self._replies = [
                ReplyContexts(width, prompt=prompt, breaks=self._breaks)
                for prompt in input_ids.tolist()
            ]
            return
        for reply, token in zip(self._replies, input_ids[:, -1].tolist(), strict=True):
            reply.extend(token)


class CopulaWatermarkingConfig(BaseWatermarkingConfig):  # type: ignore[misc]
    """What `generate` takes as `watermarking_config`; shows the key id and nothing secret.

    For calls with `do_sample=True` and one beam: nothing here can see that a call is greedy, and a
    greedy one would be sampled at temperature 1.

    Args:
        record: The marking key; its unit is the model's tokenizer.
        account: Who is served.
        breaks: Token ids after which a reply of its own starts.
    """

    # In slots, so that what transformers copies, prints and saves is the public part.
    __slots__ = ("_account", "_breaks", "_record")

    def __init__(
        self, record: KeyRecord, *, account: str | None = None, breaks: Collection[int] = ()
    ) -> None:
        self._record = record
        self._account = account
        self._breaks = breaks
        self.key_id = record.key_id  # type: ignore[misc]  # in __dict__, which the base has
        self.scheme = record.scheme  # type: ignore[misc]

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return itself: `generate` copies its configuration, and a key is never copied."""
        return self

    def validate(self) -> None:
        """Find nothing wrong: the record was checked when it was made."""

    def construct_processor(
        self, vocab_size: int, device: torch.device | str
    ) -> CopulaLogitsProcessor:
        """Return a fresh processor for one call of `generate`.

        Args:
            vocab_size: Not needed.
            device: Not needed: the scores say where they are.
        """
        del vocab_size, device
        return CopulaLogitsProcessor(self._record, account=self._account, breaks=self._breaks)
