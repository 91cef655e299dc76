"""A scan that was cut short goes on where it stopped, and with nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.watermark.corpora.conftest import broken_lines, key, plain
from watermark.corpora import Progress, pooling, scan
from watermark.corpora import journal as journal_module
from watermark.corpora.journal import Journal
from watermark.corpora.packing import pack, unpack
from watermark.corpora.pooling import Spill
from watermark.errors import ScanJournalError

if TYPE_CHECKING:
    from collections.abc import Callable


class Killed(Exception):  # noqa: N818 - as it is
    pass


@pytest.mark.parametrize("after", [0, 1, 4, 9])
def test_a_scan_goes_on_where_it_stopped(
    corpus: Path, tmp_path: Path, after: int, small_blocks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    del small_blocks
    whole = scan([corpus], [key()], out=tmp_path / "whole.parquet", fdr=0.5)
    cut_again: list[object] = []
    keep = Journal.keep

    def count_or_die(self: Journal, shard: int, number: int, *rest: object) -> None:
        if len(cut_again) == after:
            raise Killed
        cut_again.append((shard, number))
        keep(self, shard, number, *rest)  # type: ignore[arg-type]

    out = tmp_path / "h.parquet"
    with monkeypatch.context() as patch:
        patch.setattr(journal_module.Journal, "keep", count_or_die)
        with pytest.raises(Killed):
            scan([corpus], [key()], out=out, fdr=0.5)
    assert not out.exists()
    done = list(cut_again)
    (out.with_name("h.parquet.scan") / "00000009-00000000.block.part").write_bytes(b"half")
    with monkeypatch.context() as patch:
        patch.setattr(journal_module.Journal, "keep", count_or_die)
        after = -1
        again = scan([corpus], [key()], out=out, fdr=0.5)
    assert not set(done) & set(cut_again[len(done) :])
    assert again.pooled == whole.pooled
    assert again.broken == whole.broken
    assert broken_lines(again) == broken_lines(whole)
    assert out.read_bytes() == whole.out.read_bytes()


def _watch_parts(patch: pytest.MonkeyPatch) -> list[tuple[int, tuple[int, int]]]:
    """Make the pool of many parts, and return where those that are read will be noted."""
    read: list[tuple[int, tuple[int, int]]] = []
    distinct_rows = Spill.distinct_rows

    def note(self: Spill, part: tuple[int, int]) -> object:
        read.append((self.position, part))
        return distinct_rows(self, part)

    patch.setattr(pooling, "PART_PAIRS", 700)
    patch.setattr(Spill, "distinct_rows", note)
    return read


def _die_in_pool(after: int) -> Callable[[Progress], None]:
    seen: list[Progress] = []

    def die(progress: Progress) -> None:
        seen.extend([progress] * (progress.stage == "pool"))
        if len(seen) == after:
            raise Killed

    return die


def _kept_parts(out: Path) -> set[tuple[int, tuple[int, int]]]:
    names = [path.stem.split("-") for path in Path(f"{out}.scan").glob("*.sums")]
    return {(int(layer), (int(start), int(stop))) for layer, start, stop in names}


@pytest.mark.parametrize("after", [1, 3, 9])
def test_a_pool_goes_on_at_the_next_part(
    corpus: Path, tmp_path: Path, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [key(0), key(1), key(2, context_width=1, account_share_q16=9000)]
    read = _watch_parts(monkeypatch)
    whole = scan([corpus], keys, out=tmp_path / "whole.parquet", fdr=0.5)
    parts, out = sorted(read), tmp_path / "h.parquet"
    assert len(parts) == len(set(parts)) > 9
    read.clear()
    with pytest.raises(Killed):
        scan([corpus], keys, out=out, fdr=0.5, on_progress=_die_in_pool(after))
    kept = _kept_parts(out)
    assert after <= len(kept) <= len(read)
    assert {path.stat().st_mode & 0o777 for path in Path(f"{out}.scan").glob("*.sums")} == {0o600}
    read.clear()
    seen: list[Progress] = []
    again = scan([corpus], keys, out=out, fdr=0.5, on_progress=seen.append)
    assert sorted(read) == sorted(set(parts) - kept)
    assert (seen[-1].stage, seen[-1].done) == ("pool", seen[-1].total)
    assert again.pooled == whole.pooled
    assert out.read_bytes() == whole.out.read_bytes()


def test_kept_sums_are_what_the_result_is_made_of(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control: sums that are changed on disk change the result; half ones are said."""
    _watch_parts(monkeypatch)
    whole = scan([corpus], [key()], out=tmp_path / "whole.parquet")
    out = tmp_path / "h.parquet"
    with pytest.raises(Killed):
        scan([corpus], [key()], out=out, on_progress=_die_in_pool(2))
    path = min(Path(f"{out}.scan").glob("*.sums"))
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    with pytest.raises(ScanJournalError, match="remove it, and scan again"):
        scan([corpus], [key()], out=out)
    header, _ = unpack(data)
    header["sums"][0][1] += 1.0
    path.write_bytes(pack(header, []))
    changed = scan([corpus], [key()], out=out).pooled[0].statistic
    assert changed == pytest.approx(whole.pooled[0].statistic + 1.0)  # type: ignore[operator]


