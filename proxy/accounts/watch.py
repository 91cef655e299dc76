"""What is noted of accounts, so that harvests can be seen: counts and keyed digests, no text.

Rule 1: nothing here slows or changes an answer; what cannot be noted is not. Rule 2: a prompt
leaves three short keyed digests (its first words, its last words, its system prompt), a reply a
keyed sketch of its contexts; neither gives a word back. Rule 3: it informs, and judges nobody.
"""

from __future__ import annotations

import hashlib
import hmac
import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from proxy.accounts import sketch
from proxy.accounts.pauses import DAY_S
from watermark.seeding import ContextPRF
from watermark.wire.features import Feature

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from proxy.accounts.book import Caller
    from watermark.wire.openai_requests import GenerationRequest

LONG_TOKENS: Final = 512
TRAIT_KINDS: Final = ("key", "first-words", "last-words", "system-prompt")
_WORDS: Final = 5
_LOOK_CHARS: Final = 400  # as far as words are looked for
_MOST_TRAITS: Final = 1024  # noted of an account between two flushes
_MOST_ACCOUNTS: Final = 1 << 16  # noted between two flushes; the rest is counted by the door alone
_MOST_ARRIVALS: Final = 1024  # noted of an account between two flushes
_LABEL: Final = b"output-watermark/accounts/watch/v1"


@dataclass(slots=True)
class Notes:
    """What one account did on one day, as far as it is not written down yet.

    Attributes:
        requests: Requests let in.
        reasoning: Those that asked for a reasoning trace.
        replies: Marked replies.
        tokens: Their tokens.
        long_replies: Those of at least `LONG_TOKENS`.
        arrivals: When requests came, in seconds since the epoch.
        first_s: The first request, in seconds since the epoch.
        last_s: The last one.
        reasons: Decisions, by reason.
        traits: How often each (kind, digest) came.
        registers: The sketch of delivered contexts.
    """

    requests: int = 0
    reasoning: int = 0
    replies: int = 0
    tokens: int = 0
    long_replies: int = 0
    arrivals: list[float] = field(default_factory=list)
    first_s: float = 0.0
    last_s: float = 0.0
    reasons: Counter[str] = field(default_factory=Counter)
    traits: Counter[tuple[str, str]] = field(default_factory=Counter)
    registers: sketch.Registers = field(default_factory=sketch.empty)


class Watch:
    """Takes notes in one process; a store takes them from it."""

    def __init__(self, digest_key: bytes) -> None:
        """Derive the keys of the digests and of the sketch."""
        self._key = hmac.digest(digest_key, _LABEL, hashlib.sha256)
        self._prf = ContextPRF(hmac.digest(self._key, b"contexts", hashlib.sha256)[:16])
        self._notes: dict[tuple[str, int], Notes] = {}
        self._last: dict[str, float] = {}
        self._lock = threading.Lock()

    def take(self) -> dict[tuple[str, int], Notes]:
        """Return the notes by account and day, and begin anew."""
        with self._lock:
            notes, self._notes = self._notes, {}
        if len(self._last) > _MOST_ACCOUNTS:
            self._last.clear()
        return notes

    def asked(self, caller: Caller, request: GenerationRequest | None, *, now: float) -> None:
        """Note a request that was let in; None for one that was not read."""
        with self._lock:
            notes = self._of(caller.name, now)
            if notes is None:
                return
            notes.requests += 1
            notes.first_s = notes.first_s or now
            notes.last_s = self._last[caller.name] = now
            if len(notes.arrivals) < _MOST_ARRIVALS:
                notes.arrivals.append(now)
            self._note_traits(notes, caller, request)

    def _note_traits(self, notes: Notes, caller: Caller, request: GenerationRequest | None) -> None:
        traits = [("key", caller.digest.removeprefix("key:"))] if caller.digest else []
        if request is not None:
            notes.reasoning += Feature.REASONING in request.features
            traits += [(kind, self._digest(kind, text)) for kind, text in _traits_of(request)]
        for trait in traits:
            if trait in notes.traits or len(notes.traits) < _MOST_TRAITS:
                notes.traits[trait] += 1

    def decided(self, caller: Caller, reason: str) -> None:
        """Note whether a request is marked, or why not."""
        with self._lock:
            notes = self._of(caller.name, self._last.get(caller.name, 0.0))
            if notes is not None:
                notes.reasons[reason] += 1

    def delivered(self, caller: Caller, tokens: Sequence[int], context_width: int) -> None:
        """Note a marked reply."""
        with self._lock:
            notes = self._of(caller.name, self._last.get(caller.name, 0.0))
            if notes is not None:
                notes.replies += 1
                notes.tokens += len(tokens)
                notes.long_replies += len(tokens) >= LONG_TOKENS
                sketch.add_contexts(notes.registers, self._prf, tokens, context_width)

    def _of(self, account: str, now: float) -> Notes | None:
        """Return the notes of an account for a day, None where there is nobody or no room."""
        place = (account, int(now // DAY_S))
        found = self._notes.get(place)
        if found is None and account and len(self._notes) < _MOST_ACCOUNTS:
            found = self._notes[place] = Notes()
        return found

    def _digest(self, kind: str, text: str) -> str:
        data = f"{kind}\0{text}".encode(errors="surrogatepass")
        return hmac.digest(self._key, data, hashlib.sha256).hex()[:16]


def _traits_of(request: GenerationRequest) -> Iterator[tuple[str, str]]:
    """Yield what a template leaves the same from one prompt to the next."""
    messages = request.messages
    asked = [one.text or "" for one in messages if one.role == "user"]
    prompt = asked[-1] if asked else request.prompt
    if isinstance(prompt, str) and prompt.strip():
        yield "first-words", " ".join(prompt[:_LOOK_CHARS].casefold().split()[:_WORDS])
        yield "last-words", " ".join(prompt[-_LOOK_CHARS:].casefold().split()[-_WORDS:])
    system = "\n".join(one.text or "" for one in messages if one.role in {"system", "developer"})
    if system:
        yield "system-prompt", system
