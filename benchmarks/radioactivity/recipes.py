"""What texts, students and answers are made of: everything that decides them, and its digest.

A recipe names its inputs by their recipes, down to the digest of the teacher's weights, so that
equal digests mean equal files, on any machine and in any run.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from typing import Final

VERSION: Final = 1
"""Part of every digest; one more whenever the code makes other things of a recipe."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextRecipe:
    """Replies of a teacher.

    Attributes:
        teacher: Name of the model's folder.
        weights: First digits of its digest.
        mark: `copula`, `gumbel`, `select`, `words`, `green-list`, `tournament` or `none`.
        context_width: Of the mark.
        n_keys: Keys in rotation; reply i is marked by key i modulo their number.
        replies: How many, one a prompt.
        tokens: In each.
        prompt_tokens: In each prompt.
        skip_prompts: Stories left out before the first prompt.
        temperature: Of sampling.
        top_k: Candidates left; 0 for all.
        seed: Of keys and draws.
    """

    teacher: str
    weights: str
    mark: str
    context_width: int = 2
    n_keys: int = 1
    replies: int = 200
    tokens: int = 160
    prompt_tokens: int = 16
    skip_prompts: int = 0
    temperature: float = 1.0
    top_k: int = 100
    seed: int = 0

    def unmarked(self) -> TextRecipe:
        """Return the same replies without a mark."""
        return replace(self, mark="none", context_width=0, n_keys=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class StudentRecipe:
    """A model, trained on a teacher's replies.

    Attributes:
        text: The marked replies; the others are the same teacher's, unmarked.
        share: Of the training text that is marked, in 0..1.
        base: Name of the model's folder.
        weights: First digits of its digest.
        from_scratch: Whether its weights are drawn anew.
        replaced: Share of the words of the training text that are replaced at random.
        epochs: Passes over the training text.
        clean_epochs: Further passes, over unmarked text of other prompts.
        rate: Peak learning rate.
        batch: Replies a step.
        seed: Of order, replaced words and initial weights.
    """

    text: TextRecipe
    share: float
    base: str
    weights: str
    from_scratch: bool = False
    replaced: float = 0.0
    epochs: int = 3
    clean_epochs: int = 0
    rate: float = 1e-3
    batch: int = 16
    seed: int = 0

    def alike(self) -> StudentRecipe:
        """Return the recipe of the same student: where nothing is marked, the mark is no matter."""
        return self if self.share else replace(self, text=self.text.unmarked())


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswersRecipe:
    """What a student says when it is asked.

    Attributes:
        student: Who is asked.
        answers: How many, over first-turn prompts of the delivered conversations in turn.
        tokens: In each.
        temperature: Of sampling, from the whole distribution.
        seed: Of draws and of the order of prompts.
    """

    student: StudentRecipe
    answers: int = 300
    tokens: int = 100
    temperature: float = 1.0
    seed: int = 0

    def alike(self) -> AnswersRecipe:
        """Return the recipe of the same answers."""
        return replace(self, student=self.student.alike())


Recipe = TextRecipe | StudentRecipe | AnswersRecipe


def digest(recipe: Recipe) -> str:
    """Return the name of what a recipe makes."""
    what = {"version": VERSION, "kind": type(recipe).__name__, **asdict(recipe)}
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:24]
