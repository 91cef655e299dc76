"""The figures: which cells each has, and what is measured in a cell."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from benchmarks.radioactivity.audits import WEIGHTINGS, Measured, closed, reading
from benchmarks.radioactivity.recipes import AnswersRecipe, StudentRecipe, TextRecipe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.radioactivity.laboratory import Laboratory

TEACHER: Final = "tinystories-ple-3.5M"
OTHER_STUDENT: Final = "stories260K"
SCHEMES: Final = ("copula", "green-list", "tournament")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How large everything is.

    Attributes:
        teacher: Name of the teacher's folder.
        base: Name of the student's folder.
        from_scratch: Whether students are trained from nothing.
        replies: Conversations in the training text.
        tokens: In each reply.
        epochs: Passes over the training text.
        rate: Peak learning rate.
        batch: Replies a step.
        answers: Asked of a student.
        answer_tokens: In each.
        seeds: Student seeds in the main cells, of width 2.
        other_seeds: In the others.
        widths: Context widths of the grid.
        shares: Of marked training text, in the main cells; 0 is the control.
        other_shares: In the others.
        rotations: Numbers of keys in rotation.
    """

    teacher: str = TEACHER
    base: str = TEACHER
    from_scratch: bool = False
    replies: int = 256
    tokens: int = 128
    epochs: int = 3
    rate: float = 2e-3
    batch: int = 16
    answers: int = 400
    answer_tokens: int = 100
    seeds: int = 5
    other_seeds: int = 5
    widths: tuple[int, ...] = (1, 2, 4)
    shares: tuple[float, ...] = (1.0, 0.5, 0.2, 0.1, 0.05, 0.0)
    other_shares: tuple[float, ...] = (1.0, 0.5, 0.2, 0.1, 0.05)
    rotations: tuple[int, ...] = (2, 4, 8)


FULL: Final = Scale()
QUICK: Final = Scale(
    replies=128,
    epochs=4,
    answers=128,
    seeds=3,
    other_seeds=1,
    shares=(1.0, 0.2, 0.0),
    other_shares=(1.0,),
    rotations=(4,),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One measurement.

    Attributes:
        figure: Its figure.
        labels: What it is called in the table.
        seed: Of the student.
        recipe: What is audited.
        audit: How it is audited; part of the cell's identity by its labels.
    """

    figure: int
    labels: dict[str, Any]
    seed: int
    recipe: AnswersRecipe
    audit: Callable[[Laboratory, AnswersRecipe], Measured]


class Grid:
    """Makes the cells of all figures at one scale."""

    def __init__(self, laboratory: Laboratory, scale: Scale) -> None:
        """Fix the models and sizes."""
        self.scale = scale
        self.teacher_weights = laboratory.weights(scale.teacher)
        self.base_weights = laboratory.weights(scale.base)
        self.other_weights = laboratory.weights(OTHER_STUDENT)

    def cells(self, figure: int) -> Iterator[Cell]:
        """Yield the cells of a figure, the most telling first."""
        of = {2: self._two, 3: self._three, 4: self._four, 5: self._five}
        return (of | {6: self._six, 7: self._seven})[figure]()

    def _answers(self, mark: str, width: int, share: float, seed: int) -> AnswersRecipe:
        scale = self.scale
        text = TextRecipe(
            teacher=scale.teacher,
            weights=self.teacher_weights,
            mark=mark,
            context_width=width,
            replies=scale.replies,
            tokens=scale.tokens,
            seed=seed,
        )
        student = StudentRecipe(
            text=text,
            share=share,
            base=scale.base,
            weights=self.base_weights,
            from_scratch=scale.from_scratch,
            epochs=scale.epochs,
            rate=scale.rate,
            batch=scale.batch,
            seed=seed,
        )
        return AnswersRecipe(
            student=student, answers=scale.answers, tokens=scale.answer_tokens, seed=seed
        )

    def _cell(
        self,
        figure: int,
        labels: dict[str, Any],
        recipe: AnswersRecipe,
        audit: Callable[[Laboratory, AnswersRecipe], Measured] = closed,
    ) -> Cell:
        seed = recipe.student.seed
        return Cell(figure=figure, labels=labels, seed=seed, recipe=recipe, audit=audit)

    def _two(self) -> Iterator[Cell]:
        scale = self.scale
        widths = sorted(scale.widths, key=lambda width: width != 2)
        for width in widths:
            is_main = width == 2
            shares = scale.shares if is_main else scale.other_shares
            for seed in range(scale.seeds if is_main else scale.other_seeds):
                marks = [*itertools.product(shares, SCHEMES)]
                marks += [(share, "gumbel") for share in shares if share and is_main]
                for share, mark in marks:
                    labels = {"width": width, "marked": share, "scheme": mark}
                    yield self._cell(2, labels, self._answers(mark, width, share, seed))

    def _three(self) -> Iterator[Cell]:
        for seed in range(self.scale.seeds):
            for share in self.scale.shares:
                for name, weights in WEIGHTINGS.items():
                    labels = {"marked": share, "contexts": name}
                    audit = _closed_with(weights)
                    yield self._cell(3, labels, self._answers("copula", 2, share, seed), audit)

    def _four(self) -> Iterator[Cell]:
        for seed in range(self.scale.seeds):
            for share in self.scale.shares:
                for name in ("argmax", "expectation"):
                    labels = {"marked": share, "reading": name}
                    recipe = self._answers("copula", 2, share, seed)
                    yield self._cell(4, labels, recipe, _reading_by(name))

    def _five(self) -> Iterator[Cell]:
        for seed in range(self.scale.other_seeds):
            for share in self.scale.shares[:2]:
                for mark in ("copula", "select"):
                    labels = {"marked": share, "path": mark}
                    yield self._cell(5, labels, self._answers(mark, 2, share, seed))

    def _six(self) -> Iterator[Cell]:
        for seed in range(self.scale.other_seeds):
            for mark, width in (("copula", 2), ("words", 1), ("words", 2)):
                unit = "words/v1" if mark == "words" else "teacher's tokens"
                recipe = self._answers(mark, width, 1.0, seed)
                student = replace(
                    recipe.student, base=OTHER_STUDENT, weights=self.other_weights, rate=3e-3
                )
                recipe = replace(recipe, student=student, tokens=2 * recipe.tokens)
                labels = {"student": OTHER_STUDENT, "unit": unit, "width": width}
                yield self._cell(6, labels, recipe)

    def _seven(self) -> Iterator[Cell]:
        for seed in range(self.scale.other_seeds):
            recipe = self._answers("copula", 2, 1.0, seed)
            yield self._cell(7, {"student": "as it is"}, recipe)
            student = recipe.student
            cleaned = replace(recipe, student=replace(student, clean_epochs=1))
            yield self._cell(7, {"student": "1 further epoch on clean text"}, cleaned)
            for share in (0.1, 0.3):
                edited = replace(recipe, student=replace(student, replaced=share))
                yield self._cell(7, {"student": f"{share:.0%} of words replaced"}, edited)
            for n_keys in self.scale.rotations:
                text = replace(student.text, n_keys=n_keys)
                rotated = replace(recipe, student=replace(student, text=text))
                yield self._cell(7, {"student": f"{n_keys} keys in rotation"}, rotated)


def _closed_with(weights: Any) -> Callable[[Laboratory, AnswersRecipe], Measured]:
    return lambda laboratory, recipe: closed(laboratory, recipe, weights=weights)


def _reading_by(name: str) -> Callable[[Laboratory, AnswersRecipe], Measured]:
    return lambda laboratory, recipe: reading(laboratory, recipe.student, argmax=name == "argmax")
