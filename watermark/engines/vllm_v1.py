"""This project's mark inside vLLM, for its V1 plug-in interface (the older runner).

`--logits-processors watermark.engines.vllm_v1:CopulaLogitsProcessor`, options as in
`vllm_keys`. Give the class on the command line and never by an entry point: with asynchronous
scheduling only the former makes vLLM hand over the tokens that were chosen (vllm#52461).

Rule 1: this interface comes before penalties too, so that requests with penalties are not
marked; temperature, min-p, top-k and top-p are applied here. Rule 2: where vLLM shows a
placeholder in the place of a token, the row is left alone. Rule 3: changes of the batch are taken
in the order removed, added, moved.

Source: vLLM 0.33.0, `vllm/v1/sample/logits_processor/interface.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vllm.v1.sample.logits_processor.interface import LogitsProcessor, MoveDirectionality

from watermark.engines.replies import ReplyContexts
from watermark.engines.vllm_keys import (
    EngineKeys,
    MarkedRow,
    RequestSampling,
    mark_rows,
    utc_now,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch


@dataclass(slots=True)
class _Running:
    """One request of the batch: how far its reply was followed."""

    sampling: RequestSampling
    output: list[int]
    contexts: ReplyContexts
    n_followed: int = 0

    def take(self) -> tuple[int, ...] | None:
        """Return the context of the next position, if it is to be marked."""
        known = self.output[self.n_followed :]
        if any(token < 0 for token in known):
            return None
        for token in known:
            self.contexts.extend(token)
        self.n_followed += len(known)
        return self.contexts.take()


class CopulaLogitsProcessor(LogitsProcessor):  # type: ignore[misc]  # vLLM may be missing
    """Leaves the marked token as the only candidate.

    Args:
        vllm_config: The engine's configuration.
        device: Where the logits are.
        is_pin_memory: Not needed.

    Raises:
        KeysConfigError: The options are missing or malformed, or the keys do not load.
    """

    def __init__(
        self,
        vllm_config: Any,  # noqa: ANN401 - vLLM's own
        device: torch.device,
        is_pin_memory: bool,  # noqa: ARG002 - the interface's
    ) -> None:
        self._device = device
        self._keys = EngineKeys(vllm_config, utc_now)
        self._running: dict[int, _Running] = {}

    def is_argmax_invariant(self) -> bool:
        """Return that the winner need not be the most likely token."""
        return False

    def update_state(self, batch_update: Any | None) -> None:  # noqa: ANN401
        """Follow the batch.

        Args:
            batch_update: vLLM's `BatchUpdate`; None where nothing changed.
        """
        if batch_update is None:
            return
        for index in batch_update.removed:
            self._running.pop(index, None)
        for index, params, prompt, output in batch_update.added:
            self._add(index, params, prompt, output)
        for one, other, direction in batch_update.moved:
            first, second = self._running.pop(one, None), self._running.pop(other, None)
            if first is not None:
                self._running[other] = first
            if second is not None and direction == MoveDirectionality.SWAP:
                self._running[one] = second

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Mark rows in place.

        Args:
            logits: Shape (requests, vocab).
        """
        taken = [(row, one, one.take()) for row, one in sorted(self._running.items())]
        mark_rows(
            logits,
            [
                MarkedRow(row, one.sampling, context)
                for row, one, context in taken
                if context is not None
            ],
        )
        return logits

    def _add(
        self,
        index: int,
        params: Any,  # noqa: ANN401 - vLLM's own
        prompt: Sequence[int] | None,
        output: list[int],
    ) -> None:
        """Start to follow a request, in the place of whichever was there."""
        self._running.pop(index, None)
        has_penalty = params.presence_penalty or params.frequency_penalty
        sampling = self._keys.sampling_of(params)
        if sampling is None or has_penalty or params.repetition_penalty != 1.0:
            return
        width = sampling.keyed.record.context_width
        contexts = ReplyContexts(width, prompt=list(prompt or ()))
        self._running[index] = _Running(sampling, output, contexts)
