"""The canonical form: what it takes back, what it leaves, and that it is a form of every text."""

from __future__ import annotations

import json
import re
import time
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from benchmarks.canonical_fuzz import SLOW, check, strings
from watermark.errors import TextEncodingError
from watermark.text.canonical import CANONICAL_VERSION, canonical, canonical_digest, normalizer
from watermark.text.canonical.tables import lookalikes, scripts, tables_digest

SPEC = Path(__file__).parents[4] / "watermark" / "spec" / "canonical.md"
VECTORS = json.loads(
    re.findall(r"^```json\n(.*?)^```$", SPEC.read_text("utf-8"), re.MULTILINE | re.DOTALL)[0]
)
PROSE = (
    'Once upon a time there was a little dog. He said, "It\'s cold today!" and ran.\n\n'
    "The sun (yellow and 3.5 times as big) shone; a car came by. They played: one, two, three."
)


def disguises(letter: str) -> list[str]:
    """Return the look-alikes of a Latin letter that are of its case and of another script."""
    return [
        other
        for other in lookalikes().get(letter, ())
        if unicodedata.category(other) == unicodedata.category(letter)
        and scripts().of(other) not in ("LATIN", "COMMON")
    ]


@pytest.mark.parametrize("vector", VECTORS, ids=[vector["name"] for vector in VECTORS])
def test_the_specifications_vectors(vector: dict[str, str]) -> None:
    assert canonical(vector["text"]) == vector["canonical"]
    assert canonical(vector["canonical"]) == vector["canonical"]


def test_plain_prose_is_its_own_form() -> None:
    assert canonical(PROSE) == PROSE
    assert canonical("") == ""


@pytest.mark.parametrize("script", ["CYRILLIC", "GREEK", "ARMENIAN"])
def test_every_letter_that_can_be_disguised(script: str) -> None:
    others = {one: [o for o in disguises(one) if scripts().of(o) == script] for one in set(PROSE)}
    disguised = "".join(others[one][0] if others[one] else one for one in PROSE)
    assert sum(one != other for one, other in zip(disguised, PROSE, strict=True)) > 20
    assert canonical(disguised) == PROSE


def test_letters_of_all_scripts_at_once() -> None:
    rng = np.random.default_rng(0)
    others = {one: disguises(one) or [one] for one in set(PROSE)}
    disguised = "".join(others[one][rng.integers(len(others[one]))] for one in PROSE)
    assert canonical(disguised) == PROSE


def test_struck_out_text() -> None:
    struck = "".join(one + "\u0336\u0332" for one in PROSE.replace("\n\n", " "))
    assert canonical(struck) == PROSE.replace("\n\n", " ")
    assert canonical("\u0627\u064e \u05d0\u05b8") == "\u0627\u064e \u05d0\u05b8"  # vowels stay


def test_signs_of_a_script_stay_with_its_words() -> None:
    assert canonical("It\u05f3s \u05d0\u05f3 here") == "It\u05f3s \u05d0\u05f3 here"
    assert canonical("It\u05f3s here") == "It's here"
    assert canonical("\u060c \u061f \u3001 \u2014 \u00ab") == "\u060c \u061f \u3001 \u2014 \u00ab"


def test_a_capital_among_small_letters_is_small() -> None:
    assert canonical("а І sаІt, Іt, SАІD") == "a I salt, It, SAID"


@pytest.mark.parametrize(
    "text",
    [
        "Съешь же ещё этих мягких французских булок, да выпей чаю.",
        "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία.",
        "Разработчик из Oracle сказал: a year in Rome, etc.",
        "שפן אכל קצת גזר בטעם חסה, ודי",
        "نص حكيم له سر قاطع وذو شأن عظيم",
        "सारे जग का मन सोचे और खोज करे।",
        "いろはにほへと ちりぬるを。漢字とカタカナ",
        "Ελλάδα, Россия, Հայաստան, საქართველო, France",
        "Zażółć gęślą jaźń; pijamalı hasta yağız şoföre",
        "Tiếng Việt có nhiều dấu.",
        "ꦲꦏ꧀ꦱꦫ ไทย ខ្មែរ",
    ],
)
def test_text_of_the_world_stays(text: str) -> None:
    form = unicodedata.normalize("NFKC", text)
    assert canonical(text) == form
    assert canonical(unicodedata.normalize("NFD", text)) == form


def test_a_word_of_a_disguised_text_is_not_taken_for_a_foreign_one() -> None:
    assert canonical("The саt ѕаw the асе.") == "The cat saw the ace."
    assert canonical("Кот видел ace") == "Кот видел ace"


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("```\na*b*\n```", "```\na*b*\n```"),
        ("~~~~ py\n```\nx\n```\n~~~~", "````py\n```\nx\n```\n````"),
        ("1. do\n\n   ```sh\n   ls *.py\n   ```\n", "1. do\n\n```sh\nls *.py\n```"),
        ("```\nsafе = 1\u200b\n```", "```\nsafe = 1\n```"),
        ("    four *spaces*", "four spaces"),
        ("<pre>a</pre>", "a"),
        ("a < b and c > d", "a < b and c > d"),
        ("2 * 3 * 4 and snake_case_name", "2 * 3 * 4 and snake_case_name"),
        ("<!-- hidden -->shown", "shown"),
        ("<style>p{}</style>\n<p title='x'>shown</p>", "shown"),
        ("[a]: http://x", "[a]: http://x"),
        ("1984. It was cold", "1984. It was cold"),
    ],
)
def test_mark_up(text: str, form: str) -> None:
    assert canonical(text) == form


def test_an_open_fence_hides_nothing() -> None:
    assert canonical("```\n" + PROSE).endswith(PROSE.split("\n\n")[1])


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60))
@example("\\" * 40 + "*a*")
@example("&" + "amp;" * 20 + "lt;b>")
@example("\u115f\u1161")
def test_any_text_has_a_form(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        with pytest.raises(TextEncodingError):
            canonical(text)
    else:
        assert canonical(canonical(text)) == canonical(text)


def test_strings_made_to_be_awkward() -> None:
    """A small run of `python -m benchmarks.canonical_fuzz`."""
    assert check(strings(500, 0)) == (0, 0)


@pytest.mark.slow
def test_many_strings_made_to_be_awkward() -> None:
    assert check(strings(10_000, 1)) == (0, 0)


def test_a_text_that_never_rests_keeps_its_letters() -> None:
    text = "&" + "amp;" * 30 + "#42;x" + "аb" + "\u200b"
    form = canonical(text)
    assert form == canonical(form)
    assert re.fullmatch(r"[a-z ]+", form)


@pytest.mark.parametrize("unit", SLOW.values(), ids=SLOW.keys())
def test_no_text_is_slow(unit: str) -> None:
    """Generous: what is quadratic takes minutes at this length."""
    began = time.perf_counter()
    canonical((unit * 20_000)[:20_000])
    assert time.perf_counter() - began < 15


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb"])
def test_half_a_surrogate_pair_is_refused(text: str) -> None:
    with pytest.raises(TextEncodingError):
        canonical(text)


def test_the_digest_moves_with_what_decides_the_form(monkeypatch: pytest.MonkeyPatch) -> None:
    assert re.fullmatch("[0-9a-f]{64}", canonical_digest())
    assert CANONICAL_VERSION == "canonical/v1"
    assert tables_digest(["a", "b"]) != tables_digest(["ab"])
    now = canonical_digest()
    monkeypatch.setattr(normalizer, "CANONICAL_VERSION", "canonical/v2")
    canonical_digest.cache_clear()
    changed = canonical_digest()
    canonical_digest.cache_clear()
    assert changed != now
