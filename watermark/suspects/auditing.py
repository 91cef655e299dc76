"""Running an audit: ask, keep, look, stop; and from what was kept to figures.

Rule 1: figures come from the files of the folder alone, so that who has them and the keys (or
their disclosed context subkeys) gets the same. Rule 2: a look is at the bet, which is valid at any
time. Rule 3: a suspect that changes its name in the middle is another model, whose answers do not
count. Rule 4: what was kept is never asked for again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import msgspec

from watermark.errors import AuditRunError
from watermark.keys import LABEL_CONTEXT
from watermark.radioactivity import (
    Access,
    Evidence,
    PairCollector,
    View,
    Weighting,
    bet_path,
    weigh_evidence,
)
from watermark.suspects.answers import Attempt, Outcome, check_answered, count_kinds, last_of_each
from watermark.suspects.folder import ANSWERS, CONTROL
from watermark.suspects.journal import Journal
from watermark.suspects.naming import NameWatch
from watermark.suspects.reading import Reading, ToRead, UnitMap, cut, read_passages
from watermark.suspects.spending import affordable, readable, spent_on

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from watermark.keys import KeyRecord
    from watermark.radioactivity import Choices, Design, Observation
    from watermark.suspects.answers import Prompt, Suspect
    from watermark.suspects.folder import AuditFolder
    from watermark.suspects.reading import CutPassage, Reader, ReadText
    from watermark.text import Unit

_LOOKS: Final = 40
_UNHEARD: Final = 3000
"""Pairs after which it is worth a word that none of their contexts was delivered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """Where an audit stands.

    Attributes:
        n_answers: Answers that count.
        n_planned: Prompts of the plan.
        n_scored: Scores so far.
        log_evalue_peak: Natural log of the bet's largest value.
        is_rejected: Whether it has reached 1 / alpha.
        spent: What it cost, as far as prices are known.
        is_unheard: Whether the suspect has said much, and nothing at a context that counts: it
            speaks another language, or the ledger is another deployment's.
    """

    n_answers: int
    n_planned: int
    n_scored: int
    log_evalue_peak: float
    is_rejected: bool
    spent: float
    is_unheard: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What an audit says, with what stands beside.

    Attributes:
        evidence: Of the suspect.
        undelivered: The same over contexts that nobody was delivered; None without a ledger.
        control: Of the clean model; None where there is none.
        kinds: Answers by kind.
        control_kinds: The same of the clean model.
        look: Where it stands.
        is_complete: Whether every prompt of the plan has had its answer, so that the exact p
            has a number of answers that was fixed beforehand.
        last: Digest of the last line of the journal, which stands for plan and answers.
    """

    evidence: Evidence
    undelivered: Evidence | None
    control: Evidence | None
    kinds: dict[str, int]
    control_kinds: dict[str, int]
    look: Look
    is_complete: bool
    last: str


@dataclass(frozen=True, slots=True)
class _Gathered:
    """What a journal holds, in the form of the statistics."""

    journal: Journal[Attempt] | Journal[Reading]
    observations: list[Observation]
    look: Look
    kinds: dict[str, int]
    is_complete: bool


class Audit:
    """A folder with the keys of its plan at hand.

    Args:
        folder: The folder.
        records: The plan's keys, checked against it.
        unit: How text is cut.
        others: Further keys, for traffic under them.
    """

    def __init__(
        self,
        folder: AuditFolder,
        records: Sequence[KeyRecord],
        unit: Unit,
        others: Sequence[KeyRecord] = (),
    ) -> None:
        self.folder, self.plan = folder, folder.plan
        self._records, self._unit = tuple(records), unit
        subkeys = {
            one.key_id: one.secret.subkey(LABEL_CONTEXT, 16) for one in (*others, *self._records)
        }
        self._design = self.plan.design(folder.traffic(subkeys))

    def __repr__(self) -> str:
        """Show which plan it is."""
        return f"<Audit of plan {self.folder.digest[:12]}>"

    def run(
        self,
        suspect: Suspect,
        *,
        is_control: bool = False,
        tell: Callable[[Look], None] = lambda _look: None,
    ) -> Look:
        """Ask what has not been answered, until the bet decides or the budget is spent.

        Args:
            suspect: Whom to ask.
            is_control: The suspect is the clean model, which is asked as often as the suspect was.
            tell: Called at every look.

        Raises:
            SuspectError: The suspect is down, refuses, or has become another model.
            AuditRunError: The journal does not hold, the access is another, or another session is
                at work.
        """
        if self.plan.access.is_open:
            raise AuditRunError("the plan reads weights or distributions; give a suspect to read")
        with self.folder.session():
            return self._run(suspect, is_control=is_control, tell=tell)

    def _run(self, suspect: Suspect, *, is_control: bool, tell: Callable[[Look], None]) -> Look:
        self._check_begun()
        journal = self._journal(CONTROL if is_control else ANSWERS)
        prompts = self.folder.prompts()
        if is_control:
            prompts = self._asked(prompts)
        look, before = self._look(journal.entries, len(prompts)), len(journal.entries)
        while True:
            tell(look)
            had = {one.prompt for one in journal.entries[before:]}  # once a session, failed or not
            waiting = [one for one in _waiting(prompts, journal.entries) if one.id not in had]
            if not waiting or (look.is_rejected and not is_control):
                check_answered(journal.entries[before:])
                return look
            wave = waiting[: max(8, len(prompts) // _LOOKS)]
            if not is_control:
                wave = affordable(self.plan, look.spent, wave, self._unit)
            if not wave:
                return look
            self._wave(suspect, wave, journal, is_control=is_control)
            look = self._look(journal.entries, len(prompts))

    def read(self, reader: Reader, *, tell: Callable[[Look], None] = lambda _look: None) -> Look:
        """Have a suspect read what it has not read, until the bet decides or all is read.

        Raises:
            SuspectError: The suspect cannot be asked.
            AuditRunError: The journal does not hold, the access is another, or another session is
                at work.
        """
        if not self.plan.access.is_open:
            raise AuditRunError("the plan asks for answers; give a suspect to ask")
        with self.folder.session():
            return self._read(reader, tell=tell)

    def _read(self, reader: Reader, *, tell: Callable[[Look], None]) -> Look:
        self._check_begun()
        journal = self._readings(ANSWERS)
        passages, units = self.folder.passages(), UnitMap(self._unit)
        view, look = View(self._records[0].context_width), self._look_open(journal.entries)
        step, at_once = max(4, len(passages) // _LOOKS), getattr(reader, "at_once", 1)
        waiting: list[ToRead] = []
        had = len(journal.entries)
        for number, read in enumerate(passages, start=1):
            cut_text = cut(read, self._unit)
            places = view.read(cut_text.passage).tolist()
            if number <= had:
                continue
            if look.is_rejected:
                break
            waiting.append(ToRead(read, cut_text, places))
            is_look = number % step == 0 or number == len(passages)
            if len(waiting) < at_once and not is_look:
                continue
            fitting = readable(self.plan.budget, journal.entries, waiting)
            self._read_some(reader, fitting, journal, units)
            if is_look or fitting != waiting:
                look = self._look_open(journal.entries)
                tell(look)
            if fitting != waiting:
                break
            waiting = []
        return look

    def _read_some(
        self,
        reader: Reader,
        passages: Sequence[ToRead],
        journal: Journal[Reading],
        units: UnitMap,
    ) -> None:
        """Have some passages read and keep what comes (rule 3)."""
        first = next((one.model for one in journal.entries if one.model), "")
        watch = NameWatch.of(self.plan, first)
        for one in read_passages(reader, passages, units):
            if not watch.accepts(one.model):  # not kept, and so read again
                raise watch.refusal(one.model)
            journal.append(one)

    def findings(self) -> Findings:
        """Return what the folder says (rule 1).

        Raises:
            AuditRunError: A journal does not hold, or there is none.
        """
        gathered = self._read_so_far() if self.plan.access.is_open else self._said_so_far()
        gathered.journal.check_whole()
        if not gathered.journal.entries:
            raise AuditRunError(f"{self.folder.path} holds no answers; run the audit first")
        control, control_kinds = self._control()
        return Findings(
            evidence=weigh_evidence(self._records, gathered.observations, self._design),
            undelivered=self._undelivered(gathered.observations),
            control=control,
            kinds=gathered.kinds,
            control_kinds=control_kinds,
            look=gathered.look,
            is_complete=gathered.is_complete,
            last=gathered.journal.last,
        )

    def _said_so_far(self) -> _Gathered:
        journal, prompts = self._journal(ANSWERS), self.folder.prompts()
        return _Gathered(
            journal,
            self._observed(journal.entries),
            self._look(journal.entries, len(prompts)),
            count_kinds(prompts, last_of_each(journal.entries)),
            is_complete=not _waiting(prompts, journal.entries),
        )

    def _read_so_far(self) -> _Gathered:
        journal = self._readings(ANSWERS)
        return _Gathered(
            journal,
            self._observed_open(journal.entries),
            self._look_open(journal.entries),
            {"read": len(journal.entries)},
            is_complete=len(journal.entries) == self.plan.prompts.rows,
        )

    def _journal(self, name: str) -> Journal[Attempt]:
        return Journal(self.folder.path / name, self.folder.digest, Attempt)

    def _readings(self, name: str) -> Journal[Reading]:
        return Journal(self.folder.path / name, self.folder.digest, Reading)

    def _check_begun(self) -> None:
        if self.folder.facts() is None:
            raise AuditRunError(
                f"{self.folder.path} has not begun: hold its plan against the log with `begin` "
                "first"
            )

    def _asked(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """Return the prompts that the suspect has had."""
        had = {one.prompt for one in self._journal(ANSWERS).entries}
        return [one for one in prompts if one.id in had]

    def _wave(
        self,
        suspect: Suspect,
        prompts: Sequence[Prompt],
        journal: Journal[Attempt],
        *,
        is_control: bool,
    ) -> None:
        """Ask some prompts and keep what comes (rule 3)."""
        first = next((one.model for one in journal.entries if one.counts and one.model), "")
        watch, others = NameWatch.of(self.plan, first, is_control=is_control), list[str]()

        def keep(attempt: Attempt) -> None:
            if attempt.counts and not watch.accepts(attempt.model):
                others.append(attempt.model)
                attempt = msgspec.structs.replace(attempt, outcome=Outcome.OTHER_MODEL)
            journal.append(attempt)

        suspect.ask(prompts, keep)
        if others:
            raise watch.refusal(others[0])

    def _look(self, attempts: Sequence[Attempt], n_planned: int) -> Look:
        observations = self._observed(attempts)
        return self._looked(observations, n_planned, spent_on(self.plan.budget, attempts))

    def _look_open(self, readings: Sequence[Reading]) -> Look:
        spent = spent_on(self.plan.budget, readings)
        return self._looked(self._observed_open(readings), self.plan.prompts.rows, spent)

    def _looked(self, observations: Sequence[Observation], n_planned: int, spent: float) -> Look:
        path = bet_path(self._records, observations, self._design)
        peak = max((value for _, value in path), default=0.0)
        n_scored = path[-1][0] if path else 0
        return Look(
            n_answers=len(observations),
            n_planned=n_planned,
            n_scored=n_scored,
            log_evalue_peak=max(0.0, peak),
            is_rejected=peak >= -math.log(self.plan.alpha),
            spent=spent,
            is_unheard=not n_scored and sum(map(len, observations)) >= _UNHEARD,
        )

    def _observed(self, attempts: Sequence[Attempt]) -> list[Observation]:
        """Return what the answers add, in their order; all prompts of the plan are in view."""
        given = [one.prompt for one in self.folder.prompts()]
        texts = [self._unit.encode(text) for text in (*given, self.plan.system) if text]
        collector = PairCollector(View(self._records[0].context_width, texts))
        counted = {one.prompt: one for one in reversed(attempts) if one.counts}
        first = [one for one in attempts if counted.get(one.prompt) is one]
        return [collector.answer(self._unit.encode(one.text)) for one in first]

    def _observed_open(self, readings: Sequence[Reading]) -> list[Observation]:
        collector = PairCollector(View(self._records[0].context_width))
        observations = []
        for one, read in zip(readings, self.folder.passages(), strict=False):
            cut_text = cut(read, self._unit)
            choices = self._choices(one, read, cut_text)
            observations.append(collector.reading(cut_text.passage, choices))
        return observations

    def _choices(
        self, reading: Reading, read: ReadText, cut_text: CutPassage
    ) -> list[Choices | None]:
        if reading.passage != read.id:
            raise AuditRunError(
                f"what was read stands in another order than the plan's: {reading.passage!a} for "
                f"{read.id!a}; restore the file"
            )
        found = reading.choices(len(cut_text.passage.ids))
        if self.plan.access is Access.ARGMAX:
            return [None if one is None else one.likeliest() for one in found]
        return found

    def _control(self) -> tuple[Evidence | None, dict[str, int]]:
        journal = self._journal(CONTROL)
        if not journal.entries:
            return None, {}
        journal.check_whole()
        observations = self._observed(journal.entries)
        kinds = count_kinds(self.folder.prompts(), last_of_each(journal.entries))
        return weigh_evidence(self._records, observations, self._design), kinds

    def _undelivered(self, observations: Sequence[Observation]) -> Evidence | None:
        if not self.plan.delivered or self.plan.access.is_open:  # what is read was delivered
            return None
        return weigh_evidence(self._records, observations, undelivered(self._design))


def undelivered(design: Design) -> Design:
    """Return the same design over contexts that nobody was delivered."""
    return replace(design, weights=replace(design.weights, weighting=Weighting.UNDELIVERED))


def _waiting(prompts: Sequence[Prompt], attempts: Sequence[Attempt]) -> list[Prompt]:
    done = {one.prompt for one in attempts if one.is_final}
    return [one for one in prompts if one.id not in done]
