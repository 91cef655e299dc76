"""This project's mark inside vLLM, for its V2 plug-in interface (the default runner).

`--logits-processors watermark.engines.vllm_v2:CopulaLogitsProcessor`, options as in
`vllm_keys`. One entry point cannot serve both of vLLM's interfaces, so neither is registered.

Rule 1: vLLM calls a plug-in before temperature, min-p, top-k and top-p, so those are applied
here, to marked rows only, and one token is left; what vLLM does afterwards keeps it. Rule 2: what
the grammar masked stays masked. Rule 3: rows are no requests: contexts are read from the engine's
token history at every step, so that recycled slots, preemption and draft tokens need no state.

Source: vLLM 0.33.0, `vllm/v1/worker/gpu/sample/logits_processor/interface.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from vllm.v1.worker.gpu.sample.logits_processor.interface import LogitsProcessor

from watermark.engines.vllm_keys import (
    EngineKeys,
    MarkedRow,
    RequestSampling,
    mark_rows,
    utc_now,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NOTHING: Final = -1


class CopulaLogitsProcessor(LogitsProcessor):  # type: ignore[misc]  # vLLM may be missing
    """Leaves the marked token as the only candidate.

    Args:
        vllm_config: The engine's configuration.
        req_states: The engine's token history.

    Raises:
        KeysConfigError: The options are missing or malformed, or the keys do not load.
    """

    def __init__(self, vllm_config: Any, req_states: Any) -> None:  # noqa: ANN401 - vLLM's own
        self._states = req_states
        self._keys = EngineKeys(vllm_config, utc_now)
        self._slots: dict[int, RequestSampling] = {}

    def add_request(self, req_idx: int, sampling_params: Any) -> bool:  # noqa: ANN401
        """Note how the request in a slot is sampled; whether it is marked.

        Args:
            req_idx: The slot, which may have had another request.
            sampling_params: vLLM's `SamplingParams`.
        """
        sampling = self._keys.sampling_of(sampling_params)
        if sampling is None:
            self._slots.pop(req_idx, None)
            return False
        self._slots[req_idx] = sampling
        return True

    def apply(self, logits: torch.Tensor, ctx: Any) -> torch.Tensor:  # noqa: ANN401
        """Mark rows in place.

        Args:
            logits: Shape (rows, vocab), float32.
            ctx: vLLM's `LogitsContext`.
        """
        slots = ctx.expanded_idx_mapping.tolist()
        rows = [row for row, slot in enumerate(slots) if slot in self._slots]
        if not rows:
            return logits
        where = torch.tensor(rows, device=logits.device)
        by_key: dict[int, list[int]] = {}
        for place, row in enumerate(rows):
            width = self._slots[slots[row]].keyed.record.context_width
            by_key.setdefault(width, []).append(place)
        history = self._history(where, ctx)
        for width, places in by_key.items():
            contexts = fresh_contexts(history, ctx, self._states, where, width)
            marked = [place for place in places if contexts[place, 0] != _NOTHING]
            mark_rows(
                logits,
                [
                    MarkedRow(
                        rows[place],
                        self._slots[slots[rows[place]]],
                        tuple(contexts[place].tolist()),
                    )
                    for place in marked
                ],
            )
        return logits

    def _history(self, where: torch.Tensor, ctx: Any) -> torch.Tensor:  # noqa: ANN401
        """Return the tokens up to each row's input position, drafts of this step included."""
        slots, positions = ctx.expanded_idx_mapping[where].long(), ctx.pos[where].long()
        length = int(positions.max()) + 1
        history = self._states.all_token_ids.gpu[slots, :length].long()
        offsets = ctx.expanded_local_pos[where].long()
        for back in range(int(offsets.max()) + 1):
            has = offsets >= back
            rows = where[has] - back
            history[has.nonzero()[:, 0], positions[has] - back] = ctx.input_ids[rows].long()
        return history


def fresh_contexts(
    history: torch.Tensor,
    ctx: Any,  # noqa: ANN401 - vLLM's own
    states: Any,  # noqa: ANN401
    where: torch.Tensor,
    width: int,
) -> NDArray[np.int64]:
    """Return every row's context, -1 where the reply is too short or it has occurred before.

    Args:
        history: Tokens, shape (n, length).
        ctx: The step's layout.
        states: The engine's token history, for the prompts' lengths.
        where: The rows, shape (n,).
        width: Tokens in a context.
    """
    slots, positions = ctx.expanded_idx_mapping[where].long(), ctx.pos[where].long()
    prompt = torch.as_tensor(states.prompt_len.gpu, device=history.device)[slots].long()
    starts = positions - width + 1
    if history.shape[1] < width:
        return np.full((len(where), width), _NOTHING, np.int64)
    windows = history.unfold(1, width, 1)
    own = windows[torch.arange(len(where), device=history.device), starts.clamp(min=0)]
    is_same = (windows == own[:, None, :]).all(-1)
    is_earlier = torch.arange(windows.shape[1], device=history.device) < starts[:, None]
    is_fresh = (starts >= prompt) & ~(is_same & is_earlier).any(-1)
    contexts: NDArray[np.int64] = torch.where(is_fresh[:, None], own, _NOTHING).cpu().numpy()
    return contexts
