"""What may be scored in an audit: the lemma, in one place.

Let V be all contexts at which the keyed function was evaluated to make anything that the design
uses: prompts and the choice of prompts, whatever the suspect was given, weights, n, stopping.
**Lemma (deferred decisions).** Under the null the suspect knows the key only through what it was
given. Reveal the keyed function at V first: everything that the suspect says is then fixed up to
coins of its own, and at contexts outside V the function is still to be drawn. The scores of
distinct (context, token) pairs whose context lies outside V are therefore independent Exp(1),
given all that has gone before.

Three consequences are enforced here, and nowhere else:

Rule 1: in a closed audit no context is scored that occurs in any prompt of the plan, whenever it
is sent. Rule 2: in reading mode a context is scored where it is first met in the whole audit:
what is read was made with the key at every context read before, the suspect's choice may depend
on all of it, and at a context that is met for the first time the function is still to be drawn.
Rule 3: delivered text is cut only where what came after had no say in what came before.
`native` and `splice` choose token by token, so any cut will do. `select` chooses a chunk by the
scores inside it, so that only the ends of chunks are left; `reply` chooses by the whole reply, so
that nothing is.

Of rule 3, `select`: candidates that lost were scored too, at contexts that nobody kept. A cut at
the end of a chunk is free of what was delivered later, not of those. They lost because their scores
were low, so that p errs upward where a suspect says the like: measured, .03 at a nominal .05.

Source: the project's design; `tests/watermark/radioactivity/test_null.py` breaks each rule.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from watermark.detection.distinct_pairs import context_identities
from watermark.errors import AuditDesignError
from watermark.schemes import all_windows, text_identities
from watermark.seeding import context_windows, first_occurrences

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray


class Path(enum.StrEnum):
    """How delivered text was marked, which says where it may be cut."""

    UNMARKED = "unmarked"
    NATIVE = "native"
    SPLICE = "splice"
    SELECT = "select"
    REPLY = "reply"


_ANYWHERE: Final = frozenset({Path.UNMARKED, Path.NATIVE, Path.SPLICE})


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Passage:
    """One delivered reply, with what stood before it in its conversation.

    Attributes:
        ids: Its units, shape (n,).
        path: How it was marked.
        chunk_ends: Of `select`: after how many units each chunk ended, ascending.
        before: Units of the turns before it.
    """

    ids: NDArray[np.uint32]
    path: Path
    chunk_ends: tuple[int, ...] = ()
    before: tuple[NDArray[np.uint32], ...] = ()

    def __repr__(self) -> str:
        """Show nothing of the text."""
        return f"<Passage {self.path.value} of {len(self.ids)} units>"

    def may_be_cut(self) -> NDArray[np.bool_]:
        """Return after how many units the passage may be cut, shape (n + 1,) (rule 3)."""
        allowed = np.full(len(self.ids) + 1, self.path in _ANYWHERE)
        allowed[0] = True
        if self.path is Path.SELECT:
            allowed[[end for end in self.chunk_ends if end <= len(self.ids)]] = True
        return allowed

    def prefix(self, n_units: int) -> NDArray[np.uint32]:
        """Return the first units, to be sent as a prompt at a cut that was fixed beforehand.

        Raises:
            AuditDesignError: What comes after had a say in what comes before.
        """
        if not 0 <= n_units <= len(self.ids) or not self.may_be_cut()[n_units]:
            raise AuditDesignError(
                f"a reply of path {self.path.value!r} cannot be cut after {n_units} units; cut "
                "`select` at the end of a chunk, `reply` never, and others within their length"
            )
        return self.ids[:n_units]


class View:
    """The contexts that are in view of a suspect; grows with what it is given."""

    __slots__ = ("_known", "context_width")

    def __init__(self, context_width: int, texts: Iterable[NDArray[np.uint32]] = ()) -> None:
        """Begin with the texts that are given in any case: all prompts of the plan (rule 1).

        Args:
            context_width: Units in a context, 1..4.
            texts: Their units.
        """
        self.context_width = context_width
        self._known: set[int] = set(context_identities(texts, context_width).tolist())

    def __len__(self) -> int:
        """Return how many contexts are in view."""
        return len(self._known)

    def hides(self, contexts: NDArray[np.uint32]) -> NDArray[np.bool_]:
        """Return which contexts, shape (n, context_width), are in view already."""
        known = self._known
        return np.array([one in known for one in text_identities(contexts).tolist()], np.bool_)

    def read(self, passage: Passage) -> NDArray[np.int64]:
        """Return the positions of a passage that count (rules 2 and 3), and take it into view.

        A position counts where its context, all of it in the reply, is met for the first time in
        the audit, and where the passage may be cut before it.
        """
        self._take(passage.before)
        width = self.context_width
        contexts = context_windows(passage.ids, width)
        counts = first_occurrences(text_identities(contexts)) & ~self.hides(contexts)
        counts &= passage.may_be_cut()[width:-1]
        self._take([passage.ids])
        return np.flatnonzero(counts) + width

    def _take(self, texts: Iterable[NDArray[np.uint32]]) -> None:
        for ids in texts:
            if len(ids):
                windows = all_windows(ids, self.context_width)
                self._known.update(text_identities(windows).tolist())