@pytest.mark.parametrize("n_scored", [0, 15, 16])
def test_no_sum_of_a_part_over_few_pairs_is_kept(
    tmp_path: Path, jsonl: Callable[..., Path], n_scored: int
) -> None:
    """One test that is short is enough: the account channel takes nearly all from the second."""
    path = jsonl("a.jsonl", [{"text": plain(3, n_scored + 2)}])
    keys = [key(0), key(1, account_share_q16=60_000)]
    for n_keys, is_kept in ((1, n_scored >= 16), (2, False)):
        out = tmp_path / f"{n_keys}.parquet"
        with pytest.raises(Killed):
            scan([path], keys[:n_keys], out=out, on_progress=_die_in_pool(1))
        assert bool(_kept_parts(out)) == is_kept


def _half(corpus: Path, out: Path, monkeypatch: pytest.MonkeyPatch, **options: object) -> None:
    def die(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("watermark.corpora.scanning._finish", die)
        with pytest.raises(Killed):
            scan([corpus], [key()], out=out, **options)  # type: ignore[arg-type]


def test_a_journal_of_another_scan_is_refused(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "h.parquet"
    _half(corpus, out, monkeypatch)
    with pytest.raises(ScanJournalError, match="with another fdr"):
        scan([corpus], [key()], out=out, fdr=0.2)
    with pytest.raises(ScanJournalError, match="with another field"):
        scan([corpus], [key()], out=out, field="text")
    with pytest.raises(ScanJournalError, match="with another keys"):
        scan([corpus], [key(1)], out=out)
    with (corpus / "a.jsonl").open("a") as file:
        file.write('{"text": "more"}\n')
    with pytest.raises(ScanJournalError, match=r"a\.jsonl is new or changed"):
        scan([corpus], [key()], out=out)


def test_a_damaged_or_busy_journal_is_refused(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "h.parquet"
    _half(corpus, out, monkeypatch)
    folder = tmp_path / "h.parquet.scan"
    assert folder.stat().st_mode & 0o777 == 0o700
    block = min(folder.glob("*.block"))
    assert block.stat().st_mode & 0o777 == 0o600
    for damage in (block.read_bytes()[:-1], b"x" * 99, block.read_bytes()[:40]):
        block.write_bytes(damage)
        with pytest.raises(ScanJournalError, match="remove it, and scan again"):
            scan([corpus], [key()], out=out)
    block.unlink()
    with Journal(tmp_path / "other", {"a": 1}), pytest.raises(ScanJournalError, match="in use"):
        Journal(tmp_path / "other", {"a": 1})
    assert scan([corpus], [key()], out=out).n_broken == 2


def test_nothing_secret_is_kept_on_disk(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = key()
    _half(corpus, tmp_path / "h.parquet", monkeypatch, fdr=0.5)
    kept = b"".join(path.read_bytes() for path in (tmp_path / "h.parquet.scan").iterdir())
    subkey = record.secret.subkey("context", 16)
    for secret in (record.secret.reveal(), subkey):
        assert secret not in kept
        assert secret.hex().encode() not in kept
