"""The models in force: replaced whole, as keys are; a request keeps what it began with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from proxy.config import ModelConfig
    from proxy.sampling.keys import KeyedModel

    Take = Callable[[Sequence[ModelConfig]], object]


class ModelHolder:
    """Holds what the config says of the models, once probed.

    Attributes:
        current: The models in force.
        declared: The same as they were read, before their probes.
        keyed: What the keys have to mark of them.
        error: Why the last reload was refused; empty where it was not.
    """

    def __init__(
        self,
        models: Sequence[ModelConfig],
        keyed: Sequence[KeyedModel],
        *,
        declared: Sequence[ModelConfig],
    ) -> None:
        """Begin with models."""
        self.current = tuple(models)
        self.declared = tuple(declared)
        self.keyed = tuple(keyed)
        self.error = ""
        self._takers: list[Take] = []

    def follow(self, take: Take) -> None:
        """Have somebody told of models before they come into force; he may refuse by an error."""
        self._takers.append(take)

    def replace(
        self,
        models: Sequence[ModelConfig],
        keyed: Sequence[KeyedModel],
        *,
        declared: Sequence[ModelConfig],
    ) -> None:
        """Put models in force; requests under way keep those that they began with."""
        for take in self._takers:
            take(models)
        self.current, self.keyed = tuple(models), tuple(keyed)
        self.declared = tuple(declared)
        self.error = ""

    def refuse(self, error: str) -> None:
        """Stay with the models in force and remember why."""
        self.error = error


@dataclass(frozen=True, slots=True)
class KeyedNow:
    """What the keys have to mark, of the models that are in force whenever it is asked."""

    holder: ModelHolder

    def __iter__(self) -> Iterator[KeyedModel]:
        """Go through them."""
        return iter(self.holder.keyed)
