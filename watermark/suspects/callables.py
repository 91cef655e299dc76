"""Suspects that are no server: any Python function, and answers that somebody collected."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from watermark.errors import AuditRunError, SuspectError
from watermark.suspects.answers import Attempt, Outcome, answered
from watermark.suspects.folder import PROMPTS
from watermark.suspects.standing import Standing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from watermark.suspects.answers import Prompt
    from watermark.suspects.folder import AuditFolder

COLLECTED: Final = "answers collected before"
"""How reports say that nobody was asked."""
_TRIES: Final = 3


class CallableSuspect:
    """A function from prompts to answers.

    Args:
        answer: Takes a list of prompts, returns as many answers. Where it raises, it is called
            again, at most twice, then with each prompt by itself, so that one prompt that it does
            not take, or a function that fails at random, costs no other prompt its answer.
        batch: Prompts a call, >= 1.

    Attributes:
        standing: Whether it answers at all.
    """

    def __init__(self, answer: Callable[[list[str]], list[str]], *, batch: int = 16) -> None:
        self._answer = answer
        self._batch = batch
        self.standing = Standing(
            remedy="mend the suspect's function, and run again",
            refused="mend the suspect's function, and run again",
        )

    def ask(self, prompts: Sequence[Prompt], keep: Callable[[Attempt], None]) -> None:
        """Ask every prompt, a batch at a time.

        Raises:
            SuspectError: The function fails at five prompts in a row, or answers none with text,
                or returns another number of answers.
        """
        batches = (prompts[i : i + self._batch] for i in range(0, len(prompts), self._batch))
        attempts = (attempt for batch in batches for attempt in self._ask_batch(batch))
        self.standing.take_all(attempts, keep)

    def _ask_batch(self, prompts: Sequence[Prompt], n_before: int = 0) -> Iterator[Attempt]:
        """Give attempts as they end: of all prompts together, else of each by itself."""
        called = self._call([one.prompt for one in prompts])
        tries = n_before + called.tries
        if called.texts is not None:
            for prompt, text in zip(prompts, called.texts, strict=True):
                yield answered(prompt, text, tries=tries)
        elif len(prompts) > 1:
            for one in prompts:
                yield from self._ask_batch([one], tries)
        else:
            failed = Outcome.FAILED
            yield Attempt(prompt=prompts[0].id, outcome=failed, tries=tries, detail=called.failure)

    def _call(self, prompts: list[str]) -> _Called:
        """Call the function until it returns, within bounds.

        Of what it raises only the class is kept: the message may hold anybody's text.
        """
        failure = ""
        for number in range(1, _TRIES + 1):
            try:
                texts = list(self._answer(list(prompts)))
            except Exception as err:  # noqa: BLE001 - a function raises whatever comes up
                failure = type(err).__name__
                continue
            if len(texts) != len(prompts) or not all(isinstance(one, str) for one in texts):
                raise SuspectError(
                    f"the suspect's function gave {len(texts)} answers to {len(prompts)} prompts; "
                    "return one string each"
                )
            return _Called(texts, number)
        return _Called(None, _TRIES, failure)


class _Called(NamedTuple):
    texts: list[str] | None
    tries: int
    failure: str = ""


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
