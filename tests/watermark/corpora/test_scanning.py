"""One result, whoever does the work and however often it stops; and the result is right."""

from __future__ import annotations

import errno
import gzip
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq
import pytest

import watermark
from tests.watermark.corpora.conftest import broken_lines, key, plain
from watermark import Detector, WordsUnit
from watermark.corpora import Progress, scan, shards
from watermark.corpora.journal import Journal
from watermark.corpora.results import shown
from watermark.errors import CorpusError, ScanJournalError, UnitMismatchError
from watermark.stats import gamma_log_sf
from watermark.text.canonical import canonical

if TYPE_CHECKING:
    from collections.abc import Callable


ROOT = Path(__file__).parents[3]


def test_the_corpus_and_its_documents_are_tested(
    corpus: Path, tmp_path: Path, marked: str, small_blocks: None
) -> None:
    del small_blocks
    keys = [key(0), key(1, context_width=1), key(2, account_share_q16=9000)]
    seen: list[Progress] = []
    result = scan([corpus], keys, out=tmp_path / "h.parquet", on_progress=seen.append)
    texts = [json.loads(line).get("text") for line in (corpus / "a.jsonl").read_text().splitlines()]
    lines = gzip.decompress((corpus / "b.jsonl.gz").read_bytes()).splitlines()[:-1]
    texts += [json.loads(line)["text"] for line in lines]
    texts = [text for text in texts if text]
    assert (result.n_files, result.n_broken, result.n_hits) == (3, 2, 2)
    assert result.n_records == result.n_documents + 2
    # c.txt is cut at shards, so its documents are the detector's only up to that.
    pieces = _pieces(corpus / "c.txt")
    assert result.n_documents == len(texts) + len(pieces)
    for record, pooled in zip(keys, result.pooled, strict=True):
        expected = Detector(record, WordsUnit()).detect_pooled(texts + pieces)
        assert pooled.n_scored == expected.n_scored
        assert pooled.n_tokens == expected.n_tokens
        assert pooled.statistic is not None
        np.testing.assert_allclose(pooled.statistic, expected.statistic, rtol=1e-12)
        np.testing.assert_allclose(pooled.log_pvalue, expected.log_pvalue, rtol=1e-8)
    assert result.pooled[0].log_pvalue_family < -10
    assert min(one.log_pvalue_family for one in result.pooled[1:]) > -3
    first, second = pq.read_table(result.out).to_pylist()
    assert (first["file"], first["record_index"]) == (str(corpus / "a.jsonl"), 17)
    line = (corpus / "a.jsonl").read_bytes()[first["offset"] :].partition(b"\n")[0]
    assert json.loads(line)["text"] == marked
    assert (second["file"], second["record_index"]) == (str(corpus / "b.jsonl.gz"), 60)
    alone = Detector(key(), WordsUnit()).detect(marked)
    assert first["n_scored"] == alone.n_scored
    np.testing.assert_allclose(first["log_pvalue"], alone.log_pvalue, rtol=1e-10)
    assert first["log_pvalue_fdr"] >= first["log_pvalue"]
    summary = json.loads(pq.read_schema(result.out).metadata[b"output-watermark"])
    assert summary["n_broken"] == 2
    assert summary["pooled"][0]["statistic"] == result.pooled[0].statistic
    assert [one.reason for one in result.broken] == [summary["broken"][0]["reason"], "not JSON"]
    assert broken_lines(result) == summary["broken"]
    done = [one.done for one in seen if one.stage == "scan"]
    assert done == sorted(done)
    assert done[-1] == seen[0].total
    assert not list(tmp_path.glob("*.scan"))


