"""Small audits of words, for tests: keys, texts, suspects, folders."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.watermark.cli.shell import LEXICON
from watermark.keys import KeyRecord, SecretKey
from watermark.radioactivity import Budget, Traffic
from watermark.seeding import KeyedUniforms
from watermark.suspects import (
    Audit,
    AuditFolder,
    CallableSuspect,
    Prompt,
    Wishes,
    begin,
    write_plan,
)
from watermark.suspects.figures import figures
from watermark.suspects.planning import check_records
from watermark.text import WordsUnit

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

UNIT = WordsUnit()
NOW = datetime(2026, 11, 24, tzinfo=UTC)
IDS = UNIT.encode(" ".join(LEXICON))


def key(seed: int = 1, **changes: object) -> KeyRecord:
    fields = {"key_id": "k", "unit": UNIT.unit_id, "context_width": 2, "rho": 1.0} | changes
    secret = SecretKey(str(fields["key_id"]), np.random.default_rng(seed).bytes(32))
    return KeyRecord(secret=secret, **fields)  # type: ignore[arg-type]


def marked_text(record: KeyRecord, seed: int, n: int = 60) -> str:
    """Return words that the key chose among four each."""
    rng = np.random.default_rng(seed)
    keyed = KeyedUniforms(record)
    chosen = [int(one) for one in rng.integers(0, len(LEXICON), 2)]
    while len(chosen) < n:
        options = rng.choice(len(LEXICON), 4, replace=False)
        stream = keyed.at([int(IDS[one]) for one in chosen[-2:]])
        assert stream is not None
        chosen.append(int(options[stream.uniforms(IDS[options]).argmax()]))
    return " ".join(LEXICON[one] for one in chosen)


def plain_text(seed: int, n: int = 60) -> str:
    return " ".join(np.random.default_rng([seed, 5]).choice(LEXICON, n).tolist())


def wishes(**changes: object) -> Wishes:
    fields = {
        "suspect": "Example",
        "alpha": 1e-3,
        "effect": 0.5,
        "share_scored": 0.5,
        "budget": Budget(requests=24, max_tokens=60),
    }
    return Wishes(**(fields | changes))  # type: ignore[arg-type]


def make(
    folder: Path, records: Sequence[KeyRecord], traffic: Sequence[Traffic] = (), **changes: object
) -> Audit:
    prompts = [Prompt(id=f"p{i}", prompt=f"Please write text number {i}") for i in range(24)]
    write_plan(
        folder, wishes(**changes), records, rows=prompts, traffic=traffic, unit=UNIT, now=NOW
    )
    opened = AuditFolder(folder)
    begin(opened, None, "a function", is_exploratory=True)
    return Audit(opened, check_records(opened.plan, records), UNIT, records)


def speaker(texts: Sequence[str]) -> CallableSuspect:
    left = iter(texts)
    return CallableSuspect(lambda prompts: [next(left) for _ in prompts], batch=4)


def result_of(audit: Audit) -> dict[str, Any]:
    facts = audit.folder.facts()
    assert facts is not None
    return figures(audit.plan, audit.folder.digest, facts, audit.findings())


class Parrot:
    """A suspect that has learned some texts by heart, and else guesses."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._follows: dict[tuple[str, ...], str] = {}
        for words in (text.split() for text in texts):
            for a, b, c in zip(words, words[1:], words[2:], strict=False):
                self._follows[a, b] = c

    def next_tokens(self, text: str, places: Sequence[int]) -> list[list[tuple[str, float]] | None]:
        found: list[list[tuple[str, float]] | None] = []
        for place in places:
            last = tuple(text[:place].split()[-2:])
            word = self._follows.get(last, LEXICON[sum(map(len, last)) % 7])
            found.append(
                [(f" {word}", 0.75), (" bal", 0.125), ("b\ufffd", 0.1), ("two words", 0.02)]
            )
        return found
