"""`watermark detect`: every file against every key, and what cannot be tested is said."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING

import pytest

from tests.watermark.cli.shell import WITNESS, marked_text, marked_token_ids, train_tokenizer
from watermark import Detector, TokenizerUnit, WordsUnit
from watermark.stats import holm

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

    from tests.watermark.cli.shell import Shell

FIELDS = [
    "file", "key_id", "unit", "scheme", "context_width", "n_tokens", "n_scored", "n_repeated",
    "n_excluded",
    "statistic", "log_pvalue", "log10_pvalue", "log_pvalue_family", "log10_pvalue_family", "law",
    "form", "n_forms", "canonical",
]  # fmt: skip


def rows(result: Result) -> list[dict[str, object]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def number(row: dict[str, object], name: str) -> float:
    value = row[name]
    assert isinstance(value, float)
    return value


def test_a_marked_file_is_told_from_a_plain_one(shell: Shell, plain_text: str) -> None:
    record = shell.key("2026-11")
    marked = shell.file("marked.txt", marked_text(record))
    plain = shell.file("plain.txt", plain_text)
    result = shell("detect", marked, plain, "--keys", shell.keys, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    first, second = rows(result)
    fields = list(first)
    fields.remove("decoys")
    assert fields == [*FIELDS, "unicode_version"]
    assert (first["file"], second["file"]) == (str(marked), str(plain))
    assert number(first, "log10_pvalue_family") < -12
    assert number(second, "log10_pvalue_family") > -3
    expected = Detector(record, WordsUnit()).detect(marked.read_text())
    assert first["statistic"] == expected.statistic
    assert first["log_pvalue"] == expected.log_pvalue
    assert first["n_scored"] == expected.n_scored
    assert first["unicode_version"] == WordsUnit.unicode_version


def test_the_family_is_every_test_of_the_call(shell: Shell, plain_text: str) -> None:
    record = shell.key("new")
    shell.key("old", state="detect")
    files = [shell.file("a.txt", marked_text(record)), shell.file("b.txt", plain_text)]
    found = rows(shell("detect", *files, "--keys", shell.keys, "--json"))
    assert [(row["file"], row["key_id"]) for row in found] == [
        (str(file), key_id) for file in files for key_id in ("new", "old")
    ]
    expected = holm([number(row, "log_pvalue") for row in found])
    assert [row["log_pvalue_family"] for row in found] == expected
    for row in found:
        assert math.isclose(
            number(row, "log10_pvalue_family") * math.log(10), number(row, "log_pvalue_family")
        )
    alone = rows(shell("detect", files[0], "--keys", shell.keys, "--key-id", "new", "--json"))
    assert [row["key_id"] for row in alone] == ["new"]
    assert alone[0]["log_pvalue_family"] == alone[0]["log_pvalue"]


def test_people_get_an_aligned_table_and_a_sentence(shell: Shell, plain_text: str) -> None:
    record = shell.key("2026-11")
    files = [shell.file("a.txt", marked_text(record)), shell.file("b.txt", plain_text)]
    result = shell("detect", *files, "--keys", shell.keys)
    heading, first, second, empty, sentence = result.stdout.splitlines()
    assert re.split(r"  +", heading) == [
        "file", "key", "units", "scored", "log10 p", "log10 p family-wise", "log10 p by decoys",
    ]  # fmt: skip
    plainer = shell("detect", *files, "--keys", shell.keys, "--decoys", "0").stdout.splitlines()
    assert re.split(r"  +", plainer[0])[-1] == "log10 p family-wise"
    assert len(first) == len(second) == len(heading)
    assert re.split(r"  +", first)[:3] == [str(files[0]), "2026-11", "200"]
    assert empty == ""
    assert "the text was produced without this key" in sentence
    assert "says nothing about who wrote the text" in sentence
    assert f"Unicode {WordsUnit.unicode_version}" in sentence
    assert "\x1b" not in result.stdout


def test_standard_input_is_a_file(shell: Shell) -> None:
    text = marked_text(shell.key("k"))
    (row,) = rows(shell("detect", "-", "--keys", shell.keys, "--json", stdin=text.encode()))
    assert row["file"] == "-"
    assert number(row, "log10_pvalue") < -12
    twice = shell("detect", "-", "-", "--keys", shell.keys)
    assert (twice.exit_code, twice.stdout) == (2, "")
    assert "give - once" in twice.stderr


def test_files_are_pooled_into_one_test_a_key(shell: Shell) -> None:
    record = shell.key("k")
    texts = [marked_text(record, 40, seed) for seed in range(3)]
    files = [shell.file(f"{i}.txt", text) for i, text in enumerate(texts)]
    (row,) = rows(shell("detect", *files, "--keys", shell.keys, "--pooled", "--json"))
    assert (row["file"], row["files"]) == (None, [str(file) for file in files])
    expected = Detector(record, WordsUnit()).detect_pooled(texts)
    assert row["log_pvalue"] == row["log_pvalue_family"] == expected.log_pvalue
    table = shell("detect", *files, "--keys", shell.keys, "--pooled").stdout
    assert table.splitlines()[1].startswith("3 files  k ")


def test_a_tokenizer_is_found_by_its_digest(shell: Shell, tokenizer_data: bytes) -> None:
    other = shell.file("other.json", train_tokenizer(["unlike"]))
    path = shell.file("tokenizer.json", tokenizer_data)
    record = shell.key("tokens", "--tokenizer", path)
    shell.key("words")
    unit = TokenizerUnit.read(path)
    ids = marked_token_ids(record, unit)
    text = unit.decode(ids)
    assert unit.encode(text).tolist() == ids
    file = shell.file("a.txt", text)
    options = ["--tokenizer", str(other), "--tokenizer", str(path)]
    tokens, words = rows(shell("detect", file, "--keys", shell.keys, *options, "--json"))
    assert tokens["unit"] == record.unit
    assert "unicode_version" not in tokens
    assert number(tokens, "log10_pvalue_family") < -12
    assert number(words, "log10_pvalue_family") > -3
    table = shell("detect", file, "--keys", shell.keys, *options).stdout
    assert f"tokens ({record.unit[:25]})" in table


def test_ids_are_tested_as_they_are(shell: Shell, tokenizer_data: bytes) -> None:
    path = shell.file("tokenizer.json", tokenizer_data)
    record = shell.key("tokens", "--tokenizer", path)
    ids = marked_token_ids(record, TokenizerUnit.read(path))
    array = shell.file("a.json", json.dumps(ids, indent=1))
    lines = shell.file("a.jsonl", f"{ids[:90]}\n\n{ids[90:]}\r\n")
    first, second = rows(shell("detect", array, lines, "--keys", shell.keys, "--ids", "--json"))
    assert first["log_pvalue"] == Detector(record).detect(ids).log_pvalue
    assert second["log_pvalue"] == Detector(record).detect_pooled([ids[:90], ids[90:]]).log_pvalue
    (pooled,) = rows(
        shell("detect", array, lines, "--keys", shell.keys, "--ids", "--pooled", "--json")
    )
    together = Detector(record).detect_pooled([ids, ids[:90], ids[90:]])
    assert pooled["log_pvalue"] == together.log_pvalue


def test_exit_code_says_whether_any_null_was_rejected(shell: Shell, plain_text: str) -> None:
    record = shell.key("k")
    marked = shell.file("a.txt", marked_text(record))
    plain = shell.file("b.txt", plain_text)
    detect = ["detect", "--keys", str(shell.keys)]
    assert shell(*detect, plain).exit_code == 0
    assert shell(*detect, plain, "--exit-code").exit_code == 3
    assert shell(*detect, plain, marked, "--exit-code").exit_code == 0
    assert shell(*detect, marked, "--exit-code", "--alpha", "1e-300").exit_code == 3
    assert shell(*detect, marked, "none", "--exit-code").exit_code == 1
    for alpha in ("0", "1", "nan", "x"):
        result = shell(*detect, marked, "--exit-code", "--alpha", alpha)
        assert (result.exit_code, result.stdout) == (2, "")


def test_what_cannot_be_tested_is_said_and_the_rest_is_tested(shell: Shell) -> None:
    text = marked_text(shell.key("k"))
    good = shell.file("good.txt", text)
    shell.key("old", state="detect")
    bad = {
        "none.txt": "no such file or directory; correct the path",
        "empty.txt": "the file is empty; give one that holds text",
        "short.txt": "nothing to score: 2 units, and a reply needs at least 3",
        "latin.txt": "not UTF-8 at byte 15; convert the file to UTF-8",
        "folder": "is a directory; correct the path",
    }
    shell.file("empty.txt", "")
    shell.file("short.txt", f"{WITNESS} alone")
    shell.file("latin.txt", f"{WITNESS} caf".encode() + b"\xe9 noir")
    (shell.folder / "folder").mkdir()
    names = [str(shell.folder / name) for name in bad]
    result = shell("detect", *names[:3], good, *names[3:], "--keys", shell.keys, "--json")
    assert result.exit_code == 1
    assert [row["file"] for row in rows(result)] == [str(good)] * 2
    for name, message in zip(names, bad.values(), strict=True):
        assert result.stderr.count(f"watermark: {name}: {message}") == 1
    assert "hint: `iconv" in result.stderr
    # The family is what could be tested.
    command = ["detect", *names[:3], str(good), *names[3:], "--keys", str(shell.keys), "--json"]
    alone = shell("detect", good, "--keys", shell.keys, "--json", "--decoys", "0")
    assert rows(shell(*command, "--decoys", "0")) == rows(alone)


def test_nothing_tested_prints_no_data(shell: Shell) -> None:
    shell.key("k")
    short = shell.file("short.txt", WITNESS)
    for options in ([], ["--json"], ["--pooled"]):
        result = shell("detect", short, "--keys", shell.keys, *options)
        assert (result.exit_code, result.stdout) == (1, "")
        assert "pass a longer text" in result.stderr


def test_short_replies_count_when_pooled_with_longer_ones(shell: Shell) -> None:
    text = marked_text(shell.key("k"))
    files = [shell.file("a.txt", text), shell.file("b.txt", "one")]
    (row,) = rows(shell("detect", *files, "--keys", shell.keys, "--pooled", "--json"))
    assert row["n_tokens"] == 201


@pytest.mark.parametrize(
    ("content", "remedy"),
    [
        (f"{WITNESS} is no JSON", ":1: not a JSON array of integers; write one array"),
        ('[1, 2, "xylographer"]', ":1: not a JSON array of integers"),
        ("[1, 2, 3]\n[4.5]\n", ":2: not a JSON array of integers"),
        (b"\xff\xfe", ":1: not a JSON array of integers"),
        ("[1, 2, -3]", ": token ids must lie in 0..4294967294"),
        ("[1, 2, 4294967295]", ": token ids must lie in 0..4294967294"),
        (f"[1, 2, {1 << 80}]", ": token ids must be a flat sequence of integers"),
        (" \n", ": the file is empty; give one that holds unit ids"),
        ("[]", ": nothing to score: 0 units"),
    ],
)
def test_ids_of_another_form_are_refused(shell: Shell, content: str | bytes, remedy: str) -> None:
    shell.key("k")
    file = shell.file("ids.json", content)
    result = shell("detect", file, "--keys", shell.keys, "--ids")
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"watermark: {file}{remedy}" in result.stderr


def test_ids_and_tokenizer_exclude_each_other(shell: Shell) -> None:
    result = shell("detect", "a", "--keys", shell.keys, "--ids", "--tokenizer", "t.json")
    assert result.exit_code == 2
    assert "leave one of them out" in result.stderr


def test_an_unknown_key_id_names_those_that_there_are(shell: Shell) -> None:
    shell.key("2026-11")
    shell.key("2026-10", state="detect")
    file = shell.file("a.txt", WITNESS)
    result = shell("detect", file, "--keys", shell.keys, "--key-id", "2025")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "holds no key '2025'; correct --key-id, it holds '2026-11', '2026-10'" in result.stderr


def test_a_missing_tokenizer_is_named_by_its_digest(shell: Shell, tokenizer_data: bytes) -> None:
    path = shell.file("tokenizer.json", tokenizer_data)
    record = shell.key("tokens", "--tokenizer", path)
    file = shell.file("a.txt", WITNESS)
    result = shell("detect", file, "--keys", shell.keys)
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"key 'tokens' needs --tokenizer with the file of {record.unit}" in result.stderr
    assert "given: none" in result.stderr
    other = shell.file("other.json", train_tokenizer(["unlike"]))
    result = shell("detect", file, "--keys", shell.keys, "--tokenizer", other)
    assert (result.exit_code, result.stdout) == (1, "")
    assert record.unit in result.stderr
    assert f"given: {TokenizerUnit.read(other).unit_id}" in result.stderr
    assert "hint: `sha256sum FILE`" in result.stderr


@pytest.mark.parametrize(
    ("name", "remedy"),
    [("none.json", "pass --tokenizer FILE"), ("a.txt", "pass the model's own file")],
)
def test_a_file_that_is_no_tokenizer_is_refused(shell: Shell, name: str, remedy: str) -> None:
    shell.key("k")
    file = shell.file("a.txt", WITNESS)
    result = shell("detect", file, "--keys", shell.keys, "--tokenizer", shell.folder / name)
    assert (result.exit_code, result.stdout) == (1, "")
    assert remedy in result.stderr


def _open(shell: Shell, key: Path) -> None:
    del shell
    key.chmod(0o644)


def _truncate(shell: Shell, key: Path) -> None:
    del shell
    key.write_bytes(key.read_bytes()[:-70])


def _swap(shell: Shell, key: Path) -> None:
    del shell
    key.write_bytes(key.read_bytes().replace(b"key-id: k", b"key-id: j"))


def _remove(shell: Shell, key: Path) -> None:
    del shell
    key.unlink()


def _misspell(shell: Shell, key: Path) -> None:
    del key
    shell.keys.write_text(shell.keys.read_text().replace("context_width", "contxt_width"))


def _inline(shell: Shell, key: Path) -> None:
    secret = re.search(r"secret: (\w+)", key.read_text())
    assert secret is not None
    shell.keys.write_text(re.sub(r'"file:.*"', f'"{secret[1]}"', shell.keys.read_text()))


def _drop_keys(shell: Shell, key: Path) -> None:
    del key
    shell.keys.unlink()


@pytest.mark.parametrize(
    ("damage", "remedy"),
    [
        (_open, "has mode 0644, too open for a secret; run chmod 600 on it"),
        (_truncate, "is not a key file of form output-watermark-secret-key/v1; restore it"),
        (_swap, "does not match its checksum; restore it from a backup"),
        (_remove, "correct the path in KEYS.toml, or make a key with `watermark keys new`"),
        (_misspell, "`contxt_width` - at `$.key[0]`; see the key file form"),
        (_inline, "never the secret itself; if it stood here, replace the key"),
        (_drop_keys, "correct the path, `watermark keys new` prints a first record"),
    ],
)
def test_keys_that_cannot_be_used_stop_everything(
    shell: Shell, damage: object, remedy: str
) -> None:
    assert callable(damage)
    shell.key("k")
    file = shell.file("a.txt", f"{WITNESS} and more than enough of it")
    damage(shell, shell.folder / "k.key")
    result = shell("detect", file, "--keys", shell.keys)
    assert (result.exit_code, result.stdout) == (1, "")
    assert remedy in result.stderr


def test_names_that_a_terminal_would_act_on_are_escaped(shell: Shell) -> None:
    text = marked_text(shell.key("k"))
    names = ["a\x1b[31m.txt", "a\u202etxt.b"]
    files = [shell.file(name, text) for name in names]
    result = shell("detect", *files, shell.folder / "\x1bnone", "--keys", shell.keys)
    assert "a\\x1b[31m.txt" in result.stdout
    assert "a\\u202etxt.b" in result.stdout
    for character in "\x1b\u202e":
        assert character not in result.stdout + result.stderr


def test_two_units_of_one_key_are_told_apart(shell: Shell, tokenizer_data: bytes) -> None:
    path = shell.file("tokenizer.json", tokenizer_data)
    shell.key("k")
    record = shell.keys.read_text().partition("[[key]]")[2]
    unit = TokenizerUnit.read(path).unit_id
    shell.keys.write_text(shell.keys.read_text() + "[[key]]" + record.replace("words/v1", unit))
    file = shell.file("a.txt", "bal dem gin kor bal dem")
    result = shell("detect", file, "--keys", shell.keys, "--tokenizer", path)
    assert result.exit_code == 0
    assert [re.split(r"  +", line)[1] for line in result.stdout.splitlines()[1:3]] == [
        "k", f"k ({unit[:25]})",
    ]  # fmt: skip
