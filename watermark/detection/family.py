"""Results of tests that were made together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, overload

from watermark.detection.result import DetectionResult, results_table

if TYPE_CHECKING:
    from watermark.errors import InputError

_SHOWN: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class DetectionFamily(Sequence[DetectionResult]):
    """Every key held against every document, corrected for all of it.

    A sequence of results: documents in the order given, within one the keys in the order given.

    Attributes:
        results: One result a test.
        documents: For each result the index of its document.
        keys: For each result the index of its key.
        names: The documents' names.
        failures: What could not be tested, as (index of the document, why), once each; the
            family is what could be.
    """

    results: tuple[DetectionResult, ...]
    documents: tuple[int, ...]
    keys: tuple[int, ...]
    names: tuple[str, ...]
    failures: tuple[tuple[int, InputError], ...] = ()

    @overload
    def __getitem__(self, index: int) -> DetectionResult: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[DetectionResult, ...]: ...

    def __getitem__(self, index: int | slice) -> DetectionResult | tuple[DetectionResult, ...]:
        """Return one result, or several."""
        return self.results[index]

    def __len__(self) -> int:
        """Return the number of tests."""
        return len(self.results)

    @property
    def best(self) -> DetectionResult | None:
        """The result with the smallest p-value; None where nothing could be tested."""
        return min(self.results, key=lambda result: result.log_pvalue, default=None)

    def rejected(self, *, alpha: float) -> tuple[DetectionResult, ...]:
        """Return the results that reject their null at a family-wise level.

        Raises:
            SchemeParameterError: alpha is not in (0, 1).
        """
        return tuple(result for result in self.results if result.rejects_null(alpha=alpha))

    def __repr__(self) -> str:
        """Show how many tests there are, and the strongest."""
        failed = f", {len(self.failures)} failed" if self.failures else ""
        lines = [f"<DetectionFamily of {len(self)} tests{failed}; smallest p first"]
        lines += [f"  {name or '-'}: {result!r}" for name, result in self._strongest()]
        if len(self) > _SHOWN:
            lines.append(f"  ... and {len(self) - _SHOWN} more")
        return "\n".join(lines) + ">"

    def _repr_html_(self) -> str:
        """Return the strongest results as a table, for notebooks."""
        rest = len(self) - _SHOWN
        note = f"<p>and {rest} more tests, all counted in the family</p>" if rest > 0 else ""
        return results_table(self._strongest()) + note

    def _strongest(self) -> list[tuple[str, DetectionResult]]:
        order = sorted(range(len(self)), key=lambda i: self.results[i].log_pvalue)[:_SHOWN]
        return [(self.names[self.documents[i]], self.results[i]) for i in order]
