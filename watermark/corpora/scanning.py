"""Hold keys against a corpus: every document, and all of it together.

Cutting text is nearly all of the work and needs no key; it is done by workers. What is keyed is
done here, as their blocks come in: documents at once, distinct pairs when all blocks are there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from watermark.corpora import broken, cluster, hits, results, tables
from watermark.corpora.blocks import Cutter
from watermark.corpora.fields import FieldChoice
from watermark.corpora.journal import SUFFIX, Journal
from watermark.corpora.pooling import PooledSums, Spill, pool_parts
from watermark.corpora.results import PooledResult, Progress, ScanResult
from watermark.corpora.scoring import Scorer
from watermark.corpora.shards import plan_shards
from watermark.corpora.sources import find_sources
from watermark.corpora.workers import Task, cut_here, cut_in_processes
from watermark.errors import CorpusError, TokenizerFileError, UnitMismatchError
from watermark.stats import holm
from watermark.text import WORDS_V1, WordsUnit, tokenizer_unit_id
from watermark.text.canonical import CANONICAL, CANONICAL_VERSION, RAW
from watermark.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from watermark.corpora.blocks import Block
    from watermark.corpora.shards import Shard
    from watermark.corpora.sources import Source
    from watermark.keys import KeyRecord

DEFAULT_FDR: Final = 0.01


@dataclass(frozen=True, slots=True)
class _Plan:
    """A scan, before anything is read."""

    sources: tuple[Source, ...]
    shards: tuple[Shard, ...]
    cutter: Cutter
    fdr: float
    scorers: tuple[Scorer, ...] = field(repr=False)

    def layer_of(self, test: int) -> int:
        """Return the place of a test's layer."""
        return self.cutter.layers.index(self.scorers[test].layer)

    def describe(self) -> dict[str, Any]:
        """Return all that the result depends on."""
        return {
            "version": __version__,
            "numpy": np.__version__,
            "unicode": WordsUnit.unicode_version,
            "fdr": self.fdr,
            "field": self.cutter.choice.field,
            "prompt_field": self.cutter.choice.prompt_field,
            "canonical": CANONICAL_VERSION,
            "keys": [_parameters(one) for one in self.scorers],
            "files": [[one.name, one.fingerprint] for one in self.sources],
        }


def _parameters(scorer: Scorer) -> list[object]:
    """Return what decides the scores of a test; of the secret, what tells it from others."""
    record, layer = scorer.record, scorer.layer
    share = record.account_share_q16
    return [record.key_id, layer.form, layer.unit, layer.width, share, record.secret.fingerprint]


