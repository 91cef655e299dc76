"""Which slot a sequence gets, and how much of it is there already."""

from __future__ import annotations

from proxy.embedded.prefix_cache import SHORT_TAIL_TOKENS, SlotTable

BASE = list(range(100, 150))


def fill(table: SlotTable, tokens: list[int]) -> int:
    """Place a sequence, compute the rest of it, and leave."""
    place = table.place(tokens)
    table.extend(place.slot, tokens[place.kept :])
    table.release(place.slot)
    return place.slot


def test_a_repeated_sequence_is_used_in_place_but_for_its_last_token() -> None:
    table = SlotTable(3, 64)
    slot = fill(table, BASE)
    place = table.place(BASE)
    assert (place.slot, place.kept, place.source) == (slot, len(BASE) - 1, None)
    assert table.lengths[slot] == len(BASE) - 1


def test_a_short_tail_is_given_up_and_a_long_one_copied_from() -> None:
    table = SlotTable(3, 128)
    slot = fill(table, BASE)
    place = table.place([*BASE[:-5], 1, 2])
    assert (place.slot, place.kept, place.source) == (slot, len(BASE) - 5, None)
    table.release(slot)
    long = [*BASE, *range(SHORT_TAIL_TOKENS + 1)]
    slot = fill(table, long)
    place = table.place([*BASE, 999, 7])
    assert place.slot != slot
    assert (place.kept, place.source) == (len(BASE), slot)


def test_a_sequence_in_use_is_copied_from() -> None:
    table = SlotTable(2, 64)
    first = table.place(BASE)
    table.extend(first.slot, BASE[:-1])
    second = table.place(BASE)
    assert second.slot != first.slot
    assert (second.kept, second.source) == (len(BASE) - 1, first.slot)


def test_the_least_recently_used_slot_goes_first() -> None:
    table = SlotTable(3, 16)
    for start in (10, 20, 30):
        fill(table, [start, start + 1, start + 2])
    fill(table, [10, 11, 12])
    fill(table, [40, 41, 42])
    assert table.kept_tokens([10, 11, 12, 13]) == 3
    assert table.kept_tokens([20, 21, 22, 23]) == 0
    assert table.kept_tokens([30, 31, 32, 33]) == 3


def test_the_only_free_slot_is_used_whatever_its_tail() -> None:
    table = SlotTable(1, 128)
    long = [*BASE, *range(SHORT_TAIL_TOKENS + 5)]
    fill(table, long)
    place = table.place([*BASE, 999, 7])
    assert (place.slot, place.kept, place.source) == (0, len(BASE), None)


def test_nothing_in_common_keeps_nothing() -> None:
    table = SlotTable(2, 8)
    assert table.kept_tokens([1]) == 0
    place = table.place([1])
    assert (place.kept, place.source) == (0, None)
