"""A transformers model at work: keys and values that stay in place from request to request.

They live in one tensor a layer, (slots, heads, tokens, size) (`prefix_cache`). A step computes one
token for every row: rows whose slots lie close together are read where they are, others are
gathered. Prompts are computed without their last token, many at a time, before they join the step.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from proxy.embedded.language_model import TokenRow
from proxy.embedded.prefix_cache import SlotTable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

MAX_SLOTS: Final = 128
MIN_SLOTS: Final = 4
CACHE_BYTES: Final = 1 << 30
"""Bound on keys and values, unless the least number of slots needs more."""

PREFILL_TOKENS: Final = 4096
"""Padded prompt tokens of one forward pass; bounds its memory."""

SHARED_PREFILL_TOKENS: Final = 16
"""Prompts that share this much beyond the store wait for the first of them to be computed."""


@dataclass(slots=True)
class _Plan:
    """Where the keys and values of the pass in progress come from and go to."""

    past: int = 0
    span: tuple[int, int] | None = None  # slots read in place, first and end; None: gather
    slots: Any = None  # slots of the batch, shape (rows,)
    columns: Any = None  # decoding: where each row's new token goes, shape (rows,)
    scatter: tuple[Any, Any, Any, Any] | None = None  # prefill: row, offset, slot, column


class _SlotLayer(DynamicLayer):  # type: ignore[misc]  # transformers has no types
    """One layer's keys and values for all slots."""

    def __init__(self, plan: _Plan, keys: torch.Tensor, values: torch.Tensor) -> None:
        super().__init__()
        self._plan, self._keys, self._values = plan, keys, values
        self.is_initialized = True

    def get_seq_length(self) -> int:
        return self._plan.past

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self._plan.past + query_length, 0

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_args: object, **_more: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        step = self._decode if self._plan.scatter is None else self._prefill
        return step(self._keys, key_states), step(self._values, value_states)

    def _decode(self, store: torch.Tensor, fresh: torch.Tensor) -> torch.Tensor:
        plan = self._plan
        token = fresh[:, :, 0]
        store[plan.slots, :, plan.columns] = token
        if plan.span is None:
            seen = store[:, :, : plan.past + 1].index_select(0, plan.slots)
        else:
            seen = store[plan.span[0] : plan.span[1], :, : plan.past + 1]
        seen[:, :, plan.past] = token  # Models expect a query's own key in the last place.
        return seen

    def _prefill(self, store: torch.Tensor, fresh: torch.Tensor) -> torch.Tensor:
        plan = self._plan
        row, offset, slot, column = plan.scatter  # type: ignore[misc]  # set: see update
        past = store[:, :, : plan.past].index_select(0, plan.slots)
        store[slot, :, column] = fresh[row, :, offset]
        return torch.cat([past, fresh], dim=2)


