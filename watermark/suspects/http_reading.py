"""Reading mode over HTTP: any server with OpenAI's completions and `logprobs`.

What the server can do is found out with the first text, the cheapest way first: the text echoed
with its candidates at every position, one request a text (`echo`; vLLM's `prompt_logprobs`);
else each prefix is asked for one token, many prefixes a request, which a prefix cache makes
bearable. Texts go as text: the suspect's tokenizer is its own business.

Rule 1: a server adds the token that stands in the text to the list of a position where it is not
among the first, and that token knows the key. So only candidates above the last place of the
shortest list count (`told_apart`), which are the same whatever stands there. Rule 2: requests go
through the same line as questions: tries, rate, time and number at once are those of closed access.
Rule 3: a text that the server does not take, while it takes a sentence of ours, is that text's
fault: nothing is known of it, and reading goes on.

Source: OpenAI API reference, Completions; vLLM, `prompt_logprobs` in its extra parameters.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import msgspec

from watermark.errors import SuspectError
from watermark.suspects.client import OF_A_PROMPT, ApiSettings, Line, TryAgainError
from watermark.suspects.dialects import Dialect, billed_tokens
from watermark.suspects.naming import NameWatch
from watermark.suspects.spending import estimated_tokens

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping, Sequence

    import httpx2

    from watermark.suspects.reading import Candidates, Told

_PREFIXES: Final = 32
_ECHO: Final = "echo"
_PROMPT_LOGPROBS: Final = "prompt_logprobs"
_BY_PREFIXES: Final = "prefixes"
_WAYS: Final = (  # with the length of a list; OpenAI gives 5 at most
    (_ECHO, 20),
    (_PROMPT_LOGPROBS, 20),
    (_ECHO, 5),
    (_BY_PREFIXES, 20),
    (_BY_PREFIXES, 5),
)
_LEAST_MET: Final = 0.5
"""Of an echo's tokens, the share that must stand in the text where the server says."""

_SENTENCE: Final = "The cat sat on the mat, and the dog lay down by the door."

Lists = list[tuple[int, dict[str, float]]]
"""Positions in a text, in characters, and how likely each string comes there, as logarithms."""


class _Logprobs(msgspec.Struct):
    top_logprobs: list[dict[str, float] | None]
    tokens: list[str] = []
    text_offset: list[int] = []


class _Candidate(msgspec.Struct):
    logprob: float
    decoded_token: str | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    logprobs: _Logprobs | None = None
    prompt_logprobs: list[dict[str, _Candidate] | None] | None = None


class _Completion(msgspec.Struct):
    choices: list[_Choice]
    model: str | None = None
    usage: Any = None


class _NotTakenError(Exception):
    """The server refuses the form of a request, or says far too much."""