def scan(
    paths: Sequence[str | Path],
    records: Sequence[KeyRecord],
    *,
    out: Path,
    tokenizers: Sequence[Path] = (),
    field: str | None = None,
    prompt_field: str | None = None,
    fdr: float = DEFAULT_FDR,
    is_canonical: bool = False,
    processes: int = 1,
    ray_address: str | None = None,
    on_progress: Callable[[Progress], object] | None = None,
) -> ScanResult:
    """Hold keys against a corpus, and write the documents that are discoveries to a Parquet file.

    Two questions are answered, each with its own correction. *Does the corpus carry a key?* Every
    distinct pair of the whole corpus is scored once (`watermark.corpora.pooling` has the
    argument), with Holm over the keys and forms. *Which documents do?* Every document is tested
    under every key in every form, and those are named of which in expectation a share of at most
    `fdr` is false (`watermark.stats.discoveries`). To test both and quote the better one is a
    choice after looking; say beforehand which question is asked.

    While a key is secret, no sum over fewer than 16 positions is shown or kept: shorter documents
    are not tested one by one, and a pool of fewer pairs shows no statistic and a coarse p-value.

    A scan that was cut short goes on where it stopped when it is called again as before; its
    journal lies beside `out` until the result is written. The result is the same, bit for bit,
    however often it stopped and whoever did the work.

    Args:
        paths: Files, folders, globs, or URLs of these: text, JSONL, Parquet; also .gz, .zst.
        records: The keys. They stay in this process. Those of engines' own schemes are left out,
            and named in the result: `detect_many` reads them.
        out: The file of hits; made, never overwritten. Its form: `watermark/spec/scan.md`. Where
            records are broken, a file beside it names all: `out` with `.broken.jsonl` added.
        tokenizers: The `tokenizer.json` of the keys' units, found by their digests.
        field: Where the text of a record stands, names with dots between; None searches for a
            usual one.
        prompt_field: Where its prompt stands, whose contexts are not scored; None for nowhere.
        fdr: Expected share of false discoveries, in (0, 1); fixed before looking.
        is_canonical: Whether all text is held against the keys a second time, in its canonical
            form; each form is a test of its own, and every correction counts both.
        processes: Processes that cut text; with 1 it is done in this one. On a cluster, its cores.
        ray_address: Address of a Ray cluster that cuts the text; `local` starts one here.
        on_progress: Called whenever something is done.

    Returns:
        What was found; of broken records the number, the first 100, and the file that names all.

    Raises:
        CorpusError: A path leads nowhere, an argument cannot be used, a package is missing.
        ScanJournalError: The journal beside `out` is of another scan, in use or damaged.
        TokenizerFileError: A tokenizer cannot be loaded.
        UnitMismatchError: No tokenizer has the digest that a key asks for.
    """
    left_out = tuple(record.key_id for record in records if not record.is_copula)
    records = [record for record in records if record.is_copula]
    _check(records, left_out, out, fdr, processes)
    tables.need_pyarrow()
    choice = FieldChoice(field, prompt_field)
    forms = (RAW, CANONICAL) if is_canonical else (RAW,)
    scorers = tuple(Scorer(record, form) for record in records for form in forms)
    plan = _plan([str(path) for path in paths], scorers, tokenizers, choice, fdr)
    report = on_progress or (lambda _: None)
    journal = Journal(out.with_name(out.name + SUFFIX), plan.describe())
    with journal:
        tasks = [
            Task(shard, journal.n_blocks(shard.index))
            for shard in plan.shards
            if not journal.is_done(shard.index)
        ]
        if ray_address is not None:
            blocks = cluster.cut_on_cluster(plan.cutter, tasks, ray_address, processes)
        elif processes > 1:
            blocks = cut_in_processes(plan.cutter, tasks, processes)
        else:
            blocks = cut_here(plan.cutter, tasks)
        _score_blocks(plan, journal, blocks, report)
        if not all(journal.is_done(shard.index) for shard in plan.shards):
            raise CorpusError("some shards were not done; run the command again: it goes on there")
        result = _finish(plan, journal, out, report)
        journal.remove()
    return replace(result, left_out=left_out)


def _check(
    records: Sequence[KeyRecord], left_out: Sequence[str], out: Path, fdr: float, processes: int
) -> None:
    """Refuse arguments that cannot be used, before anything is read."""
    if left_out and not records:
        raise CorpusError(
            f"all keys are of schemes that a scan does not read ({', '.join(left_out)}); use "
            "`watermark detect` for them"
        )
    if not records:
        raise CorpusError("there is no key to scan for; name one that has marked")
    for path in (out, broken.beside(out)):
        if path.exists():
            raise CorpusError(
                f"{path} exists, and a result is never overwritten; choose another --out, or move "
                "it away"
            )
    if not 0.0 < fdr < 1.0:
        raise CorpusError(f"the false discovery rate {fdr} is not between 0 and 1; try 0.01")
    if processes < 1:
        raise CorpusError(f"{processes} processes cannot do the work; choose 1 or more")


def _plan(
    paths: Sequence[str],
    scorers: tuple[Scorer, ...],
    tokenizers: Sequence[Path],
    choice: FieldChoice,
    fdr: float,
) -> _Plan:
    sources = find_sources(paths)
    layers = tuple(sorted({scorer.layer for scorer in scorers}))
    records = [scorer.record for scorer in scorers]
    cutter = Cutter(choice, layers, _tokenizers(records, tokenizers))
    cutter.units()  # an unusable tokenizer is said before the work begins
    return _Plan(sources, plan_shards(sources), cutter, fdr, scorers)


def _tokenizers(records: Iterable[KeyRecord], files: Iterable[Path]) -> dict[str, bytes]:
    """Return the tokenizer of every unit that needs one."""
    found: dict[str, bytes] = {}
    for path in files:
        try:
            data = path.read_bytes()
        except OSError as err:
            reason = (err.strerror or "").lower()
            message = f"cannot read tokenizer {path}: {reason}; pass --tokenizer FILE"
            raise TokenizerFileError(message) from err
        found[tokenizer_unit_id(data)] = data
    needed = {record.unit: record.key_id for record in records if record.unit != WORDS_V1}
    for unit, key_id in needed.items():
        if unit not in found:
            given = ", ".join(found) or "none"
            raise UnitMismatchError(
                f"key {key_id!a} needs --tokenizer with the file of {unit}, the one that the "
                f"marking proxy used, byte for byte; given: {given}"
            )
    return {unit: found[unit] for unit in needed}


