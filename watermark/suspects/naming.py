"""Whether answers bear the name of the model that an audit is about.

Rule 1: the plan's name binds from the first answer on. A model that is asked by an alias may
answer by its full name, which begins with the alias (`m` and `m-2026-01-31`); where it answers by
another altogether the plan says so (`answers_as`). Rule 2: the first name that was accepted is the
only one from then on. Rule 3: an answer without a name says nothing about it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from watermark.errors import SuspectError

if TYPE_CHECKING:
    from watermark.radioactivity import AuditPlan

_JOINTS: Final = ("-", "@", ":", "/", "_", ".")


@dataclass(slots=True)
class NameWatch:
    """The name of one model, as answers come in.

    Attributes:
        alias: The name it is asked by; empty for any.
        answers_as: The name that answers must bear; empty where the alias says it.
        first: The first name that was accepted; empty before.
    """

    alias: str = ""
    answers_as: str = ""
    first: str = ""

    @classmethod
    def of(cls, plan: AuditPlan, first: str, *, is_control: bool = False) -> NameWatch:
        """Return the watch of a plan; the clean model is another one, which the plan names not.

        Args:
            plan: The plan.
            first: The name that answers bear so far; empty where there are none.
            is_control: It is about the clean model.
        """
        if is_control:
            return cls(first=first)
        return cls(plan.model, plan.answers_as, first)

    def accepts(self, name: str) -> bool:
        """Return whether an answer of that name is the model's, and remember the first one."""
        if not name:
            return True
        is_same = name == self.first if self.first else self._is_planned(name)
        if is_same:
            self.first = name
        return is_same

    def refusal(self, name: str) -> SuspectError:
        """Return the error that says that another model answers."""
        if self.first:
            return SuspectError(
                f"the suspect answered as {self.first!a} and now answers as {name!a}: another "
                "model, whose answers do not count; ask for the first by its full name and run "
                "again, or plan an audit of the other"
            )
        return SuspectError(
            f"the plan is about {self.answers_as or self.alias!a} and the suspect answers as "
            f"{name!a}; ask the right server and run again, or plan again with --answers-as"
        )

    def _is_planned(self, name: str) -> bool:
        if self.answers_as:
            return name == self.answers_as
        longer = tuple(self.alias + joint for joint in _JOINTS)
        return not self.alias or name == self.alias or name.startswith(longer)