class HttpReader:
    """One model of one server.

    Args:
        settings: How it is asked; of the dialects it must speak completions.
        transport: What carries requests; None for the network.

    Attributes:
        model: The name that its answers bear; empty where they bear none.
        billed: Tokens so far, of prompts and of answers.
        is_estimated: Whether some of them are a guess, because the server did not say.
        at_once: Texts that it is worth giving together.
    """

    def __init__(
        self, settings: ApiSettings, transport: httpx2.AsyncBaseTransport | None = None
    ) -> None:
        self._line = Line(replace(settings, dialect=Dialect.COMPLETIONS), transport)
        self._ways: tuple[tuple[str, int], ...] = _WAYS
        self._works = False
        self._watch = NameWatch()
        self.model = ""
        self.billed = (0, 0)
        self.is_estimated = False
        self.at_once = settings.concurrency

    def next_tokens(self, text: str, places: Sequence[int]) -> list[Candidates | None]:
        """Return what may come after the first characters of a text (see `reading.Reader`).

        Raises:
            SuspectError: The server cannot be reached, or gives no candidates.
        """
        (found,) = self.next_tokens_of([(text, places)])
        if isinstance(found, SuspectError):
            raise found
        return [None] * len(places) if found is None else found

    def next_tokens_of(self, texts: Sequence[tuple[str, Sequence[int]]]) -> list[Told]:
        """Return what reading each of several texts came to, which are asked together.

        The list ends with the first error where the server was not known to work before.
        """
        return asyncio.run(self._of_all(texts))

    async def _of_all(self, texts: Sequence[tuple[str, Sequence[int]]]) -> list[Told]:
        free = asyncio.Semaphore(self._line.settings.concurrency)
        first = 0 if self._works else 1  # it shows what the server can do
        async with self._line.client() as client:
            found = [await _held(self._of_one(client, free, *one)) for one in texts[:first]]
            if not self._works:
                return found
            return [
                *found,
                *await asyncio.gather(
                    *(_held(self._of_one(client, free, *one)) for one in texts[first:])
                ),
            ]

    async def _of_one(
        self,
        client: httpx2.AsyncClient,
        free: asyncio.Semaphore,
        text: str,
        places: Sequence[int],
    ) -> list[Candidates | None] | None:
        """Return candidates; None where the text is not taken (rule 3)."""
        found = await self._by_ways(client, free, text, places)
        if found is not None:
            return found
        ends = [place for place, one in enumerate(_SENTENCE) if one == " "]
        if await self._by_ways(client, free, _SENTENCE, ends) is None:
            raise SuspectError(
                "the suspect gives no distributions; it must have completions with logprobs, or "
                "audit it closed"
            )
        return None

    async def _by_ways(
        self,
        client: httpx2.AsyncClient,
        free: asyncio.Semaphore,
        text: str,
        places: Sequence[int],
    ) -> list[Candidates | None] | None:
        """Return candidates by the first way that gives some; None where no way does."""
        for number, (way, n_listed) in enumerate(self._ways):
            asked = _Asked(self, client, free, n_listed)
            try:
                if way == _BY_PREFIXES:
                    found = await asked.by_prefixes(text, places)
                else:
                    lists = await asked.echoed(text, way)
                    found = None if lists is None else _at(text, places, lists)
            except _NotTakenError:
                if self._works:  # dearer ways would only be refused too
                    return None
                continue
            if found is not None:
                self._ways = self._ways if self._works else self._ways[number:]
                self._works = True
                return found
        return None

    async def complete(
        self, client: httpx2.AsyncClient, prompt: str | list[str], extra: Mapping[str, object]
    ) -> _Completion:
        """Return an answer.

        Raises:
            SuspectError: There is none within the tries, or the server refuses for good.
            _NotTakenError: The server refuses the form, or says far too much.
        """
        settings, reasons = self._line.settings, [""]
        body = {"model": settings.model, "prompt": prompt, "max_tokens": 1, "temperature": 1}
        encoded = msgspec.json.encode(body | dict(extra))

        async def once() -> _Completion:
            reply = await self._line.send(client, settings.dialect.path, encoded)
            if reply.data is None:
                self._bill(prompt, None)
            if reply.status in OF_A_PROMPT or reply.data is None:
                raise _NotTakenError
            return _decode(reply.data)

        def failed(err: TryAgainError) -> None:
            reasons.append(str(err))
            if err.may_be_billed:
                self._bill(prompt, None)

        found, _ = await self._line.persist(once, failed)
        if found is None:
            raise SuspectError(
                f"the suspect gives no distributions ({reasons[-1]}); it must have completions "
                "with logprobs, or audit it closed"
            )
        self._bill(prompt, found.usage)
        if not self._watch.accepts(found.model or ""):
            raise self._watch.refusal(found.model or "")
        self.model = self._watch.first
        return found

    def _bill(self, prompt: str | list[str], usage: object) -> None:
        """Book what the server says, else an estimate: every prompt, and one token of each."""
        billed, said = billed_tokens(usage)
        self.is_estimated |= not billed or said is None
        if not billed:
            billed = estimated_tokens("".join(prompt))
        if said is None:
            said = 1 if isinstance(prompt, str) else len(prompt)
        self.billed = (self.billed[0] + billed, self.billed[1] + said)