def _score_blocks(
    plan: _Plan,
    journal: Journal,
    blocks: Iterable[Block],
    report: Callable[[Progress], object],
) -> None:
    """Test the documents of every block, and keep what is found and what is to be pooled."""
    total = sum(source.size for source in plan.sources)
    headers = [kept.header for kept in journal.kept()]
    done = sum(header["stored_bytes"] for header in headers)
    n_broken = sum(header["n_skipped"] for header in headers)
    report(Progress(stage="scan", done=done, total=total, n_broken=n_broken))
    log_alpha = math.log(plan.fdr)
    layers = [plan.layer_of(test) for test in range(len(plan.scorers))]
    for block in blocks:
        scores = [
            scorer.documents(block.cuts[layer], log_alpha)
            for scorer, layer in zip(plan.scorers, layers, strict=True)
        ]
        journal.keep(block.shard, block.number, *hits.keep_block(block, layers, scores))
        done += block.stored_bytes
        n_broken += block.n_skipped
        report(Progress(stage="scan", done=min(done, total), total=total, n_broken=n_broken))


def _finish(
    plan: _Plan, journal: Journal, out: Path, report: Callable[[Progress], object]
) -> ScanResult:
    """Pool, correct, and write the result."""
    tally = hits.Tally(plan.sources, plan.shards, len(plan.scorers))
    for kept in journal.kept():
        tally.add(kept)
    found = tally.discoveries(plan.fdr)
    pooled = _pooled(plan, journal, tally, found, report)
    notes = {"output-watermark": hits.describe(plan.fdr, tally, pooled)}
    temporary = out.with_name(out.name + ".part")
    hits.write(temporary, found, tally, plan.scorers, notes)
    # Before the hits: where these are, the scan is over, and nothing is missing.
    broken_file = broken.write(out, journal.kept(), plan.sources) if tally.n_broken else None
    temporary.replace(out)
    return ScanResult(
        out=out,
        fdr=plan.fdr,
        pooled=pooled,
        n_files=len(plan.sources),
        n_bytes=sum(source.size for source in plan.sources),
        n_records=tally.n_records,
        n_documents=tally.n_documents,
        n_hits=sum(found.n_hits),
        n_broken=tally.n_broken,
        broken=tuple(tally.broken),
        broken_file=broken_file,
    )


def _pooled(
    plan: _Plan,
    journal: Journal,
    tally: hits.Tally,
    found: hits.Discoveries,
    report: Callable[[Progress], object],
) -> tuple[PooledResult, ...]:
    """Return the result of every key on every form of the whole corpus."""
    totals = dict(_sums(plan, journal, report))
    statistics, logs = zip(
        *(results.shown(*totals[test]) for test in range(len(plan.scorers))), strict=True
    )
    return tuple(
        PooledResult(
            key_id=scorer.record.key_id,
            form=scorer.layer.form,
            unit=scorer.layer.unit,
            context_width=scorer.layer.width,
            n_tokens=tally.n_tokens[test],
            n_scored=totals[test][1],
            statistic=statistics[test],
            log_pvalue=logs[test],
            log_pvalue_family=family,
            n_tested=tally.n_tested[test],
            n_hits=found.n_hits[test],
        )
        for test, (scorer, family) in enumerate(zip(plan.scorers, holm(logs), strict=True))
    )


def _sums(
    plan: _Plan, journal: Journal, report: Callable[[Progress], object]
) -> Iterator[tuple[int, tuple[float, int]]]:
    """Yield every test's sum of scores over distinct pairs, and their number."""
    blocks = list(journal.kept())
    spills = [Spill(layer, i, blocks) for i, layer in enumerate(plan.cutter.layers)]
    total, done = sum(one.n_bytes for one in spills), 0
    tests = sorted(range(len(plan.scorers)), key=plan.layer_of)
    for layer, of_layer in groupby(tests, key=plan.layer_of):
        sums = PooledSums({test: plan.scorers[test] for test in of_layer})
        for scored, n_bytes in pool_parts(spills[layer], sums, journal):
            sums.add(scored)
            done += n_bytes
            report(Progress(stage="pool", done=done, total=total, n_broken=0))
        yield from ((test, sums.total(test)) for test in sums.tests)
