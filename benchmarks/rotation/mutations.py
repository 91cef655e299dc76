"""What can go wrong when `KEYS.toml` is edited, made on purpose and by a seed.

Rule 1: what a mutation is said to break follows from how it is made, never from the loader; where
that does not tell, the mutation says so and the loader is asked afterwards.
"""

from __future__ import annotations

import asyncio
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from watermark.keys import SecretKey, format_key_file

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from numpy.random import Generator

    from benchmarks.rotation.stage import Stage

BAD_MODES: Final = (0o644, 0o604, 0o660, 0o666, 0o620, 0o602, 0o777)
SWAPS: Final = 25


@dataclass(frozen=True)
class Good:
    """What there was before.

    Attributes:
        stage: Where it lies.
        text: The text of KEYS.toml.
        marking: The key that marks by default.
        retired: A key that has marked.
        pending: The key that marks next.
    """

    stage: Stage
    text: str
    marking: str
    retired: str
    pending: str

    def secret_file(self, key_id: str) -> bytes:
        """Return a key file."""
        return (self.stage.keys_file.parent / f"{key_id}.key").read_bytes()


@dataclass(frozen=True)
class Mutation:
    """One way to break it.

    Attributes:
        kind: Its name in the table.
        is_invalid: Whether it must be refused; None where its making does not tell.
        apply: Does it.
        undo: Undoes what writing KEYS.toml again does not.
    """

    kind: str
    is_invalid: bool | None
    apply: Callable[[], Awaitable[None]]
    undo: Callable[[], None] = lambda: None


Maker: TypeAlias = "Callable[[Good, Generator], Mutation]"


def _text(good: Good, kind: str, text: str | bytes, *, is_invalid: bool | None = True) -> Mutation:
    async def apply() -> None:
        good.stage.replace(text if isinstance(text, bytes) else text.encode())

    return Mutation(kind, is_invalid, apply)


def _tables(text: str) -> tuple[str, list[str]]:
    head, *tables = re.split(r"(?m)^(?=\[\[)", text)
    return head, tables


def _table_of(tables: list[str], key_id: str) -> int:
    return next(place for place, table in enumerate(tables) if f'id = "{key_id}"' in table)


def _edit(text: str, key_id: str, old: str, new: str) -> str:
    """Replace in the table of one key, by a pattern that has to be there."""
    head, tables = _tables(text)
    place = _table_of(tables, key_id)
    tables[place], count = re.subn(old, new, tables[place], count=1)
    assert count == 1, (key_id, old)
    return head + "".join(tables)


def delete(good: Good, rng: Generator) -> Mutation:
    """Delete a line that has to be there, or the table of the key that marks."""
    field = str(rng.choice(["id", "unit", "secret", "[[key]]", "table", "schema"]))
    if field == "table":
        head, tables = _tables(good.text)
        del tables[_table_of(tables, good.marking)]
        return _text(good, "delete", head + "".join(tables))
    lines = good.text.splitlines(keepends=True)
    places = [place for place, line in enumerate(lines) if line.startswith(field)]
    del lines[int(rng.choice(places))]
    return _text(good, "delete", "".join(lines))


def duplicate(good: Good, rng: Generator) -> Mutation:
    """Repeat a line that sets a field, or a whole table."""
    if rng.random() < 0.5:
        head, tables = _tables(good.text)
        tables.insert(int(rng.integers(len(tables) + 1)), str(rng.choice(tables)))
        return _text(good, "duplicate", head + "".join(tables))
    lines = good.text.splitlines(keepends=True)
    places = [place for place, line in enumerate(lines) if "=" in line]
    place = int(rng.choice(places))
    lines.insert(place, lines[place])
    return _text(good, "duplicate", "".join(lines))


def overlap(good: Good, rng: Generator) -> Mutation:
    """Move the successor's start to where two keys would mark, or none."""
    day = int(rng.integers(1, 28))
    start = f"2029-{rng.integers(1, 13):02d}-{day:02d}T00:00:00Z"
    if rng.random() < 0.5:  # its predecessor ends at the beginning of 2030
        start = f"2030-{rng.integers(2, 13):02d}-{day:02d}T00:00:00Z"
    text = _edit(good.text, good.pending, r"not_before = \S+", f"not_before = {start}")
    return _text(good, "overlap or gap", text)


def wrong_mode(good: Good, rng: Generator) -> Mutation:
    """Let others read a secret, or everybody write KEYS.toml."""
    path = good.stage.keys_file.parent / f"{rng.choice([good.marking, good.pending])}.key"
    mode = int(rng.choice(BAD_MODES))
    if rng.random() < 0.2:
        path, mode = good.stage.keys_file, 0o666

    async def apply() -> None:
        path.chmod(mode)

    return Mutation("wrong mode", is_invalid=True, apply=apply, undo=lambda: path.chmod(0o600))


