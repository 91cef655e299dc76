"""Many keys held against many documents, as one family.

Text is cut once a unit and its forms, the pairs that count are found once a context width, and
the correction for the whole family is made here, where the family is. Keys of engines' schemes
go through their own readers, one at a time, into the same family.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from watermark.detection.detector import correct_family
from watermark.detection.engine_key import EngineKey
from watermark.detection.family import DetectionFamily
from watermark.detection.forms import TextForm, text_forms
from watermark.detection.key_group import KeyGroup
from watermark.errors import InputError, UnitMismatchError
from watermark.seeding import as_token_ids
from watermark.stats import holm
from watermark.text import WORDS_V1, WordsUnit
from watermark.text.canonical import RAW

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from watermark.detection.result import DetectionResult
    from watermark.keys import KeyRecord
    from watermark.text import Unit

    TokenIds = Sequence[int] | NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """What is tested as one body of evidence.

    Attributes:
        replies: Characters, or unit ids; each starts afresh.
        prompts: What the writer had in view: characters, or unit ids. No position is scored
            whose context occurs anywhere in them.
        name: How reports call it.
    """

    replies: tuple[str | TokenIds, ...]
    prompts: tuple[str | TokenIds, ...] = ()
    name: str = ""


def detect_many(
    records: Sequence[KeyRecord],
    documents: Iterable[Document | str | TokenIds],
    units: Iterable[Unit] = (),
    *,
    exclude: Sequence[str | TokenIds] = (),
    decoys: int = 0,
) -> DetectionFamily:
    """Hold every key against every document.

    Characters are tested as they came and in canonical form, each document as one test with the
    factor for its forms; Holm's correction is over all documents and keys. Exclusion and decoys
    depend on the text only, so that every p-value stays valid whatever is excluded and however
    many decoys there are.

    Args:
        records: The keys.
        documents: Characters, unit ids, or a :class:`Document`.
        units: How text is cut, for keys of other units than `words/v1`.
        exclude: Texts that all writers had in view; see :class:`Document` for one's own.
        decoys: Decoy keys to rank each test among, 0 for none.

    Returns:
        Results by document, then by key. A document that cannot be tested under a key is among
        the failures, not the results.

    Raises:
        UnitMismatchError: Characters were given, and a key's unit was not.
        KeysError: A record's secret cannot give what its scheme needs.
    """
    bench = _Bench.of(records, units)
    results: list[DetectionResult] = []
    owners: list[int] = []
    keys: list[int] = []
    names: list[str] = []
    failures: list[tuple[int, InputError]] = []
    for index, given in enumerate(documents):
        document = given if isinstance(given, Document) else Document(replies=(given,))
        names.append(document.name)
        found, failed = bench.test(document, exclude, decoys)
        results += found.values()
        keys += found
        owners += [index] * len(found)
        failures += [(index, error) for error in failed]
    return DetectionFamily(
        results=tuple(correct_tests(results)),
        documents=tuple(owners),
        keys=tuple(keys),
        names=tuple(names),
        failures=tuple(failures),
    )


def correct_tests(results: Sequence[DetectionResult]) -> list[DetectionResult]:
    """Return the results with Holm's correction over closed forms, and over ranks."""
    corrected = correct_family(results)
    ranks = {i: result.decoys for i, result in enumerate(corrected) if result.decoys is not None}
    adjusted = holm([rank.log_pvalue for rank in ranks.values()])
    for (i, rank), log_pvalue in zip(ranks.items(), adjusted, strict=True):
        decoys = replace(rank, log_pvalue_family=log_pvalue)
        corrected[i] = replace(corrected[i], decoys=decoys)
    return corrected


class _Keys(Protocol):
    """Keys of one unit that are held against a text in one pass."""

    @property
    def unit(self) -> str: ...

    @property
    def indices(self) -> tuple[int, ...]: ...

    def detect(
        self, forms: Sequence[TextForm], exclude: Sequence[NDArray[np.uint32]], *, decoys: int
    ) -> list[DetectionResult]: ...


@dataclass(frozen=True, slots=True)
class _Bench:
    """All keys of a call, by the unit that they need, and the units."""

    by_unit: Mapping[str, Sequence[_Keys]]
    units: Mapping[str, Unit]

    @classmethod
    def of(cls, records: Sequence[KeyRecord], units: Iterable[Unit]) -> _Bench:
        by_unit: dict[str, list[_Keys]] = defaultdict(list)
        members: dict[tuple[str, int, int], list[int]] = defaultdict(list)
        for i, record in enumerate(records):
            if not record.is_copula:
                by_unit[record.unit].append(EngineKey.of(record, i))
            else:
                kind = (record.unit, record.context_width, record.account_share_q16)
                members[kind].append(i)
        for (unit, _, _), indices in members.items():
            by_unit[unit].append(KeyGroup.of(records, indices))
        return cls(by_unit, {WORDS_V1: WordsUnit(), **{unit.unit_id: unit for unit in units}})

    def test(
        self, document: Document, exclude: Sequence[str | TokenIds], decoys: int
    ) -> tuple[dict[int, DetectionResult], list[InputError]]:
        """Return the results of one document by the index of the key, and what failed."""
        found: dict[int, DetectionResult] = {}
        failed: list[InputError] = []
        for unit, sets in self.by_unit.items():
            try:
                forms = self._forms(document.replies, unit)
                excluded = [
                    ids
                    for text in (*exclude, *document.prompts)
                    for form in self._forms((text,), unit)
                    for ids in form.ids
                ]
                for keys in sets:
                    results = keys.detect(forms, excluded, decoys=decoys)
                    found.update(zip(keys.indices, results, strict=True))
            except InputError as error:
                failed.append(error)
        return dict(sorted(found.items())), failed

    def _forms(self, texts: Sequence[str | TokenIds], unit: str) -> list[TextForm]:
        """Return texts cut into a unit: characters in their forms, ids as they are."""
        if texts and all(isinstance(text, str) for text in texts):
            return text_forms([str(text) for text in texts], self._unit(unit))
        ids = tuple(
            self._unit(unit).encode(text) if isinstance(text, str) else as_token_ids(text)
            for text in texts
        )
        return [TextForm(name=RAW, texts=(), ids=ids)]

    def _unit(self, unit_id: str) -> Unit:
        if unit_id not in self.units:
            raise UnitMismatchError(
                f"characters need the unit {unit_id}, which a key names; pass it in `units`"
            )
        return self.units[unit_id]
