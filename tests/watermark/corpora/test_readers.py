"""Records from files: every one once, however a file is shared out; broken ones are said."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from watermark.corpora import blocks, readers
from watermark.corpora.blocks import Cutter, cut_shard
from watermark.corpora.fields import Document, FieldChoice
from watermark.corpora.readers import Record, Skipped, read_span
from watermark.corpora.shards import Span, plan_shards
from watermark.corpora.sources import Compression, Format, _describe, find_sources
from watermark.errors import CorpusError

if TYPE_CHECKING:
    from collections.abc import Callable

CHOICE = FieldChoice()


def spans_of(path: Path, step: int) -> list[Span]:
    (source,) = find_sources([str(path)])
    starts = range(0, max(source.size, 1), step)
    return [Span(0, source, i, min(i + step, source.size), step) for i in starts]


def read(path: Path, step: int = 1 << 40, choice: FieldChoice = CHOICE) -> list[Record]:
    return [one for span in spans_of(path, step) for one in read_span(span, choice)]


def contents(records: list[Record]) -> list[tuple[int, Any]]:
    return [
        (one.offset, one.content.replies if isinstance(one.content, Document) else "broken")
        for one in records
    ]


@given(
    st.lists(st.sampled_from(['{"text": "a b"}', '{"text": "\u00e9\u2028"}', "", "{", "  "])),
    st.integers(1, 60),
    st.booleans(),
)
def test_lines_are_read_once_however_they_are_shared_out(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], step: int, ends: bool
) -> None:
    path = tmp_path_factory.mktemp("x") / "a.jsonl"
    path.write_bytes("\n".join(lines).encode() + b"\n" * ends)
    whole = contents(read(path))
    assert contents(read(path, step)) == whole
    assert len(whole) == sum(bool(line.strip()) for line in lines)
    data = path.read_bytes()
    for offset, texts in whole:
        line = data[offset:].partition(b"\n")[0]
        assert texts == ("broken" if line == b"{" else (json.loads(line)["text"],))


@given(st.text("ab\n \u00e9\U0001f600", max_size=200), st.integers(1, 50), st.integers(5, 40))
def test_text_is_read_once_however_it_is_shared_out(
    tmp_path_factory: pytest.TempPathFactory, text: str, step: int, piece: int
) -> None:
    path = tmp_path_factory.mktemp("x") / "a.txt"
    path.write_bytes(text.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(readers, "PIECE_BYTES", piece)
        found = contents(read(path, step))
        assert "broken" not in [texts for _, texts in found]
        assert "".join(texts[0] for _, texts in found) == text
        for offset, (part,) in found:
            assert path.read_bytes()[offset:].startswith(part.encode())


def test_lines_of_text_that_are_not_utf_8_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"one two\ncaf\xe9 noir\nthree four\n")
    good, bad = read(path)
    assert good.content == Document(("one two\n", "three four\n"))
    assert isinstance(bad.content, Skipped)
    assert (bad.offset, bad.content.reason) == (11, "a line is not UTF-8")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"text": ', "not JSON"),
        (b'{"text": "\xff"}', "not UTF-8 at byte 0 of a string"),
        (b'{"text": "\\ud800"}', "not JSON"),
        (b"[1]", "not a JSON object"),
        (b'{"body": "a"}', "no field text, content, completion"),
        (b'{"messages": [{"role": "user", "content": "a"}]}', "the field holds no text"),
        (b"[" * 100_000, "not JSON"),
    ],
)
def test_broken_lines_are_said_and_the_others_read(
    tmp_path: Path, line: bytes, reason: str
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "a"}\n' + line + b'\n{"text": "b"}\n')
    first, broken, last = read(path)
    assert (first.content, last.content) == (Document(("a",)), Document(("b",)))
    assert isinstance(broken.content, Skipped)
    assert broken.content.reason.startswith(reason)
    assert [one.index for one in (first, broken, last)] == [0, 1, 2]
    assert broken.offset == 14


@pytest.mark.parametrize("role", [["a"], {"a": 1}, 7, True])
def test_a_role_may_be_any_json_and_is_not_the_models(tmp_path: Path, role: object) -> None:
    odd = {"messages": [{"role": role, "content": "a"}]}
    lines = [json.dumps(odd if i == 3 else {"text": f"t{i}"}) + "\n" for i in range(20)]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(lines))
    found = read(path)
    assert len(found) == 20
    assert [isinstance(one.content, Skipped) for one in found] == [i == 3 for i in range(20)]
    assert isinstance(found[3].content, Skipped)
    assert (found[3].offset, found[3].content.offset) == (len("".join(lines[:3])),) * 2
    odd["messages"].append({"role": "assistant", "content": "b"})
    assert CHOICE.document(odd) == Document(("b",), ("a",))


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_any_error_of_a_record_costs_that_record(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"a.{suffix}"
    rows = [{"text": f"t{i}"} for i in range(20)]
    if suffix == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    document = FieldChoice.document

    def fail(self: FieldChoice, record: object) -> Document | str:
        if record == {"text": "t5"}:
            raise KeyError(record)
        return document(self, record)

    monkeypatch.setattr(FieldChoice, "document", fail)
    (shard,) = plan_shards(find_sources([str(path)]))
    found = list(read_span(shard.spans[0], CHOICE))
    assert [isinstance(one.content, Skipped) for one in found] == [i == 5 for i in range(20)]
    assert isinstance(found[5].content, Skipped)
    assert found[5].content.reason == "cannot be read (KeyError)"
    assert found[5].content.offset == (5 if suffix == "parquet" else 5 * len('{"text": "t0"}\n'))


def test_a_row_that_is_not_utf_8_is_lost_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    values = pa.array([b"a", b"\xff", b"c"], pa.binary()).cast(pa.string(), safe=False)
    pq.write_table(pa.table({"text": values.view(pa.string())}), path)
    (shard,) = plan_shards(find_sources([str(path)]))
    first, broken, last = read_span(shard.spans[0], CHOICE)
    assert (first.content, last.content) == (Document(("a",)), Document(("c",)))
    assert isinstance(broken.content, Skipped)
    assert broken.content.offset == 1
    assert broken.content.reason.startswith("not UTF-8")


def test_a_line_without_end_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "MAX_LINE_BYTES", 100)
    monkeypatch.setattr(readers, "PIECE_BYTES", 64)
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "' + b"x" * 5000 + b'"}\n{"text": "b"}\n')
    for step in (1 << 30, 70):
        broken, last = read(path, step)
        assert isinstance(broken.content, Skipped)
        assert "longer than 100 bytes" in broken.content.reason
        assert last.content == Document(("b",))


def frames(data: bytes) -> bytes:
    half = len(data) // 2
    return b"".join(zstandard.compress(part) for part in (data[:half], data[half:]))


@pytest.mark.parametrize(
    ("suffix", "compress"), [("gz", gzip.compress), ("zst", zstandard.compress), ("zst", frames)]
)
def test_compressed_files_are_read_and_their_damage_said(
    tmp_path: Path, suffix: str, compress: Callable[[bytes], bytes]
) -> None:
    lines = [json.dumps({"text": f"{i * 7919} {i}"}) for i in range(20_000)]
    data = compress("".join(line + "\n" for line in lines).encode())
    path = tmp_path / f"a.jsonl.{suffix}"
    path.write_bytes(data)
    found = read(path)
    assert len(found) == 20_000
    assert found[-1].content == Document((f"{19_999 * 7919} 19999",))
    assert found[-1].stored_bytes == len(data)
    path.write_bytes(data[:-1000])
    *cut, last = read(path)
    assert len(cut) > 1000
    assert all(isinstance(one.content, Document) for one in cut)
    assert isinstance(last.content, Skipped)
    assert "ends too early" in last.content.reason
    path.write_bytes(b"no such thing" * 10)
    (only,) = read(path)
    assert isinstance(only.content, Skipped)
    assert "damaged" in only.content.reason


def test_tables_are_read_by_row_group(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    rows = [{"text": f"t{i}", "n": i} for i in range(250)]
    rows[7]["text"] = None
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=100)
    shards = plan_shards(find_sources([str(path)]))
    spans = [span for shard in shards for span in shard.spans]
    assert [(span.group, span.start, span.stop) for span in spans] == [
        (0, 0, 100), (1, 100, 200), (2, 200, 250),
    ]  # fmt: skip
    found = [one for span in spans for one in read_span(span, CHOICE)]
    assert [one.offset for one in found] == list(range(250))
    assert found[249].content == Document(("t249",))
    assert isinstance(found[7].content, Skipped)
    path.write_bytes(b"PAR1 and nothing else")
    (shard,) = plan_shards(find_sources([str(path)]))
    (only,) = read_span(shard.spans[0], CHOICE)
    assert isinstance(only.content, Skipped)
    assert "cannot be read any further" in only.content.reason


def test_a_damaged_row_group_is_named_by_its_first_row(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    rows = [{"text": f"text number {i * 7919}"} for i in range(200)]
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=50)
    column = pq.read_metadata(path).row_group(2).column(0)
    data = bytearray(path.read_bytes())
    start = column.dictionary_page_offset or column.data_page_offset
    data[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    path.write_bytes(data)
    shards = plan_shards(find_sources([str(path)]))
    found = [one for shard in shards for span in shard.spans for one in read_span(span, CHOICE)]
    assert [one.offset for one in found] == [*range(101), *range(150, 200)]
    lost = found[100].content
    assert isinstance(lost, Skipped)
    assert (lost.offset, lost.n_records) == (100, 50)
    assert lost.reason.startswith("50 rows from here cannot be read any further")
    (block,) = cut_shard(shards[0], Cutter(CHOICE, (), {}), {})
    assert (block.records, block.n_skipped, len(block.documents)) == ((50, 50, 50, 50), 50, 150)


@pytest.mark.parametrize(
    ("line", "n_broken"), [("{bad\n", 1000), ('{"text": ""}\n', 1000), ('{"text": "a"}\n', 0)]
)
def test_a_block_of_broken_or_tiny_records_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, n_broken: int
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(line * 1000)
    monkeypatch.setattr(blocks, "BLOCK_CHARACTERS", 100 * blocks.RECORD_CHARACTERS)
    (shard,) = plan_shards(find_sources([str(path)]))
    found = list(cut_shard(shard, Cutter(CHOICE, (), {}), {}))
    assert len(found) >= 10
    assert max(len(one.documents) + len(one.skipped) for one in found) <= 100
    assert sum(len(one.documents) + len(one.skipped) for one in found) == 1000
    assert sum(one.n_skipped for one in found) == n_broken


def test_a_file_that_fails_midway_is_named_where_it_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a"}\n' * 5)
    line = readers._Lines.line

    def fail(self: readers._Lines) -> bytes | None:
        if self.offset >= 28:
            raise OSError
        return line(self)

    monkeypatch.setattr(readers._Lines, "line", fail)
    *_, last = found = read(path)
    assert [one.index for one in found] == [0, 1, 2]
    assert isinstance(last.content, Skipped)
    assert (last.offset, last.content.offset) == (28, 28)


@pytest.mark.parametrize(
    ("record", "choice", "expected"),
    [
        ("a b", FieldChoice(), Document(("a b",))),
        ({"content": "a", "answer": "b"}, FieldChoice(), Document(("a",))),
        ({"a": {"b": "x"}}, FieldChoice("a.b"), Document(("x",))),
        ({"a.b": "x"}, FieldChoice("a.b"), Document(("x",))),
        ({"text": ["a", "b"]}, FieldChoice(), Document(("a", "b"))),
        (
            {"messages": [
                {"role": "system", "content": "s"},
                {"role": "user", "content": [{"type": "text", "text": "u"}, {"type": "image"}]},
                {"role": "assistant", "content": "a"},
            ]},
            FieldChoice(),
            Document(("a",), ("s", "u")),
        ),
        (
            {"conversations": [{"from": "human", "value": "h"}, {"from": "gpt", "value": "g"}]},
            FieldChoice(),
            Document(("g",), ("h",)),
        ),
        (
            {
                "text": "a",
                "q": [
                    {"role": "assistant", "content": "x"},
                    {"role": "user", "content": "y"},
                ],
            },
            FieldChoice("text", "q"),
            Document(("a",), ("x", "y")),
        ),
        ({"text": "a"}, FieldChoice(None, "q"), "no prompt field q"),
        ({"text": ""}, FieldChoice("text"), "the field holds no text"),
        ({"t": 1}, FieldChoice("text"), "no field text"),
    ],
)  # fmt: skip
def test_texts_and_prompts_of_a_record(
    record: object, choice: FieldChoice, expected: Document | str
) -> None:
    assert choice.document(record) == expected


def test_files_are_found_in_order_and_once(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.txt", "c.bin", ".hidden.txt", "sub/d.jsonl.gz", "sub/.h/e.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text("x")
    names = [Path(one.name).name for one in find_sources([str(tmp_path)])]
    assert names == ["a.txt", "b.jsonl", "d.jsonl.gz"]
    both = find_sources([str(tmp_path / "b.*"), str(tmp_path), str(tmp_path / "c.bin")])
    assert [Path(one.name).name for one in both] == ["b.jsonl", "a.txt", "d.jsonl.gz", "c.bin"]
    for path in ("none", "*.none", str(tmp_path / "sub" / ".h" / "none")):
        with pytest.raises(CorpusError, match="leads to no file"):
            find_sources([path])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("https://h/x.jsonl.gz?X-Sig=1", (Format.JSONL, Compression.GZIP)),
        ("http://h/a%2Ejsonl?name=b.parquet#c.txt", (Format.JSONL, Compression.NONE)),
        ("https://h/x.parquet#part", (Format.PARQUET, Compression.NONE)),
        ("https://h/x?file=a.jsonl.gz", (Format.TEXT, Compression.NONE)),
        ("s3://bucket/what?.jsonl.zst", (Format.JSONL, Compression.ZSTANDARD)),
        ("s3://bucket/a#1?b.parquet", (Format.PARQUET, Compression.NONE)),
        ("zip://in/x.jsonl::https://h/y.zip?X-Sig=1", (Format.JSONL, Compression.NONE)),
        ("what?.jsonl.gz", (Format.JSONL, Compression.GZIP)),
    ],
)
def test_what_a_file_holds_follows_from_its_path(
    name: str, expected: tuple[Format, Compression]
) -> None:
    source = _describe(name, 1, "")
    assert (source.name, source.format, source.compression) == (name, *expected)


def test_urls_are_read_through_fsspec() -> None:
    fsspec = pytest.importorskip("fsspec")
    store = fsspec.filesystem("memory")
    store.pipe("/bucket/a.jsonl", b'{"text": "one"}\n' * 3)
    store.pipe("/bucket/b.bin", b"x")
    (found,) = find_sources(["memory://bucket"])
    assert (found.name, found.size) == ("memory:///bucket/a.jsonl", 48)
    (shard,) = plan_shards([found])
    assert len(list(read_span(shard.spans[0], CHOICE))) == 3
    with pytest.raises(CorpusError, match=r"need the package|from the store"):
        find_sources(["nosuch://bucket/a.jsonl"])
