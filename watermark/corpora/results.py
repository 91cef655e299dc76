"""What a scan says; no verdict inside."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from watermark.detection.result import FEWEST_SHOWN, html_table, level_of
from watermark.stats import LN_10, gamma_log_sf

if TYPE_CHECKING:
    from pathlib import Path

_SHOWN: Final = 10  # keys and forms of a scan


_HEADINGS: Final = (
    "key", "form", "units", "scored", "log10 p", "family-wise", "documents tested", "hits",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class PooledResult:
    """One key held against the whole corpus, each distinct pair once.

    Null: the corpus was produced without this key.

    Attributes:
        key_id: The key tested.
        form: The form of the text that was tested: `raw` or `canonical`.
        unit: The key's unit.
        context_width: Preceding units in a context.
        n_tokens: Units in the texts.
        n_scored: Distinct pairs scored; under the null the statistic is Gamma(n_scored, 1).
        statistic: Sum of the scores, in nats; None of fewer than `FEWEST_SHOWN` pairs.
        log_pvalue: Natural log of the exact p-value of this one test; of fewer than `FEWEST_SHOWN`
            pairs rounded up to 1, 0.01 or 0.0001.
        log_pvalue_family: The same after Holm over the keys and forms of the scan.
        n_tested: Documents that were tested one by one.
        n_hits: Those among the discoveries.
    """

    key_id: str
    form: str
    unit: str
    context_width: int
    n_tokens: int
    n_scored: int
    statistic: float | None
    log_pvalue: float
    log_pvalue_family: float
    n_tested: int
    n_hits: int

    def __repr__(self) -> str:
        """Show the answer in one line."""
        return (
            f"<PooledResult key={self.key_id!r} {self.form} p=10^{self.log10_pvalue:z.2f} "
            f"family-wise=10^{self.log10_pvalue_family:z.2f} scored={self.n_scored} of "
            f"{self.n_tokens} effect={self.effect:.3f} hits={self.n_hits} of {self.n_tested}>"
        )

    def _repr_html_(self) -> str:
        """Return the answer as a small table, for notebooks."""
        return html_table(_HEADINGS, [_cells(self)])

    @property
    def log10_pvalue(self) -> float:
        """The p-value's decimal logarithm."""
        return self.log_pvalue / LN_10

    @property
    def log10_pvalue_family(self) -> float:
        """The family-wise p-value's decimal logarithm."""
        return self.log_pvalue_family / LN_10

    @property
    def effect(self) -> float:
        """Mean excess of a score over its null mean, in null standard deviations; 0 if hidden."""
        return 0.0 if self.statistic is None else self.statistic / self.n_scored - 1.0


def shown(statistic: float, n_scored: int) -> tuple[float | None, float]:
    """Return what a result may show of a sum of scores: the sum, and its log p-value.

    A sum over few positions tells too much of each while the key is secret. Of fewer than
    `FEWEST_SHOWN` the sum is left out, and p rounded up to one of three levels. The rounded p is
    valid: it is never below the exact one, so P(rounded <= a) <= P(exact <= a) <= a.

    Args:
        statistic: The sum, in nats.
        n_scored: Scores in it.
    """
    log_pvalue = gamma_log_sf(statistic, n_scored)
    if n_scored >= FEWEST_SHOWN:
        return statistic, log_pvalue
    return None, level_of(log_pvalue)


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenRecord:
    """A record that could not be read, or records that were lost together.

    Attributes:
        file: Path or URL.
        offset: Where it starts: byte of the file without compression, or row of a table.
        reason: Why; never its content.
        n_records: How many were lost: the rest of a row group of a damaged table, else 1.
    """

    file: str
    offset: int
    reason: str
    n_records: int = 1


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ScanResult:
    """A scan that came to its end.

    Attributes:
        out: The file of hits.
        fdr: The expected share of false ones among them, at most.
        pooled: One result a key and form, keys in the order given.
        n_files: Files read.
        n_bytes: Their size, as stored.
        n_records: Records, broken ones too.
        n_documents: Records that were read.
        n_hits: Documents, keys and forms that are discoveries.
        n_broken: Records that could not be read.
        broken: The first 100 of them.
        broken_file: The file that names all of them, one JSON object a line; None where none are.
        left_out: Ids of the keys of other schemes, which were not scanned for.
    """

    out: Path
    fdr: float
    pooled: tuple[PooledResult, ...]
    n_files: int
    n_bytes: int
    n_records: int
    n_documents: int
    n_hits: int
    n_broken: int
    broken: tuple[BrokenRecord, ...]
    broken_file: Path | None = None
    left_out: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Show what was read and found, and the strongest keys."""
        lines = [f"<ScanResult {self._summary()}"]
        lines += [f"  {one!r}" for one in self._strongest()]
        if len(self.pooled) > _SHOWN:
            lines.append(f"  ... and {len(self.pooled) - _SHOWN} more")
        return "\n".join(lines) + ">"

    def _repr_html_(self) -> str:
        """Return the same as a table, for notebooks; nothing in it is taken for mark-up."""
        rest = len(self.pooled) - _SHOWN
        more = f"; {rest} more keys and forms, all in the family" if rest > 0 else ""
        table = html_table(_HEADINGS, map(_cells, self._strongest()))
        return f"{table}<p>{html.escape(self._summary() + more)}</p>"

    def _summary(self) -> str:
        broken = f", {self.n_broken} broken (all in {self.broken_file})" if self.n_broken else ""
        left_out = f"; keys left out: {', '.join(self.left_out)}" if self.left_out else ""
        return (
            f"{self.n_hits} hits at fdr {self.fdr:g} among {self.n_documents} documents of "
            f"{self.n_files} files{broken}, in {self.out}{left_out}"
        )

    def _strongest(self) -> list[PooledResult]:
        return sorted(self.pooled, key=lambda one: one.log_pvalue)[:_SHOWN]


def _cells(row: PooledResult) -> tuple[str, ...]:
    return (
        row.key_id,
        row.form,
        str(row.n_tokens),
        str(row.n_scored),
        f"{row.log10_pvalue:z.2f}",
        f"{row.log10_pvalue_family:z.2f}",
        str(row.n_tested),
        str(row.n_hits),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a scan is.

    Attributes:
        stage: `scan`, then `pool`.
        done: Bytes as stored, or bytes of kept pairs.
        total: Of these.
        n_broken: Records that could not be read so far.
    """

    stage: str
    done: int
    total: int
    n_broken: int
