"""Suspects that are no server: any Python function, and answers that somebody collected."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from watermark.errors import AuditRunError, SuspectError
from watermark.suspects.answers import Attempt, Outcome, answered

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from watermark.suspects.answers import Prompt

_TRIES: Final = 3


class CallableSuspect:
    """A function from prompts to answers.

    Args:
        answer: Takes a list of prompts, returns as many answers. What it raises is tried again
            twice, and then ends the session.
        batch: Prompts a call, >= 1.
    """

    def __init__(self, answer: Callable[[list[str]], list[str]], *, batch: int = 16) -> None:
        self._answer = answer
        self._batch = batch

    def ask(self, prompts: Sequence[Prompt], keep: Callable[[Attempt], None]) -> None:
        """Ask every prompt, a batch at a time.

        Raises:
            SuspectError: The function fails, or returns another number of answers.
        """
        for first in range(0, len(prompts), self._batch):
            part = prompts[first : first + self._batch]
            texts, tries = self._call([one.prompt for one in part])
            for prompt, text in zip(part, texts, strict=True):
                keep(answered(prompt, text, tries=tries))

    def _call(self, prompts: list[str]) -> tuple[list[str], int]:
        for number in range(1, _TRIES + 1):
            try:
                texts = list(self._answer(list(prompts)))
            except Exception as err:
                if number == _TRIES:
                    raise SuspectError(
                        f"the suspect's function fails ({type(err).__name__}); mend it, run again"
                    ) from err
                continue
            if len(texts) != len(prompts) or not all(isinstance(one, str) for one in texts):
                raise SuspectError(
                    f"the suspect's function gave {len(texts)} answers to {len(prompts)} prompts; "
                    "return one string each"
                )
            return texts, number
        raise AssertionError


class _Collected(msgspec.Struct, frozen=True):
    id: str
    answer: str
    plan: str
    model: str = ""


class CollectedSuspect:
    """A file of answers: JSONL with `id` of the prompt, `answer`, and `plan`, the plan's digest.

    Args:
        path: The file.
        plan_digest: The plan whose prompts were asked.

    Raises:
        AuditRunError: The file cannot be read, or holds answers to another plan.
    """

    def __init__(self, path: Path, plan_digest: str) -> None:
        self._answers: dict[str, _Collected] = {}
        try:
            lines = path.read_bytes().splitlines()
        except OSError as err:
            raise AuditRunError(f"cannot read {path}; correct the path") from err
        for number, line in enumerate(lines, start=1):
            try:
                one = msgspec.json.decode(line, type=_Collected)
            except (msgspec.DecodeError, UnicodeDecodeError):
                raise AuditRunError(
                    f"{path}:{number}: no object with id, answer and plan; correct the line"
                ) from None
            if one.plan != plan_digest:
                raise AuditRunError(
                    f"{path}:{number}: an answer to another plan, {one.plan[:12]!a}; give the "
                    f"answers to {plan_digest[:12]}"
                )
            self._answers.setdefault(one.id, one)

    def ask(self, prompts: Sequence[Prompt], keep: Callable[[Attempt], None]) -> None:
        """Hand over the answers that are there; the others count as failed."""
        for prompt in prompts:
            found = self._answers.get(prompt.id)
            if found is None:
                keep(Attempt(prompt=prompt.id, outcome=Outcome.FAILED, detail="not in the file"))
            else:
                keep(answered(prompt, found.answer, model=found.model))
