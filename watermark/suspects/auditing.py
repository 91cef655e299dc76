"""Running an audit: ask, keep, look, stop.

Rule 1: a look is at the bet, which is valid at any time. Rule 2: what was kept is never asked for
again. Rule 3: a suspect that changes its name in the middle is another model, whose answers do not
count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from watermark.errors import AuditRunError
from watermark.radioactivity import View
from watermark.suspects.answers import Outcome, check_answered
from watermark.suspects.folder import ANSWERS, CLEAN_MODEL, CONTROL
from watermark.suspects.kept import Kept, waiting_for
from watermark.suspects.naming import NameWatch
from watermark.suspects.reading import ToRead, UnitMap, cut, read_passages
from watermark.suspects.spending import Books, affordable, estimated_tokens, readable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from watermark.keys import KeyRecord
    from watermark.suspects.answers import Attempt, Prompt, Suspect
    from watermark.suspects.folder import AuditFolder
    from watermark.suspects.journal import Journal
    from watermark.suspects.kept import Findings, Look
    from watermark.suspects.reading import Reader, Reading
    from watermark.suspects.standing import Standing
    from watermark.text import Unit

_LOOKS: Final = 40


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
        self._kept = Kept(folder, records, unit, others)
        self._context_width, self._unit = records[0].context_width, unit

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
        journal = self._kept.journal(CONTROL if is_control else ANSWERS)
        journal.mend()
        prompts = self.folder.prompts()
        if is_control:
            prompts = self._kept.asked(prompts)
        others = self._kept.journal(ANSWERS if is_control else CONTROL).entries
        look = self._kept.look(journal.entries, len(prompts), others)
        before = len(journal.entries)
        while True:
            tell(look)
            had = {one.prompt for one in journal.entries[before:]}  # once a session, failed or not
            waiting = [one for one in waiting_for(prompts, journal.entries) if one.id not in had]
            if not waiting or (look.is_rejected and not is_control):
                check_answered(journal.entries[before:])
                return look
            wave = waiting[: max(8, len(prompts) // _LOOKS)]
            books = self._books(journal.entries, others, is_control=is_control)
            wave = affordable(self.plan, books, wave, self._unit)
            if not wave:
                return look
            self._wave(suspect, wave, journal, is_control=is_control)
            look = self._kept.look(journal.entries, len(prompts), others)

    def _books(
        self, asked: Sequence[Attempt], others: Sequence[Attempt], *, is_control: bool
    ) -> Books:
        """Return who has been paid and promised what; a clean model only where the plan does."""
        if is_control or CLEAN_MODEL not in self.plan.controls:
            return Books(asked=asked, others=others)
        had = {one.prompt for one in asked}
        promised = [one for one in waiting_for(self.folder.prompts(), others) if one.id in had]
        return Books(asked=asked, others=others, promised=promised, is_doubled=True)

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
        journal = self._kept.readings(ANSWERS)
        journal.mend()
        passages, units = self.folder.passages(), UnitMap(self._unit)
        view, look = View(self._context_width), self._kept.look_open(journal.entries)
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
                look = self._kept.look_open(journal.entries)
                tell(look)
            if fitting != waiting:
                break
            waiting = []
        return look

    def findings(self, foretell: Callable[[int, float], None] = lambda *_: None) -> Findings:
        """Return what the folder says.

        Args:
            foretell: Called before decoy keys are drawn: how many, and seconds of a core for them.

        Raises:
            AuditRunError: A journal does not hold, or there is none.
        """
        return self._kept.findings(foretell)

    def check_whole(self) -> None:
        """Refuse a folder with a line that is cut off: a run writes it, or was killed.

        Raises:
            AuditRunError: There is one.
        """
        for journal in self._kept.journals():
            journal.check_whole()

    def longest(self) -> int:
        """Return tokens of the longest prompt or passage, with what stands before, estimated."""
        if self.plan.access.is_open:
            texts = ["".join((*one.before, one.text)) for one in self.folder.passages()]
        else:
            texts = [self.plan.system + one.prompt for one in self.folder.prompts()]
        return max(map(estimated_tokens, texts))

    def n_uncontrolled(self) -> int:
        """Return how many answers of a clean model the plan promises and the folder lacks."""
        return self._kept.n_uncontrolled() if CLEAN_MODEL in self.plan.controls else 0

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

    def _check_begun(self) -> None:
        if self.folder.facts() is None:
            raise AuditRunError(
                f"{self.folder.path} has not begun: hold its plan against the log with `begin` "
                "first"
            )

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
        standing: Standing | None = getattr(suspect, "standing", None)
        if standing is not None:
            standing.has_answered |= any(one.counts for one in journal.entries)
        watch, others = NameWatch.of(self.plan, first, is_control=is_control), list[str]()

        def keep(attempt: Attempt) -> None:
            if attempt.counts and not watch.accepts(attempt.model):
                others.append(attempt.model)
                attempt = msgspec.structs.replace(attempt, outcome=Outcome.OTHER_MODEL)
            journal.append(attempt)

        suspect.ask(prompts, keep)
        if others:
            raise watch.refusal(others[0])
