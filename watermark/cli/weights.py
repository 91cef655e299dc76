"""`watermark detect --weights-from`: scores weighted by what a model of the tester's own expected.

The weighted test takes the place of the plain one, and is so fixed before anything is seen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click
import httpx2
import numpy as np

from watermark.cli.detect_output import Test, body_name
from watermark.detection.many import correct_tests
from watermark.detection.weighted import detect_weighted, weight_levels
from watermark.errors import InputError, SchemeParameterError, WatermarkError
from watermark.seeding import as_token_ids
from watermark.suspects import PromptDistributions
from watermark.text import WORDS_V1

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from watermark.cli.detect_output import Body
    from watermark.keys import KeyRecord
    from watermark.text import Unit

_TIMEOUT_S: Final = 120.0  # a model on a processor may take a minute for a page


def check_weighted(records: Sequence[KeyRecord], *, has_views: bool) -> None:
    """Refuse what weights cannot serve.

    Raises:
        click.UsageError: A place is to be shown, or a key cuts text into words.
    """
    if has_views:
        raise click.UsageError(
            "--highlight, --html and --plot show unweighted windows; leave out --weights-from"
        )
    for record in records:
        if record.unit == WORDS_V1:
            raise click.UsageError(
                f"--weights-from needs keys in the tokens of the server's model, and "
                f"{record.key_id!a} is in words/v1; choose others with --key-id"
            )


def weigh_all(
    url: str,
    bodies: Sequence[Body],
    records: Sequence[KeyRecord],
    units: Mapping[str, Unit],
    *,
    exclude: Sequence[str | list[int]],
    decoys: int,
) -> tuple[list[Test], list[WatermarkError]]:
    """Hold every key against every body with weights; the family is all that could be tested.

    Raises:
        ModelServerError: The server cannot be reached, or does not say what it was asked.
    """
    tests: list[Test] = []
    errors: list[WatermarkError] = []
    with httpx2.Client(base_url=url, timeout=_TIMEOUT_S) as client:
        server = PromptDistributions(client)
        for body in bodies:
            weighed: dict[str, tuple[list[NDArray[np.uint32]], list[NDArray[np.float64]]]] = {}
            for record in records:
                unit = units.get(record.unit)
                try:
                    if record.unit not in weighed:
                        replies = _ids(body.texts or body.ids, unit)
                        weighed[record.unit] = (replies, _weights(server, replies))
                    replies, weights = weighed[record.unit]
                    result = detect_weighted(
                        record, replies, weights, exclude=_ids(exclude, unit), decoys=decoys
                    )
                    tests.append(Test(body, result, record))
                except (InputError, SchemeParameterError) as err:
                    errors.append(type(err)(f"{body_name(body)}: {err}"))
    corrected = correct_tests([test.result for test in tests])
    pairs = zip(tests, corrected, strict=True)
    return [Test(test.body, result, test.record) for test, result in pairs], errors


def _ids(texts: Sequence[str | list[int]], unit: Unit | None) -> list[NDArray[np.uint32]]:
    found = []
    for text in texts:
        if not isinstance(text, str):
            found.append(as_token_ids(text))
        elif unit is not None:
            found.append(unit.encode(text))
    return found


def _weights(
    server: PromptDistributions, replies: Sequence[NDArray[np.uint32]]
) -> list[NDArray[np.float64]]:
    """Return the weights of replies that are tested together, on one scale."""
    excesses = [server.excesses(ids.tolist()) for ids in replies]
    levels = weight_levels(np.concatenate(excesses)) if excesses else np.zeros(0)
    return np.split(levels, np.cumsum([len(one) for one in excesses])[:-1])
