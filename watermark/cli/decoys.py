"""How many decoy keys a call of `watermark detect` draws."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from watermark.stats import KEY_PAIRS, decoys_for

if TYPE_CHECKING:
    from collections.abc import Iterable

    from watermark.cli.detect_output import Body
    from watermark.keys import KeyRecord

USUAL_WORK: Final = 2 * 10**7
"""Pairs times decoys of a call that does not say how many: a quarter of a second or so."""
WEIGHTED_WORK: Final = 2 * 10**8
"""The same where scores are weighted, and decoys are what p is to be read from."""
_MAX_DECOYS: Final = 10**9
_FEWEST: Final = 99  # a rank among fewer says nothing
_CHARACTERS: Final = 4  # of a unit, about
_ENGINE: Final = (100, 20_000)  # the same for an engine's function: a pair, and a key


def decoy_count(
    given: str | None,
    alpha: float,
    bodies: Iterable[Body],
    records: Iterable[KeyRecord],
    *,
    work: int = USUAL_WORK,
) -> int:
    """Return how many decoys a call asks for.

    Left out, it is 3 / alpha, or as many as `work` allows, and none where that is next to none:
    the number follows from the texts' lengths, never from what they say. `auto` is 3 / alpha, as
    far as the detector goes.

    Raises:
        click.BadParameter: It is neither `auto` nor a number.
    """
    if given is None:
        usual = min(decoys_for(alpha), work // max(1, _cost(bodies, records)))
        return usual if usual >= _FEWEST else 0
    if given == "auto":
        return decoys_for(alpha)
    if not given.isascii() or not given.isdigit() or int(given[:19]) > _MAX_DECOYS:
        raise click.BadParameter(
            f"{given!a} is neither auto nor a number of 0 to {_MAX_DECOYS}", param_hint="--decoys"
        )
    return int(given)


def _cost(bodies: Iterable[Body], records: Iterable[KeyRecord]) -> int:
    """Return what one decoy of every test costs, in pairs; keys of one kind share theirs."""
    lengths = [
        sum(map(len, body.ids)) + sum(map(len, body.texts)) // _CHARACTERS for body in bodies
    ]
    kinds = {
        (one.unit, one.context_width, one.account_share_q16) for one in records if one.is_copula
    }
    n_engines = sum(not one.is_copula for one in records)
    pair, key = _ENGINE
    return sum(
        len(kinds) * (length + KEY_PAIRS) + n_engines * (pair * length + key) for length in lengths
    )