def test_disguised_text_is_found_in_its_canonical_form(
    tmp_path: Path, jsonl: Callable[..., Path], marked: str
) -> None:
    disguised = marked.translate(str.maketrans("aeiopcyxs", "аеіорсухѕ"))
    texts = [plain(0), disguised, plain(1)]
    path = jsonl("a.jsonl", [{"text": text} for text in texts])
    raw = scan([path], [key()], out=tmp_path / "raw.parquet")
    assert raw.n_hits == 0
    keys = [key(), key(1)]
    result = scan([path], keys, out=tmp_path / "both.parquet", is_canonical=True)
    assert [(one.key_id, one.form) for one in result.pooled] == [
        (record.key_id, form) for record in keys for form in ("raw", "canonical")
    ]
    (hit,) = pq.read_table(result.out).to_pylist()
    assert (hit["record_index"], hit["key_id"], hit["form"]) == (1, key().key_id, "canonical")
    alone = Detector(key(), WordsUnit()).detect(canonical(disguised))
    assert hit["n_scored"] == alone.n_scored
    np.testing.assert_allclose(hit["log_pvalue"], alone.log_pvalue, rtol=1e-10)
    # 12 tests of documents and 4 of the corpus: both forms are counted.
    np.testing.assert_allclose(hit["log_pvalue_fdr"], alone.log_pvalue + np.log(12), rtol=1e-10)
    pooled = Detector(key(), WordsUnit()).detect_pooled(list(map(canonical, texts)))
    np.testing.assert_allclose(
        result.pooled[1].log_pvalue_family, pooled.log_pvalue + np.log(4), rtol=1e-8
    )


