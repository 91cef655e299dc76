"""Edits change what they name and nothing else, however long and however written the file is."""

from __future__ import annotations

import time
import tomllib

import pytest

from watermark.errors import KeysConfigError
from watermark.keys import KEYS_HEADER, format_record
from watermark.keys.editing import remove_records, set_fields

NAMES = ("a", "ab", 'quo"te', "é", "it's")


def text_of(*key_ids: str) -> str:
    tables = [
        f"# about {number}\n" + format_record(key_id=one, unit="words/v1", secret=f"{number}.key")
        for number, one in enumerate(key_ids)
    ]
    return f"{KEYS_HEADER}# top\n\n" + "\n".join(tables)


@pytest.mark.parametrize("key_id", NAMES)
def test_one_record_changes(key_id: str) -> None:
    text = text_of(*NAMES)
    edited = set_fields(text, key_id, {"state": "detect", "rho": None})
    gone = remove_records(text, key_id)
    before, after = tomllib.loads(text)["key"], tomllib.loads(edited)["key"]
    for old, new in zip(before, after, strict=True):
        if old["id"] == key_id:
            del old["rho"]
            old["state"] = "detect"
        assert new == old
    assert [one["id"] for one in tomllib.loads(gone)["key"]] == [n for n in NAMES if n != key_id]
    assert edited.count("# ") == text.count("# ")


WRITTEN = [
    '[[key]]\nid = "\\u0061"\nunit = "u"\n',
    "[[key]]\nid = '''a'''\nunit = \"u\"\n",
    '  [[ key ]]\nunit = "u"\nid = "a"  # here\n',
    '[[key]]\nunit = "u"\nid = "a"\n[log]\nverifier = "v"\n',
    '[[key]]\nunit = """\n[[key]]\nid = "a"\n"""\nid = "b"\n[[key]]\nid = "a"\nunit = "u"\n',
]


@pytest.mark.parametrize("table", WRITTEN)
def test_however_it_is_written(table: str) -> None:
    text = f"schema = 1\n{table}"
    edited = tomllib.loads(set_fields(text, "a", {"state": "detect"}))
    for one in tomllib.loads(text)["key"]:
        assert ({**one, "state": "detect"} if one["id"] == "a" else one) in edited["key"]


@pytest.mark.parametrize("text", ["", "schema = 1\n", '[[key]]\nid = "b"\n', '[[key\nid = "a"\n'])
def test_a_key_that_is_not_there(text: str) -> None:
    with pytest.raises(KeysConfigError, match="the file has no key 'a'"):
        set_fields(text, "a", {"state": "detect"})


def test_a_long_file_is_edited_at_once() -> None:
    text = text_of(*(f"k{number}" for number in range(3000)))
    started = time.process_time()
    edited = set_fields(text, "k1", {"state": "detect"})
    assert time.process_time() - started < 0.5  # as a whole it takes seconds
    assert edited.count('state = "detect"') == 1
