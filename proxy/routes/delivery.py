"""What one answer hands over, for the ledger.

Rule 1: the beginning is written while the upstream works, and is durable before a token that was
chosen with the key leaves. Rule 2: a token counts once the transport has taken bytes that hold it.
Rule 3: while the ledger cannot be written nothing is marked: a reply under way goes on unmarked or
breaks off, as the operator says.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from proxy.errors import LedgerDownError
from watermark.errors import LedgerUnavailableError
from watermark.ledger import Delivered, Ending, Outcome, State
from watermark.text import WORDS_V1

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from proxy.sampling.questions import Path
    from proxy.sampling.serving import ServedModel
    from watermark.keys import KeyRecord
    from watermark.ledger import Entry, Fingerprinter, Ledger
    from watermark.wire.openai_answers import Piece
    from watermark.wire.openai_requests import GenerationRequest


class Said(Protocol):
    """A text of an answer, as far as the ledger has to know it."""

    @property
    def is_text(self) -> bool:
        """Whether its tokens are those of its text, because the upstream does not tell them."""
        ...

    @property
    def earlier(self) -> Container[tuple[int, ...]]:
        """Contexts spent before it began."""
        ...


class Stoppable(Said, Protocol):
    """A text that the proxy is choosing."""

    def stop_marking(self) -> None:
        """Choose what is left with private randomness alone."""
        ...


@dataclass(frozen=True, slots=True)
class PassedText:
    """A text that passed as the upstream wrote it."""

    earlier: Container[tuple[int, ...]]
    is_text: bool = True


@dataclass(slots=True)
class _Choice:
    """What was handed over of one choice."""

    pieces: list[Piece] = field(default_factory=list)

    def delivered(self, served: ServedModel, reply: Said) -> Delivered:
        """Return the tokens whose text was handed over; end tokens and held text are left out.

        An upstream that continues text does not tell its tokens: they are those of the text.
        """
        text = "".join(piece.text for piece in self.pieces)
        if reply.is_text:
            ids = served.unit.encode(text)
            return Delivered(tokens=ids.tolist(), units=lambda: ids, earlier=reply.earlier)
        first = self.pieces[0].text_offset if self.pieces else 0
        tokens = [
            piece.token
            for piece in self.pieces
            if piece.text_offset - first < len(text) and piece.token not in served.silent_ids
        ]
        if served.config.unit != WORDS_V1:
            return Delivered(tokens=tokens, units=lambda: tokens, earlier=reply.earlier)
        unit = served.unit
        return Delivered(tokens=tokens, units=lambda: unit.encode(text), earlier=reply.earlier)


class Delivery:
    """The entry of one answer, from its first draft to its last byte.

    Args:
        ledger: The ledger.
        served: The model.
        request: The request.
        path: How the mark gets in.
        account: Who is served; None for nobody known.
        passes_unmarked: Whether the answer goes on unmarked while the ledger cannot be written.

    Attributes:
        passes_unmarked: The same.
    """

    def __init__(
        self,
        ledger: Ledger | None,
        *,
        served: ServedModel,
        request: GenerationRequest,
        path: Path,
        account: str | None,
        passes_unmarked: bool,
    ) -> None:
        self._ledger = ledger
        self._served = served
        self._request = request
        self._path = path
        self._account = account
        self.passes_unmarked = passes_unmarked
        self._entry: Entry | None = None
        self._keyed: Fingerprinter | None = None
        self._digest = hashlib.sha256()
        self._n_bytes = 0
        self._choices: dict[tuple[int, bool], _Choice] = {}  # by choice, reasoning apart

    async def begin_durably(self, record: KeyRecord) -> None:
        """Write that an answer begins that an engine marks, and wait until it is on the disk.

        Raises:
            LedgerUnavailableError: It could not be written.
        """
        if self._ledger is not None:
            self.begin(self._ledger.fingerprinter(record))
            await self.durable()

    def begin(self, keyed: Fingerprinter) -> None:
        """Begin to write that the answer begins, unless that is done.

        Raises:
            LedgerUnavailableError: Nothing can be written now.
        """
        if self._ledger is None or self._entry is not None:
            return
        self._keyed = keyed
        self._entry = self._ledger.begin(
            account=self._account,
            opening=opening_of(self._request),
            keyed=keyed,
            tokenizer=self._served.tokenizer,
            model=self._request.model,
            path=self._path.value,
        )

    async def durable(self) -> None:
        """Wait until the beginning is on the disk.

        Raises:
            LedgerUnavailableError: It could not be written.
        """
        if self._entry is not None and not self._entry.durable.done():
            await asyncio.wrap_future(self._entry.durable)
        elif self._entry is not None:
            self._entry.durable.result()

    def check(self, replies: Sequence[Stoppable]) -> None:
        """Hold an answer under way to a ledger that broke meanwhile.

        Raises:
            LedgerDownError: The answer may not go on.
        """
        if self._ledger is None or self._entry is None:
            return
        if self._ledger.state is not State.BROKEN:
            return
        if not self.passes_unmarked:
            raise LedgerDownError
        for reply in replies:
            reply.stop_marking()

    def handed(self, data: bytes, pieces: Sequence[Piece] = ()) -> None:
        """Take note of bytes that the transport has taken, and of the tokens in them."""
        if self._ledger is None:
            return
        self._digest.update(data)
        self._n_bytes += len(data)
        for piece in pieces:
            place = (piece.choice, piece.is_reasoning)
            choice = self._choices.setdefault(place, _Choice())
            # Log-probabilities may be many, and are not kept.
            choice.pieces.append(replace(piece, report=None) if piece.report else piece)

    def end(self, replies: Sequence[Said], *, is_whole: bool) -> None:
        """Write what was handed over; once, and nothing where nothing began.

        Args:
            replies: The choices, as they were marked.
            is_whole: Whether the last byte was handed over.
        """
        entry, self._entry = self._entry, None
        if self._ledger is None or entry is None or self._keyed is None:
            return
        if _has_failed(entry):
            self._ledger.drop(entry)
            return
        choices = [
            self._choices[place, part].delivered(self._served, reply)
            for place, reply in enumerate(replies)
            for part in (True, False)
            if (place, part) in self._choices
        ]
        outcome = Outcome.FINISH if is_whole else Outcome.ABORT if self._n_bytes else Outcome.VOID
        ending = Ending(
            outcome=outcome,
            n_tokens=sum(len(choice.tokens) for choice in choices),
            n_bytes=self._n_bytes,
            digest=self._digest.digest(),
        )
        self._ledger.end(entry, ending, choices, self._keyed)


def _has_failed(entry: Entry) -> bool:
    """Return whether the beginning could not be written, so that there is nothing to end."""
    durable = entry.durable
    return durable.done() and isinstance(durable.exception(), LedgerUnavailableError)


def opening_of(request: GenerationRequest) -> bytes:
    """Return what a conversation begins with: equal for all its turns, and for none else's."""
    messages: list[Any] = []
    for message in request.body.get("messages") or []:
        if message.get("role") == "assistant":
            break
        messages.append(message)
    opening = messages or request.prompt or request.body
    said = [request.model, request.body.get("system"), opening]
    return msgspec.json.encode(said, order="deterministic")