class FolderSession:
    """A transformers model at work, with its store of keys and values."""

    def __init__(self, network: Any, *, context_limit: int) -> None:  # noqa: ANN401 - untyped library
        self._network = network
        self._device = network.device
        self._keep_last = {"logits_to_keep": 1} if _takes(network, "logits_to_keep") else {}
        self._limit = context_limit
        shapes = _probe(network)
        slot_bytes = sum(2 * heads * size * 4 for heads, size in shapes) * (context_limit + 1)
        self.max_rows = int(np.clip(CACHE_BYTES // slot_bytes, MIN_SLOTS, MAX_SLOTS))
        self._plan = _Plan()
        self._stores: list[tuple[torch.Tensor, torch.Tensor]] = []
        for heads, size in shapes:
            shape = (self.max_rows, heads, context_limit + 1, size)
            pair = [torch.zeros(shape, dtype=network.dtype, device=self._device) for _ in range(2)]
            self._stores.append((pair[0], pair[1]))
        cache = Cache(layers=[_SlotLayer(self._plan, *pair) for pair in self._stores])
        self._with_cache = _with_cache(network, cache)
        self._table = SlotTable(self.max_rows, context_limit + 1)
        self._slots: dict[TokenRow, int] = {}

    def logits(self, rows: Sequence[TokenRow]) -> NDArray[np.float64]:
        """Return the next token's logits after each row, shape (rows, vocab)."""
        with torch.inference_mode():
            self._admit([row for row in rows if row not in self._slots])
            return self._decode(rows)

    def release(self, row: TokenRow) -> None:
        """Forget a row; its keys and values stay for others until the slot is needed."""
        slot = self._slots.pop(row, None)
        if slot is not None:
            self._table.release(slot)

    def _admit(self, rows: list[TokenRow]) -> None:
        while rows:
            now, later, begun = list[TokenRow](), list[TokenRow](), set[tuple[int, ...]]()
            for row in rows:
                kept = self._table.kept_tokens(row.tokens)
                beyond = tuple(row.tokens[kept:-1][:SHARED_PREFILL_TOKENS])
                if len(beyond) == SHARED_PREFILL_TOKENS and beyond in begun:
                    later.append(row)
                    continue
                begun.add(beyond)
                self._place(row)
                now.append(row)
            for group in self._prefill_groups(now):
                self._prefill(group)
            rows = later

    def _place(self, row: TokenRow) -> None:
        place = self._table.place(row.tokens)
        if place.source is not None:
            for pair in self._stores:
                for store in pair:
                    store[place.slot, :, : place.kept] = store[place.source, :, : place.kept]
        self._slots[row] = place.slot
        row.cached_tokens = place.kept

    def _missing(self, row: TokenRow) -> int:
        return len(row.tokens) - 1 - int(self._table.lengths[self._slots[row]])

    def _prefill_groups(self, rows: list[TokenRow]) -> Iterator[list[TokenRow]]:
        """Yield rows of similar length together, so that little is padding."""
        group: list[TokenRow] = []
        for row in sorted(rows, key=self._missing):
            missing = self._missing(row)
            if not missing:
                continue
            if group and (
                missing * (len(group) + 1) > PREFILL_TOKENS
                or missing > 2 * self._missing(group[0]) + SHARED_PREFILL_TOKENS
            ):
                yield group
                group = []
            group.append(row)
        if group:
            yield group

    def _prefill(self, rows: list[TokenRow]) -> None:
        """Compute the keys and values of all but the last token of each row."""
        slots = np.array([self._slots[row] for row in rows])
        kept, missing = self._table.lengths[slots], np.array([self._missing(row) for row in rows])
        past, width = int(kept.max()), int(missing.max())
        ids = np.zeros((len(rows), width), dtype=np.int64)
        for place, row in enumerate(rows):
            ids[place, : missing[place]] = row.tokens[kept[place] : -1]
        offsets = np.arange(width)
        real = offsets < missing[:, None]
        row_at, offset_at = np.nonzero(real)
        columns = kept[:, None] + offsets
        plan = self._plan
        plan.past, plan.slots = past, self._tensor(slots)
        plan.scatter = (
            self._tensor(row_at),
            self._tensor(offset_at),
            self._tensor(slots[row_at]),
            self._tensor(columns[row_at, offset_at]),
        )
        mask = np.concatenate([np.arange(past) < kept[:, None], real], axis=1)
        self._forward(ids, mask, np.minimum(columns, self._limit - 1))
        plan.scatter = None
        for place, row in enumerate(rows):
            self._table.extend(int(slots[place]), row.tokens[kept[place] : -1])

    def _decode(self, rows: Sequence[TokenRow]) -> NDArray[np.float64]:
        """Compute the last token of each row."""
        mine = np.array([self._slots[row] for row in rows])
        low, high = int(mine.min()), int(mine.max()) + 1
        in_place = high - low <= 2 * len(rows)
        slots = np.arange(low, high) if in_place else mine
        columns = self._table.lengths[slots]  # Slots between take a token past what they hold.
        where = mine - low if in_place else np.arange(len(rows))
        ids = np.zeros((len(slots), 1), dtype=np.int64)
        ids[where, 0] = [row.tokens[-1] for row in rows]
        plan = self._plan
        plan.past = int(columns.max())
        plan.span = (low, high) if in_place else None
        plan.slots, plan.columns = self._tensor(slots), self._tensor(columns)
        places = np.arange(plan.past + 1)
        mask = (places < columns[:, None]) | (places == plan.past)
        logits = self._forward(ids, mask, np.minimum(columns, self._limit - 1)[:, None])
        for row, slot in zip(rows, mine.tolist(), strict=True):
            self._table.extend(slot, row.tokens[-1:])
        picked = logits[:, -1].to(device="cpu", dtype=torch.float64).numpy()[where]
        result: NDArray[np.float64] = picked
        return result

    def _forward(
        self, ids: NDArray[np.int64], mask: NDArray[np.bool_], positions: NDArray[np.int64]
    ) -> torch.Tensor:
        output = self._network(
            input_ids=self._tensor(ids),
            attention_mask=self._tensor(mask.astype(np.int64)),
            position_ids=self._tensor(positions),
            **self._with_cache,
            **self._keep_last,
        )
        logits: torch.Tensor = output.logits
        return logits

    def _tensor(self, array: NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(array).to(self._device)


def _takes(network: Any, argument: str) -> bool:  # noqa: ANN401 - untyped library
    return argument in inspect.signature(network.forward).parameters


def _with_cache(network: Any, cache: Cache) -> dict[str, object]:  # noqa: ANN401 - untyped library
    """Return the arguments that hand a cache to a forward pass.

    From 5.24 on transformers' own models call it `cache`; code that a folder brings along, and
    older versions, call it `past_key_values`.
    """
    name = "cache" if _takes(network, "cache") else "past_key_values"
    return {name: cache, "use_cache": True}


def _probe(network: Any) -> list[tuple[int, int]]:  # noqa: ANN401 - untyped library
    """Return each layer's heads and head size, as a forward pass leaves them in its cache."""
    cache = DynamicCache()
    ids = torch.zeros((1, 1), dtype=torch.int64, device=network.device)
    with torch.inference_mode():
        network(input_ids=ids, **_with_cache(network, cache))
    return [(layer.keys.shape[1], layer.keys.shape[3]) for layer in cache.layers]