def truncate(good: Good, rng: Generator) -> Mutation:
    """Cut KEYS.toml anywhere."""
    data = good.text.encode()
    return _text(good, "truncate", data[: int(rng.integers(len(data)))], is_invalid=None)


def binary(good: Good, rng: Generator) -> Mutation:
    """Put bytes into KEYS.toml that are no UTF-8, or that TOML does not allow anywhere."""
    data = bytearray(good.text.encode())
    place = int(rng.integers(len(data)))
    junk = b"\xff" if rng.random() < 0.5 else b"\x00"
    size = int(rng.integers(16))
    noise = bytes(rng.integers(128, 256, size, dtype="uint8").tolist())
    data[place:place] = junk + noise
    return _text(good, "binary", bytes(data))


def key_file(good: Good, rng: Generator) -> Mutation:
    """Damage the file of a secret: cut, flip a bit, remove, replace by another key's."""
    key_id = str(rng.choice([good.marking, good.retired, good.pending]))
    path = good.stage.keys_file.parent / f"{key_id}.key"
    data = path.read_bytes()
    way = rng.integers(5)
    if way == 0:
        bad = data[: int(rng.integers(len(data)))]
    elif way == 1:
        flipped = bytearray(data)
        flipped[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
        bad = bytes(flipped)
    elif way == 2:
        bad = good.secret_file(good.retired if key_id != good.retired else good.pending)
    elif way == 3:  # other material under the same id
        bad = format_key_file(SecretKey(key_id, rng.bytes(32)))
    else:
        bad = b""

    async def apply() -> None:
        if bad:
            good.stage.replace(bad, path)
        else:
            path.unlink()

    return Mutation(
        "key file", is_invalid=True, apply=apply, undo=lambda: good.stage.replace(data, path)
    )


EDITS: Final = (
    (r'unit = "[^"]*"', 'unit = "tokenizer:sha256:' + "0" * 64 + '"'),
    (r'unit = "[^"]*"', 'unit = "characters/v1"'),
    (r"rho = \S+", "rho = 1.5"),
    (r"rho = \S+", 'rho = "high"'),
    (r"rho = \S+", "rho = 0.9\nrhoo = 0.9"),
    (r"context_width = \S+", "context_width = 9"),
    (r"context_width = \S+", "context_width = 3"),  # it has marked with 2
    (r'scheme = "[^"]*"', 'scheme = "other"'),
    (r'secret = "[^"]*"', 'secret = "' + "ab" * 32 + '"'),
    (r'secret = "[^"]*"', 'secret = "env:WATERMARK_KEY"'),
    (r'secret = "[^"]*"', 'secret = "file:../data"'),
    (r"not_after = \S+", "not_after = 2020-01-01T00:00:00Z"),
    (r"not_before = \S+", "not_before = 2020-01-01T00:00:00"),
    (r"not_before = \S+", "not_before = 2031-01-01T00:00:00Z"),
    (r"\Z", 'state = "pending"\n'),
    (r"\Z", 'state = "retired"\n'),
    (r"\Z", 'scope = "nobody"\n'),
)


def field(good: Good, rng: Generator) -> Mutation:
    """Give the key that marks a value that is wrong, unknown, or goes back on what was."""
    old, new = EDITS[int(rng.integers(len(EDITS)))]
    return _text(good, "field", _edit(good.text, good.marking, old, new))


def symlink(good: Good, rng: Generator) -> Mutation:
    """Make KEYS.toml a link and swap it while it is read, as orchestrators do; end at a bad one."""
    path = good.stage.keys_file
    whole = path.with_name("good.toml")
    broken = path.with_name("bad.toml")
    cut = good.text.encode()[: len(good.text) // 2] + b"= \n"

    async def apply() -> None:
        for target, data in ((whole, good.text.encode()), (broken, cut)):
            good.stage.replace(data, target)
        for place in range(2 * SWAPS):
            link = path.with_name(".link")
            link.symlink_to((whole, broken)[place % 2].name)
            os.replace(link, path)  # noqa: PTH105 - the link itself, not where it leads
            if place == SWAPS:
                good.stage.ask_reload()
            await asyncio.sleep(float(rng.random()) * 0.004)

    return Mutation("symlink swap", is_invalid=True, apply=apply)


MAKERS: Final[tuple[Maker, ...]] = (
    delete,
    duplicate,
    overlap,
    wrong_mode,
    truncate,
    binary,
    key_file,
    field,
    symlink,
)
