"""What a suspect said when it was asked, and what kind of answer that is.

Rule 1: whatever text a suspect wrote counts, refusals, repeats and other languages too: under the
null its scores are as good as any, and a repeat is scored once. Rule 2: what it did not write, or
what another model wrote, never counts. Rule 3: kinds are told by the text alone, for the report;
nothing is asked again because of what it says.
"""

from __future__ import annotations

import enum
import re
import unicodedata
from collections import Counter
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from watermark.errors import SuspectError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MAX_CHARACTERS: Final = 100_000
"""An answer's first characters count; whoever says more adds nothing."""


class Outcome(enum.StrEnum):
    """How asking one prompt ended."""

    ANSWER = "answer"
    EMPTY = "empty"
    """It answered with nothing, however often it was asked."""
    OTHER_MODEL = "other-model"
    """Another model's name stands in the answer: it is kept, does not count, and is asked again."""
    TOO_LARGE = "too-large"
    """The answer was given up after too many bytes."""
    UNANSWERABLE = "unanswerable"
    """The server takes other prompts, and this one never (status 400, 413, 422)."""
    FAILED = "failed"
    """No answer within the tries; asked again by the next run."""


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """One prompt of a plan.

    Attributes:
        id: Names it in the plan's file.
        prompt: What is sent.
    """

    id: str
    prompt: str


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """How asking one prompt ended.

    Attributes:
        prompt: Its id.
        outcome: How.
        text: What the suspect wrote; empty where nothing.
        model: The name that the answer bears; empty where it bears none.
        prompt_tokens: Tokens that were billed for the prompt, over all tries.
        completion_tokens: Tokens that were billed for answers, over all tries.
        tries: Requests that it took.
        is_estimated: Whether the server did not say what it billed, so that tokens are a guess.
        detail: What went wrong, without any text of the suspect's.
    """

    prompt: str
    outcome: Outcome
    text: str = ""
    model: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    tries: int = 1
    is_estimated: bool = False
    detail: str = ""

    @property
    def is_final(self) -> bool:
        """Whether the prompt need not be asked again."""
        return self.outcome not in {Outcome.FAILED, Outcome.OTHER_MODEL}

    @property
    def counts(self) -> bool:
        """Whether its text is scored (rules 1 and 2)."""
        return self.outcome is Outcome.ANSWER


class Suspect(Protocol):
    """Whoever answers prompts."""

    def ask(self, prompts: Sequence[Prompt], keep: Callable[[Attempt], None]) -> None:
        """Ask every prompt once, handing over each attempt as it ends, in any order.

        Raises:
            SuspectError: It makes no sense to go on; what was handed over stays valid.
        """
        ...


def answered(prompt: Prompt, text: str, **facts: object) -> Attempt:
    """Return the attempt of a suspect that wrote something, or nothing."""
    text = text.encode("utf-8", "replace").decode()[:MAX_CHARACTERS]  # no half surrogate pairs
    outcome = Outcome.ANSWER if text.strip() else Outcome.EMPTY
    known = {"prompt": prompt.id, "outcome": outcome, "text": text} | facts
    return msgspec.convert(known, Attempt)


_REFUSAL: Final = re.compile(
    r"\W*(i['\u2019]?m (?:very )?sorry|sorry\b|as an ai\b|unfortunately, i\b|"
    r"i (?:cannot|can['\u2019]?t|won['\u2019]?t|am unable|am not able))",
    re.IGNORECASE,
)


def is_refusal(text: str) -> bool:
    """Return whether an English text begins as refusals do; a count for the report, no more."""
    return _REFUSAL.match(text) is not None


def script_of(text: str) -> str:
    """Return the script of most letters, in Unicode's word, such as LATIN; empty without any."""
    counts = Counter(
        unicodedata.name(one, "").partition(" ")[0] for one in text[:4000] if one.isalpha()
    )
    return counts.most_common(1)[0][0] if counts else ""


def check_answered(attempts: Sequence[Attempt]) -> None:
    """Refuse a session in which nothing came to its end.

    Raises:
        SuspectError: It is one.
    """
    if attempts and not any(one.is_final for one in attempts):
        raise SuspectError(
            f"the suspect answered none of {len(attempts)} prompts; run the command again once it "
            "is up"
        )


def last_of_each(attempts: Sequence[Attempt]) -> list[Attempt]:
    """Return the last attempt of each prompt."""
    return list({one.prompt: one for one in attempts}.values())


def count_kinds(prompts: Sequence[Prompt], attempts: Sequence[Attempt]) -> dict[str, int]:
    """Return how many attempts were of which kind: outcomes, and kinds of text among answers.

    Args:
        prompts: Of the plan.
        attempts: The last one of each prompt that was asked.
    """
    scripts = {one.id: script_of(one.prompt) for one in prompts}
    counts = Counter(one.outcome.value for one in attempts)
    texts = Counter(one.text for one in attempts if one.counts)
    counts["repeated"] = sum(number - 1 for number in texts.values())
    for one in attempts:
        if one.counts:
            counts["refusal"] += is_refusal(one.text)
            counts["other-script"] += script_of(one.text) != scripts.get(one.prompt, "")
        counts["retried"] += one.tries > 1
        counts["tokens-estimated"] += one.is_estimated
    return {name: number for name, number in sorted(counts.items()) if number}