def test_no_sum_over_few_positions_is_shown_or_kept(
    tmp_path: Path, jsonl: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Documents of 1, 15, 16 and 17 scores: two of them may be tested."""
    lengths = (3, 17, 18, 19)
    path = jsonl("a.jsonl", [{"text": plain(50 + n, n)} for n in lengths])
    seen: list[int] = []
    keep = Journal.keep

    def look(self: Journal, shard: int, number: int, header: object, arrays: object) -> None:
        seen.extend(arrays[0][:, 5].tolist())  # type: ignore[index]
        keep(self, shard, number, header, arrays)  # type: ignore[arg-type]

    monkeypatch.setattr(Journal, "keep", look)
    result = scan([path], [key()], out=tmp_path / "h.parquet", fdr=1 - 1e-9)
    assert result.pooled[0].n_tested == 2
    assert result.pooled[0].n_scored > 40
    assert sorted(seen) == [16, 17]
    # The neighbors that are not tested are not in the sums of those that are.
    for row in pq.read_table(result.out).to_pylist():
        n = lengths[row["record_index"]]
        alone = Detector(key(), WordsUnit()).detect(plain(50 + n, n))
        np.testing.assert_allclose(row["statistic"], alone.statistic, rtol=1e-12)


@pytest.mark.parametrize("n_scored", [0, 1, 15, 16])
def test_a_pool_of_few_pairs_is_coarse_and_valid(
    tmp_path: Path, jsonl: Callable[..., Path], n_scored: int
) -> None:
    text = plain(3, n_scored + 2)
    path = jsonl("a.jsonl", [{"text": text}])
    (pooled,) = scan([path], [key()], out=tmp_path / "h.parquet").pooled
    assert pooled.n_scored == n_scored
    exact = Detector(key(), WordsUnit()).detect(text).log_pvalue if n_scored else 0.0
    if n_scored < 16:
        assert (pooled.statistic, pooled.effect) == (None, 0.0)
        assert any(np.isclose(np.exp(pooled.log_pvalue), one) for one in (1, 1e-2, 1e-4))
    else:
        assert pooled.statistic is not None
        assert pooled.log_pvalue == pytest.approx(exact)
    assert pooled.log_pvalue >= exact - 1e-12


@pytest.mark.parametrize("statistic", [0.1, 5.0, 12.0, 20.0, 40.0, 80.0])
def test_a_coarse_p_value_is_the_next_level_above(statistic: float) -> None:
    exact = gamma_log_sf(statistic, 5)
    _, coarse = shown(statistic, 5)
    levels = [0.0, np.log(1e-2), np.log(1e-4)]
    assert coarse == pytest.approx(min(one for one in levels if one >= exact))


def test_a_result_is_worth_reading(tmp_path: Path, jsonl: Callable[..., Path], marked: str) -> None:
    path = jsonl("a.jsonl", [{"text": marked}, *[{"body": 1}] * 150])
    out = tmp_path / "<b>.parquet"
    result = watermark.scan([path], [key(i) for i in range(12)], out=out)
    first, *lines, last = repr(result).splitlines()
    assert first.startswith("<ScanResult 1 hits at fdr 0.01 among 1 documents of 1 files, 150 bro")
    assert lines[0].startswith("  <PooledResult key='k0' raw p=10^-")
    assert (len(lines), last) == (10, "  ... and 2 more>")
    assert "no field" not in repr(result)
    shown_html = result._repr_html_()
    assert shown_html.count("<tr>") == 11
    assert "&lt;b&gt;.parquet" in shown_html
    assert "2 more keys and forms" in shown_html
    assert result.pooled[0]._repr_html_().count("<tr>") == 2


@pytest.mark.parametrize("processes", [1, 2])
def test_every_broken_record_is_named(
    tmp_path: Path, jsonl: Callable[..., Path], processes: int
) -> None:
    """More than a result holds, in one block and in many."""
    path = jsonl("a.jsonl", [{"text": plain(0)}, *[{"body": i} for i in range(999)]])
    result = scan([path], [key()], out=tmp_path / "h.parquet", processes=processes)
    lines = broken_lines(result)
    offsets = np.cumsum([len(line) for line in path.read_bytes().splitlines(keepends=True)])
    assert [line["offset"] for line in lines] == offsets[:-1].tolist()
    assert lines[:100] == [asdict(one) for one in result.broken]
    assert {(line["file"], line["n_records"]) for line in lines} == {(str(path), 1)}
    assert len(lines) == result.n_broken == 999
    assert str(result.broken_file) in repr(result)
    assert not list(tmp_path.glob("*.part"))


def test_no_file_names_broken_records_where_there_are_none(
    tmp_path: Path, jsonl: Callable[..., Path]
) -> None:
    out = tmp_path / "h.parquet"
    result = scan([jsonl("a.jsonl", [{"text": plain(0)}])], [key()], out=out)
    assert result.broken_file is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "h.parquet"]


def test_broken_records_are_written_before_the_hits_or_not_at_all(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "h.parquet"
    side = tmp_path / "h.parquet.broken.jsonl"

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("watermark.corpora.broken.os.fsync", fail)
        patch.setattr(Journal, "_write", lambda _, path, data: path.write_bytes(data))
        with pytest.raises(CorpusError, match="no space left on device; make room, and run"):
            scan([corpus], [key()], out=out)
    assert not out.exists()
    assert not side.exists()
    side.write_bytes(b"evidence")
    with pytest.raises(CorpusError, match=r"broken\.jsonl exists.*or move it away"):
        scan([corpus], [key()], out=out)
    assert side.read_bytes() == b"evidence"
    side.unlink()
    assert len(broken_lines(scan([corpus], [key()], out=out))) == 2


def _pieces(path: Path) -> list[str]:
    data, pieces, start = path.read_bytes(), [], 0
    while start < len(data):
        stop = (start // shards.SHARD_BYTES + 1) * shards.SHARD_BYTES
        end = len(data) if stop >= len(data) else data.find(b"\n", stop - 1) + 1 or len(data)
        pieces.append(data[start:end].decode())
        start = end
    return pieces


def test_processes_change_nothing(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "SHARD_BYTES", 9000)
    keys = [key(0), key(1, context_width=3)]
    one = scan([corpus], keys, out=tmp_path / "1.parquet", fdr=0.5)
    two = scan([corpus], keys, out=tmp_path / "2.parquet", fdr=0.5, processes=2)
    assert one.pooled == two.pooled
    assert one.out.read_bytes() == two.out.read_bytes()


def test_arguments_that_cannot_be_used_are_refused(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "h.parquet"
    with pytest.raises(CorpusError, match="no key to scan for"):
        scan([corpus], [], out=out)
    with pytest.raises(CorpusError, match="leads to no file"):
        scan([tmp_path / "none"], [key()], out=out)
    with pytest.raises(UnitMismatchError, match="needs --tokenizer"):
        scan([corpus], [key(unit=f"tokenizer:sha256:{'0' * 64}")], out=out)
    with pytest.raises(CorpusError, match="choose 1 or more"):
        scan([corpus], [key()], out=out, processes=0)
    for fdr in (0.0, 1.0, float("nan")):
        with pytest.raises(CorpusError, match="not between 0 and 1"):
            scan([corpus], [key()], out=out, fdr=fdr)
    with pytest.raises(ScanJournalError, match="no such file or directory"):
        scan([corpus], [key()], out=tmp_path / "none" / "h.parquet")
    out.write_bytes(b"evidence")
    with pytest.raises(CorpusError, match="never overwritten"):
        scan([corpus], [key()], out=out)
    assert out.read_bytes() == b"evidence"


def test_what_a_prompt_shows_is_scored_nowhere_in_the_pool(
    tmp_path: Path, jsonl: Callable[..., Path], marked: str
) -> None:
    """The negative control: with the prompts ignored the copied mark is found."""
    records = [{"text": f"{plain(i, 40)} {marked}", "q": marked} for i in range(3)]
    records += [{"text": marked[: len(marked) // 2], "q": plain(50)}, {"text": plain(8), "q": "a"}]
    path = jsonl("a.jsonl", records)
    with_prompts = scan([path], [key()], out=tmp_path / "1.parquet", prompt_field="q")
    without = scan([path], [key()], out=tmp_path / "2.parquet")
    assert without.pooled[0].log_pvalue < -20
    assert with_prompts.pooled[0].log_pvalue > -5
    # ... while a document whose own prompt does not show it is found by itself.
    assert [row["record_index"] for row in pq.read_table(with_prompts.out).to_pylist()] == [3]


@pytest.mark.slow
def test_killed_in_the_middle_the_command_goes_on(tmp_path: Path) -> None:
    folder = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
    run = [sys.executable, "-m", "watermark"]
    made = subprocess.run(
        [*run, "keys", "new", "--id", "k", "--dir", tmp_path],
        cwd=ROOT, capture_output=True, check=True, env=environment,
    )  # fmt: skip
    tmp_path.chmod(0o700)
    (tmp_path / "KEYS.toml").write_bytes(b"schema = 1\n" + made.stdout)
    with (tmp_path / "a.jsonl").open("w") as file:
        for i in range(40_000):
            file.write(json.dumps({"text": plain(i % 5000, 100 + i % 60)}) + "\n")
    command: list[str | Path] = [
        *run,
        "scan",
        tmp_path / "a.jsonl",
        "--keys",
        tmp_path / "KEYS.toml",
        "--fdr",
        ".5",
    ]
    command += ["--processes", "2", "--out"]
    subprocess.run([*command, tmp_path / "whole.parquet"], cwd=ROOT, check=True, timeout=300)
    out = tmp_path / "h.parquet"
    kept: list[int] = []
    for n_blocks in (1, 3):
        process = subprocess.Popen([*command, out], cwd=ROOT)
        while len(list((tmp_path / "h.parquet.scan").glob("*.block"))) < n_blocks:
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait(60)
        kept.append(len(list((tmp_path / "h.parquet.scan").glob("*.block"))))
    assert kept[0] < kept[1]
    subprocess.run([*command, out], cwd=ROOT, check=True, timeout=300)
    assert out.read_bytes() == (tmp_path / "whole.parquet").read_bytes()


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # the store's and its client's own
def test_an_object_store_is_read(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    del host
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    store = pytest.importorskip("fsspec").filesystem("s3")
    try:
        store.mkdir("bucket")
        for path in corpus.iterdir():
            store.put_file(str(path), f"bucket/train/{path.name}")
        here = scan([corpus], [key()], out=tmp_path / "1.parquet", fdr=0.5)
        there = scan(
            ["s3://bucket/train"], [key()], out=tmp_path / "2.parquet", fdr=0.5, processes=2
        )
        assert there.pooled == here.pooled
        assert (there.n_broken, there.n_hits) == (here.n_broken, here.n_hits)
        with pytest.raises(CorpusError, match="from the store"):
            scan(["s3://none/train"], [key()], out=tmp_path / "3.parquet")
    finally:
        server.stop()


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # ray's own
def test_a_cluster_changes_nothing(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "SHARD_BYTES", 9000)
    pytest.importorskip("ray")
    keys = [key(0), key(1, context_width=3)]
    one = scan([corpus], keys, out=tmp_path / "1.parquet", fdr=0.5)
    two = scan(
        [corpus], keys, out=tmp_path / "2.parquet", fdr=0.5, processes=2, ray_address="local"
    )
    assert one.pooled == two.pooled
    assert one.out.read_bytes() == two.out.read_bytes()
