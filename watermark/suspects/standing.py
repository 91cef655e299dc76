"""Whether a suspect is up, and takes prompts at all: told from how asking ended.

Rule 1: what one prompt may be to blame for (not taken, an empty answer, one that is too large) is
set aside until another prompt has an answer, which shows that it is the prompt; then it is final.
Rule 2: after five such prompts without any answer, or five in a row that failed, it makes no sense
to go on. What was set aside is then kept as failed: paid for, and asked again by the next run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from watermark.errors import SuspectError
from watermark.suspects.answers import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from watermark.suspects.answers import Attempt

_LIMIT: Final = 5
_OF_A_PROMPT: Final = frozenset({Outcome.UNANSWERABLE, Outcome.EMPTY, Outcome.TOO_LARGE})


class Standing:
    """How a suspect stands after all that it was asked so far.

    Args:
        remedy: What to do about one that fails, in the imperative.
        refused: The same about one that takes no prompt.

    Attributes:
        has_answered: Whether it has ever answered, in an earlier session too.
    """

    def __init__(self, *, remedy: str, refused: str) -> None:
        self.has_answered = False
        self._remedy, self._refused = remedy, refused
        self._aside: list[Attempt] = []
        self._n_failed = 0

    def take_all(self, attempts: Iterable[Attempt], keep: Callable[[Attempt], None]) -> None:
        """Hand over attempts as they end, one after the other.

        Raises:
            SuspectError: It makes no sense to go on (rule 2).
        """
        try:
            for attempt in attempts:
                self.take(attempt, keep)
            self.check_answers()
        finally:
            self.end(keep)

    def take(self, attempt: Attempt, keep: Callable[[Attempt], None]) -> None:
        """Hand over what may be kept now (rule 1).

        Raises:
            SuspectError: It makes no sense to go on (rule 2).
        """
        self.has_answered |= attempt.counts
        if attempt.outcome in _OF_A_PROMPT:
            self._aside.append(attempt)
        else:
            keep(attempt)
        if self.has_answered:
            self._release(keep)
        self._n_failed = self._n_failed + 1 if attempt.outcome is Outcome.FAILED else 0
        if len(self._aside) >= _LIMIT:
            self.check_answers()
        if self._n_failed >= _LIMIT:
            raise SuspectError(
                f"the suspect gave no answer to {self._n_failed} prompts in a row (at last "
                f"{attempt.detail}); {self._remedy}"
            )

    def check_answers(self) -> None:
        """Refuse to blame prompts where none was answered.

        Raises:
            SuspectError: None was.
        """
        if not self._aside:
            return
        if any(one.outcome is Outcome.EMPTY for one in self._aside):
            raise SuspectError(
                f"the suspect answered {len(self._aside)} prompts with empty text or not at all, "
                "and none with text; where it reasons before it answers, max_tokens is too small "
                "for both: plan again with a larger --max-tokens"
            )
        raise SuspectError(
            f"the suspect answered with {self._aside[0].detail}, and to nothing; {self._refused}"
        )

    def end(self, keep: Callable[[Attempt], None]) -> None:
        """Hand over what is still set aside, as failed (rule 2)."""
        self._aside = [msgspec.structs.replace(x, outcome=Outcome.FAILED) for x in self._aside]
        self._release(keep)

    def _release(self, keep: Callable[[Attempt], None]) -> None:
        while self._aside:
            keep(self._aside.pop(0))
