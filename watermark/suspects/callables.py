"""Suspects that are no server: any Python function, and answers that somebody collected."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from watermark.errors import AuditRunError, SuspectError
from watermark.suspects.answers import Attempt, Outcome, answered
from watermark.suspects.folder import PROMPTS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from watermark.suspects.answers import Prompt
    from watermark.suspects.folder import AuditFolder

COLLECTED: Final = "answers collected before"
"""How reports say that nobody was asked."""
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
    """A file of answers that were collected elsewhere.

    JSONL: `id` of the prompt, `answer`, and `plan`, the digest of the plan whose prompt it answers,
    so that nobody takes answers for those of another plan; and `model`, the name that the answer
    bears, where that is known. Each prompt is answered once: of several answers somebody would
    choose.

    Args:
        path: The file.
        folder: The audit whose prompts were asked.

    Raises:
        AuditRunError: The file cannot be read, or holds no answers, answers to another plan, to no
            prompt of this one, or two to one.
        AuditPlanError: The prompts are not those of the plan.
    """

    def __init__(self, path: Path, folder: AuditFolder) -> None:
        self._answers: dict[str, _Collected] = {}
        prompts = {one.id for one in folder.prompts()}
        try:
            lines = path.read_bytes().splitlines()
        except OSError as err:
            raise AuditRunError(f"cannot read {path}; correct the path") from err
        for number, line in enumerate(lines, start=1):
            one = _collected(line, folder.digest, f"{path}:{number}")
            if one.id not in prompts or one.id in self._answers:
                what = "a second answer to" if one.id in prompts else "an answer to"
                why = "one answer each" if one.id in prompts else f"no id in {PROMPTS}"
                raise AuditRunError(
                    f"{path}:{number}: {what} prompt {one.id!a} ({why}); correct the line, or take "
                    "it out"
                )
            self._answers[one.id] = one
        if not self._answers:
            raise AuditRunError(f"{path} holds no answers; give the file that was collected")

    def ask(self, prompts: Sequence[Prompt], keep: Callable[[Attempt], None]) -> None:
        """Hand over the answers that are there; the others count as failed."""
        for prompt in prompts:
            found = self._answers.get(prompt.id)
            if found is None:
                keep(Attempt(prompt=prompt.id, outcome=Outcome.FAILED, detail="not in the file"))
            else:
                keep(answered(prompt, found.answer, model=found.model))


def _collected(line: bytes, plan_digest: str, where: str) -> _Collected:
    """Return an answer to a plan.

    Raises:
        AuditRunError: It is none, or one to another plan.
    """
    try:
        one = msgspec.json.decode(line, type=_Collected)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise AuditRunError(
            f'{where}: no object with "id", "answer" and "plan", the digest that `watermark audit '
            "plan` printed; correct the line"
        ) from None
    if one.plan != plan_digest:
        raise AuditRunError(
            f"{where}: an answer to another plan, {one.plan[:12]!a}; give the answers to "
            f"{plan_digest[:12]}"
        )
    return one
