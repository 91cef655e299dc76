"""The data that a run starts from is what its digests say, and of the form its page gives."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from pathlib import Path

import pytest

SEEDS = Path(__file__).parents[2] / "seeds"
PROMPTS = "probe-prompts.jsonl"
CONTROLS = "control-texts.jsonl"


def digests() -> dict[str, str]:
    lines = (SEEDS / "SHA256SUMS").read_text(encoding="ascii").splitlines()
    return {name: digest for digest, name in (line.split("  ", 1) for line in lines)}


def rows(name: str) -> list[dict[str, str]]:
    data = (SEEDS / name).read_bytes()
    assert data.endswith(b"\n")
    assert b"\r" not in data
    parsed = [json.loads(line) for line in data.decode().removesuffix("\n").split("\n")]
    assert all(isinstance(value, str) and value for row in parsed for value in row.values())
    return parsed


def normalized(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))


def test_every_file_has_its_digest() -> None:
    here = {path.name for path in SEEDS.iterdir()} - {"SHA256SUMS"}
    assert here == set(digests())
    for name, digest in digests().items():
        assert hashlib.sha256((SEEDS / name).read_bytes()).hexdigest() == digest, name


def test_the_page_gives_the_same_digests_and_counts() -> None:
    page = (SEEDS / "README.md").read_text(encoding="utf-8")
    table = dict(re.findall(r"^\| `([^`]+)` \|.*\| `([0-9a-f]{64})` \|$", page, re.MULTILINE))
    expected = digests()
    del expected["README.md"]  # it cannot hold its own
    assert table == expected
    assert f"| {len(rows(PROMPTS))} prompts" in page
    assert f"| {len(rows(CONTROLS))} texts" in page


@pytest.mark.parametrize(
    ("name", "fields"),
    [(PROMPTS, ["id", "topic", "prompt"]), (CONTROLS, ["id", "topic", "text"])],
)
def test_rows_have_the_fields_of_the_form_and_ids_of_their_own(
    name: str, fields: list[str]
) -> None:
    found = rows(name)
    assert all(list(row) == fields for row in found)
    assert all(re.fullmatch(r"[a-z]+(-[a-z0-9]+)+", row["id"]) for row in found)
    assert max(Counter(row["id"] for row in found).values()) == 1
    assert max(Counter(normalized(row[fields[2]]) for row in found).values()) == 1


def test_there_are_prompts_enough_and_of_many_kinds() -> None:
    found = rows(PROMPTS)
    assert len(found) >= 120
    assert len({row["topic"] for row in found}) >= 15
    assert all(40 <= len(row["prompt"]) <= 300 for row in found)
    openings = Counter(tuple(normalized(row["prompt"]).split()[:4]) for row in found)
    assert max(openings.values()) <= 3


def test_there_are_controls_enough_and_long_enough() -> None:
    found = rows(CONTROLS)
    assert len(found) >= 24
    assert len({row["topic"] for row in found}) == len(found)
    for row in found:
        assert 150 <= len(row["text"].split()) <= 300, row["id"]


def test_no_two_controls_share_a_phrase_of_eight_words() -> None:
    seen: dict[str, str] = {}
    for row in rows(CONTROLS):
        words = normalized(row["text"]).split()
        for start in range(len(words) - 7):
            phrase = " ".join(words[start : start + 8])
            assert seen.setdefault(phrase, row["id"]) == row["id"], phrase


def test_nothing_in_the_data_looks_like_personal_data_or_a_link() -> None:
    for name in (PROMPTS, CONTROLS):
        text = (SEEDS / name).read_text(encoding="utf-8")
        assert not re.search(r"https?://|www\.|[\w.]+@[\w.]+|\+?\d[\d ()/-]{6,}\d", text)