class _Asked:
    """One text that is being asked, with lists of one length."""

    def __init__(
        self,
        reader: HttpReader,
        client: httpx2.AsyncClient,
        free: asyncio.Semaphore,
        n_listed: int,
    ) -> None:
        self._reader, self._client, self._free = reader, client, free
        self._n_listed = n_listed

    async def _complete(self, prompt: str | list[str], extra: Mapping[str, object]) -> _Completion:
        async with self._free:
            return await self._reader.complete(self._client, prompt, extra)

    async def echoed(self, text: str, way: str) -> Lists | None:
        """Return candidates at every position from one request; None if that is not supported."""
        is_echo = way == _ECHO
        extra = {"logprobs": self._n_listed} if is_echo else {way: self._n_listed}
        answer = await self._complete(text, extra | ({"echo": True} if is_echo else {}))
        if not answer.choices:
            return None
        choice = answer.choices[0]
        lists = _of_echo(text, choice) if is_echo else _of_prompt_logprobs(text, choice)
        return told_apart(lists, self._n_listed)

    async def by_prefixes(self, text: str, places: Sequence[int]) -> list[Candidates | None] | None:
        """Return candidates at some places, each prefix asked by itself; None without any.

        Raises:
            _NotTakenError: Every prefix is refused; of some, nothing is known.
        """
        # A space at the end would be a token of its own, and the next word another one.
        prefixes = [text[:place].rstrip(" ") for place in places]
        parts = [prefixes[i : i + _PREFIXES] for i in range(0, len(prefixes), _PREFIXES)]
        answers = await asyncio.gather(*map(self._part, parts))
        if parts and not any(answers):
            raise _NotTakenError
        found = [
            candidates
            for part, answer in zip(parts, answers, strict=True)
            for candidates in answer or [None] * len(part)
        ]
        return found if any(one is not None for one in found) or not found else None

    async def _part(self, prefixes: list[str]) -> list[Candidates | None]:
        """Return candidates after each prefix; nothing where they are refused."""
        try:
            answer = await self._complete(prefixes, {"logprobs": self._n_listed})
        except _NotTakenError:
            return []
        if len(answer.choices) != len(prefixes):
            raise SuspectError("the suspect answered another number of prefixes than asked")
        return [_first(one) for one in sorted(answer.choices, key=lambda one: one.index)]


async def _held(asking: Awaitable[list[Candidates | None] | None]) -> Told:
    """Return what asking came to, so that one failure costs no other text what was read."""
    try:
        return await asking
    except SuspectError as err:
        return err


def told_apart(lists: Lists, n_listed: int) -> Lists | None:
    """Return lists without what may be there because it stands in the text (rule 1).

    A list is the first N candidates, and the text's own token where that is not among them; N is
    what was asked for, or less where the server gives less. Whatever stands above the N-th place
    is a function of the distribution alone.

    Returns:
        None where there is nothing to tell apart.
    """
    sizes = [len(one) for _, one in lists if one]
    if not sizes:
        return None
    n_sure = min(n_listed, *sizes)
    found = []
    for place, one in lists:
        last = sorted(one.values(), reverse=True)[n_sure - 1] if one else 0.0
        found.append((place, {text: value for text, value in one.items() if value > last}))
    return found if any(one for _, one in found) else None


def _of_echo(text: str, choice: _Choice) -> Lists:
    """Return the lists of an echo, where its tokens stand in the text as it says."""
    one = choice.logprobs
    if one is None or not len(one.tokens) == len(one.text_offset) == len(one.top_logprobs):
        return []
    # A token that begins texts, and is none of this one, moves all others.
    moved = 0 if not one.tokens or text.startswith(one.tokens[0]) else len(one.tokens[0])
    rows = zip(one.tokens, one.text_offset, one.top_logprobs, strict=True)
    placed = [
        (offset - one.text_offset[0] - moved, token, top) for token, offset, top in rows if token
    ]
    met = [
        (place, top or {})
        for place, token, top in placed
        if 0 <= place < len(text) and text.startswith(token, place)
    ]
    covered = [place for place, _ in met]
    is_of_text = len(covered) > _LEAST_MET * len(placed) and len(placed) > 1
    return met if is_of_text else []


def _of_prompt_logprobs(text: str, choice: _Choice) -> Lists:
    """Return vLLM's lists, in each of which the text's own token stands first."""
    positions = [one for one in choice.prompt_logprobs or [] if one]
    tokens = [next(iter(one.values())).decoded_token or "" for one in positions]
    said = "".join(tokens)
    if not said or not text.endswith(said):
        return []
    places = itertools.accumulate(map(len, tokens[:-1]), initial=len(text) - len(said))
    return [
        (place, {each.decoded_token or "": each.logprob for each in one.values()})
        for place, one in zip(places, positions, strict=True)
    ]


def _at(text: str, places: Sequence[int], lists: Lists) -> list[Candidates | None]:
    """Return the lists where units begin; None where the suspect's tokens do not."""
    known = {place: one for place, one in lists if one}
    ends = [len(text[:place].rstrip(" ")) for place in places]
    return [_probable(known[end]) if end in known else None for end in ends]


def _first(choice: _Choice) -> Candidates | None:
    top = choice.logprobs.top_logprobs[:1] if choice.logprobs else []
    return _probable(top[0]) if top and top[0] else None


def _probable(top: Mapping[str, float]) -> Candidates:
    return [(text, math.exp(min(0.0, value))) for text, value in top.items()]


def _decode(data: bytes) -> _Completion:
    try:
        return msgspec.json.decode(data, type=_Completion)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise TryAgainError("an answer that is not of OpenAI's form") from None
