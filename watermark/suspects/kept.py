"""What an audit has kept, and what it comes to.

Rule 1: figures come from the files of the folder alone, so that who has them and the keys (or
their disclosed context subkeys) gets the same. Rule 2: a look is at the bet, which is valid at any
time, and may be taken while a run writes: a line that is not whole yet does not count.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from watermark.errors import AuditRunError
from watermark.keys import LABEL_CONTEXT
from watermark.radioactivity import (
    FEW_DECOYS,
    Access,
    Evidence,
    PairCollector,
    View,
    Weighting,
    bet_path,
    weigh_evidence,
)
from watermark.schemes import text_identities
from watermark.seeding import pair_values
from watermark.stats import affordable_decoys
from watermark.stats.decoys import KEY_PAIRS
from watermark.suspects.answers import Attempt, Outcome, count_kinds, last_of_each
from watermark.suspects.dialects import as_one_text
from watermark.suspects.folder import ANSWERS, CONTROL
from watermark.suspects.journal import Journal
from watermark.suspects.reading import Reading, cut
from watermark.suspects.spending import spent_on

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from watermark.keys import KeyRecord
    from watermark.radioactivity import Choices, Design, Observation
    from watermark.suspects.answers import Prompt
    from watermark.suspects.folder import AuditFolder
    from watermark.suspects.reading import CutPassage, ReadText
    from watermark.text import Unit

_UNHEARD: Final = 3000
"""Pairs after which it is worth a word, in the middle of a run, that none of them counts."""


_SECONDS_A_PAIR: Final = 30e-9
"""Of a core, for a pair under a decoy key, as measured on one machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """Where an audit stands.

    Attributes:
        n_answers: Answers that count.
        n_planned: Prompts of the plan.
        n_scored: Scores so far.
        log_evalue_peak: Natural log of the bet's largest value.
        is_rejected: Whether it has reached 1 / alpha.
        spent: What suspect and clean model cost together, as far as prices are known.
        is_unheard: Whether the suspect has said much, and nothing at a context that counts: it
            speaks another language, or the ledger is another deployment's. At the end of a run
            `n_scored` alone says so, however little was said.
    """

    n_answers: int
    n_planned: int
    n_scored: int
    log_evalue_peak: float
    is_rejected: bool
    spent: float
    is_unheard: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlFindings:
    """What a clean model says, that was asked the same.

    Attributes:
        evidence: Of it.
        kinds: Its answers by kind.
        n_waiting: Prompts that the suspect has had, and it has not answered.
        last: Digest of the last line of its journal.
        n_apart: Pairs that count and that one of the two said, suspect or clean model, not both.
    """

    evidence: Evidence
    kinds: dict[str, int]
    n_waiting: int
    last: str
    n_apart: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What an audit says, with what stands beside.

    Attributes:
        evidence: Of the suspect.
        undelivered: The same over contexts that nobody was delivered; None without a ledger.
        control: What the clean model said; None where there is none.
        kinds: Answers by kind.
        look: Where it stands.
        is_complete: Whether every prompt of the plan has had its answer, so that the exact p
            has a number of answers that was fixed beforehand.
        last: Digest of the last line of the journal, which stands for plan and answers.
        cut_off: Files whose last line is not whole, and does not count (rule 2).
    """

    evidence: Evidence
    undelivered: Evidence | None
    control: ControlFindings | None
    kinds: dict[str, int]
    look: Look
    is_complete: bool
    last: str
    cut_off: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Gathered:
    """What a journal holds, in the form of the statistics."""

    journal: Journal[Attempt] | Journal[Reading]
    observations: list[Observation]
    look: Look
    kinds: dict[str, int]
    is_complete: bool


class Kept:
    """A folder with the keys of its plan at hand: what it holds, as the statistics take it.

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
        return f"<Kept answers of plan {self.folder.digest[:12]}>"

    def journal(self, name: str) -> Journal[Attempt]:
        """Return what was answered.

        Raises:
            AuditRunError: It does not hold.
        """
        return Journal(self.folder.path / name, self.folder.digest, Attempt)

    def readings(self, name: str) -> Journal[Reading]:
        """Return what was read.

        Raises:
            AuditRunError: It does not hold.
        """
        return Journal(self.folder.path / name, self.folder.digest, Reading)

    def journals(self) -> tuple[Journal[Attempt] | Journal[Reading], ...]:
        """Return every journal of the folder.

        Raises:
            AuditRunError: One does not hold.
        """
        if self.plan.access.is_open:
            return (self.readings(ANSWERS),)
        return self.journal(ANSWERS), self.journal(CONTROL)

    def asked(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """Return the prompts that the suspect has had."""
        had = {one.prompt for one in self.journal(ANSWERS).entries}
        return [one for one in prompts if one.id in had]

    def n_uncontrolled(self) -> int:
        """Return how many prompts the suspect has had that no clean model has answered."""
        return len(waiting_for(self.asked(self.folder.prompts()), self.journal(CONTROL).entries))

    def look(
        self, attempts: Sequence[Attempt], n_planned: int, others: Sequence[Attempt] = ()
    ) -> Look:
        """Return where answers stand; those of the other one, suspect or clean model, cost too."""
        spent = spent_on(self.plan.budget, (*attempts, *others))
        return self._looked(self._observed(attempts), n_planned, spent)

    def look_open(self, readings: Sequence[Reading]) -> Look:
        """Return where reading stands."""
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

    def findings(self, foretell: Callable[[int, float], None] = lambda *_: None) -> Findings:
        """Return what the folder says (rule 1).

        Args:
            foretell: Called before decoy keys are drawn: how many, and seconds of a core for them.

        Raises:
            AuditRunError: A journal does not hold, or there is none.
        """
        gathered = self._read_so_far() if self.plan.access.is_open else self._said_so_far()
        if not gathered.journal.entries:
            raise AuditRunError(f"{self.folder.path} holds no answers; run the audit first")
        design = self._design if gathered.is_complete else beside(self._design)
        n_scored, n_keys = gathered.look.n_scored, len(self._records)
        n_decoys = affordable_decoys(design.n_decoys, n_scored)
        foretell(n_decoys, n_decoys * (n_scored + KEY_PAIRS * n_keys) * _SECONDS_A_PAIR)
        return Findings(
            evidence=weigh_evidence(self._records, gathered.observations, design),
            undelivered=self._undelivered(gathered.observations),
            control=self._control(gathered.observations),
            kinds=gathered.kinds,
            look=gathered.look,
            is_complete=gathered.is_complete,
            last=gathered.journal.last,
            cut_off=tuple(one.path.name for one in self.journals() if not one.is_whole),
        )

    def _said_so_far(self) -> _Gathered:
        journal, prompts = self.journal(ANSWERS), self.folder.prompts()
        return _Gathered(
            journal,
            self._observed(journal.entries),
            self.look(journal.entries, len(prompts), self.journal(CONTROL).entries),
            count_kinds(prompts, last_of_each(journal.entries)),
            is_complete=not waiting_for(prompts, journal.entries),
        )

    def _read_so_far(self) -> _Gathered:
        journal = self.readings(ANSWERS)
        return _Gathered(
            journal,
            self._observed_open(journal.entries),
            self.look_open(journal.entries),
            _kinds_read(journal.entries),
            is_complete=len(journal.entries) == self.plan.prompts.rows,
        )

    def _observed(self, attempts: Sequence[Attempt]) -> list[Observation]:
        """Return what the answers add, in their order; all prompts of the plan are in view."""
        given = [one.prompt for one in self.folder.prompts()]
        sent = {text for one in given for text in texts_in_view(self.plan.system, one)}
        texts = [self._unit.encode(text) for text in sorted(sent)]
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

    def _control(self, said: Sequence[Observation]) -> ControlFindings | None:
        journal = self.journal(CONTROL)
        if not journal.entries:
            return None
        observations = self._observed(journal.entries)
        return ControlFindings(
            evidence=weigh_evidence(self._records, observations, beside(self._design)),
            kinds=count_kinds(self.folder.prompts(), last_of_each(journal.entries)),
            n_waiting=self.n_uncontrolled(),
            last=journal.last,
            n_apart=len(self._counting(said) ^ self._counting(observations)),
        )

    def _counting(self, observations: Sequence[Observation]) -> set[int]:
        """Return the identities of the pairs that count."""
        tested = [one.key_id for one in self._records]
        found: set[int] = set()
        for one in observations:
            counts = self._design.weights.of(tested, one.contexts) > 0
            pairs = pair_values(text_identities(one.contexts[counts]), one.tokens[counts])
            found.update(pairs.tolist())
        return found

    def _undelivered(self, observations: Sequence[Observation]) -> Evidence | None:
        if not self.plan.delivered or self.plan.access.is_open:  # what is read was delivered
            return None
        return weigh_evidence(self._records, observations, undelivered(beside(self._design)))


def _kinds_read(readings: Sequence[Reading]) -> dict[str, int]:
    """Return how many passages were read, or not taken, in the words of `count_kinds`."""
    n_refused = sum(one.is_refused for one in readings)
    found = {
        "read": len(readings) - n_refused,
        Outcome.UNANSWERABLE.value: n_refused,
        "tokens-estimated": sum(one.is_estimated for one in readings),
    }
    return {name: number for name, number in found.items() if number}


def beside(design: Design) -> Design:
    """Return the same design with few decoys: for controls, and for looks before the end.

    There the rank counts for nothing yet; it is a check.
    """
    return replace(design, n_decoys=min(design.n_decoys, FEW_DECOYS))


def undelivered(design: Design) -> Design:
    """Return the same design over contexts that nobody was delivered."""
    return replace(design, weights=replace(design.weights, weighting=Weighting.UNDELIVERED))


def texts_in_view(system: str, prompt: str) -> list[str]:
    """Return what a suspect is given with a prompt: apart, and as one text where it takes no roles.

    Args:
        system: The system prompt; empty for none.
        prompt: The prompt.
    """
    return [text for text in (system, prompt, as_one_text(system, prompt)) if text]


def waiting_for(prompts: Sequence[Prompt], attempts: Sequence[Attempt]) -> list[Prompt]:
    """Return the prompts that are still to be asked."""
    done = {one.prompt for one in attempts if one.is_final}
    return [one for one in prompts if one.id not in done]
