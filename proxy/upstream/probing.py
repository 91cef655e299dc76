"""What an upstream really does, found out by calls: never trust a provider's word.

Each way of continuing is tried through the adapter that would serve it, strongest first, with two
greedy questions: a reply, and its second half after its first. What passes is then asked for its
lists, for several choices, for a ban. Where nothing is continued, whole questions are put as
clients put them (`phrasing`). A failed call says that the way is not there; an upstream that
answers nothing at all is an error.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec
import numpy as np

from proxy.errors import UpstreamError, UpstreamStatusError, UpstreamUnreachableError
from proxy.sampling.costs import Speed
from proxy.sampling.questions import UNBOUNDED, Continuation, Draft
from proxy.upstream.echo import BEGUN
from proxy.upstream.lists import gap, is_distribution, likeliest
from proxy.upstream.phrasing import Phrasing
from watermark.wire.openai_requests import DialectName, parse_request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from proxy.config import Capabilities
    from proxy.upstream.continuing import Upstream
    from proxy.upstream.native_probing import NativeMark
    from watermark.wire.openai_requests import GenerationRequest

    Pairs = list[tuple[bytes, bytes]]
    _Drawn = tuple[Continuation, ...]

_PROMPT: Final = "Once upon a time there was a"
_LENGTH: Final = 8  # tokens of the reply that is asked for twice
_WHOLE: Final = f"Continue in one sentence: {_PROMPT}"
_SIZES: Final = (100, 20, 5, 1)  # of lists, after the whole vocabulary
_CHOSEN: Final = 128  # vLLM's bound
_BAN: Final = -100.0
_FORCE: Final = 100.0
_LITTLE: Final = -1.0
_BIASES: Final = (300, 64)  # fewer than declared, which some upstreams still take
_COOL: Final = 0.5
_NUCLEUS: Final = 1e-3  # of one token
_UNTAKEN: Final = (400, 422)  # how an API refuses a field
_TOLERANCE: Final = 1e-2


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What a probe found.

    Attributes:
        capabilities: What the upstream can do.
        speed: How fast it was.
        notes: What was tried and how it went, one line each.
        native: What became of the mark of an engine that is said to mark; None for no such engine.
    """

    capabilities: Capabilities
    speed: Speed
    notes: tuple[str, ...]
    native: NativeMark | None = None


@dataclass(slots=True)
class Prober:
    """Probes one model.

    Attributes:
        model: Its name.
        declared: What the config says; `parallel`, `max_bias` and `api` stand.
        vocab_size: Tokens that it can emit; 0 where no tokenizer is at hand.
        adapter: Makes the adapter for some capabilities.
        forced: A token and its text, which a bias of 100 must force; None without a tokenizer.
        headers: Of the probe's own requests.
        clock: Monotonic seconds.
    """

    model: str
    declared: Capabilities
    vocab_size: int
    adapter: Callable[[Capabilities], Upstream]
    headers: Pairs
    clock: Callable[[], float]
    forced: tuple[int, str] | None = None
    _notes: list[str] = field(default_factory=list)

    async def probe(self) -> Findings:
        """Return what the upstream can do.

        Raises:
            UpstreamUnreachableError: It does not answer.
        """
        for able in self._ways():
            call = _Call(self, able, self.adapter(able))
            if await self._holds(f"continues: {_name(able)}", call.continues):
                return await self._details(call)
        for api in ("openai", "anthropic"):
            whole = self._whole(api)
            phrasing = await self._holds(f"answers over {api}", whole.phrasing_taken)
            if phrasing is not None:
                return await self._details(replace(whole, phrasing=phrasing))
        return await self._details(self._whole("openai"))

    def _whole(self, api: str) -> _Call:
        able = self._with(api=api, continuation="none", logprobs=0)
        return _Call(self, able, self.adapter(able))

    def _ways(self) -> Iterator[Capabilities]:
        apis: tuple[Literal["openai", "sglang", "llama-server"], ...] = (
            ("openai", "sglang", "llama-server") if self.vocab_size else ()
        )
        for api in apis:
            yield self._with(api=api, continuation="token-ids", logprobs=0)
        for prefix in ("continue-final-message", "prefix", "trailing"):
            yield self._with(api="openai", continuation="prefix", prefix=prefix, logprobs=0)
        yield self._with(api="anthropic", continuation="prefix", prefix="trailing", logprobs=0)
        yield self._with(api="openai", continuation="text", logprobs=0)

    def _with(self, **fields: Any) -> Capabilities:  # noqa: ANN401 - as the struct has them
        return msgspec.structs.replace(self.declared, probe=False, echo=None, **fields)

    async def _holds(self, what: str, test: Callable[[], Any]) -> Any:  # noqa: ANN401 - the test's own
        """Return what a test finds, nothing where a call fails; note it."""
        try:
            found = await test()
        except UpstreamUnreachableError:
            raise
        except UpstreamError as err:
            self._notes.append(f"{what}: no ({str(err).partition(';')[0]})")
            return None
        said = found if isinstance(found, int | str) and not isinstance(found, bool) else None
        self._notes.append(f"{what}: {said if said is not None else ('yes' if found else 'no')}")
        return found

    async def _details(self, call: _Call) -> Findings:
        able = call.able
        if able.continuation == "prefix":
            echo = await self._holds("repeats what it continues", call.repeats)
            able = msgspec.structs.replace(able, echo=echo)
        if able.continuation != "none" and self.vocab_size:
            call = replace(call, able=able)
            size = await self._holds("log-probabilities listed", call.list_size) or 0
            able = msgspec.structs.replace(able, logprobs=size)
        call = replace(call, able=able, upstream=self.adapter(able))
        if able.logprobs:
            mode = await self._holds("log-probabilities are", call.mode) or "none"
            able = (
                msgspec.structs.replace(able, logprobs=0)
                if mode == "none"
                else msgspec.structs.replace(able, logprobs_mode=mode)
            )
        bans: int = 0
        if able.logprobs:
            bans = await self._holds("a bias of -100 bans", call.bans) or 0
        elif self.forced is not None:
            bans = await self._holds("biases a request that bias", call.biases) or 0
            able = msgspec.structs.replace(able, max_bias=bans or able.max_bias)
        chosen = 0
        if able.logprobs and not able.is_text and able.api != "llama-server":
            chosen = await self._holds("lists chosen tokens", call.lists_chosen) or 0
        max_n = await self._holds("choices that differ", call.choices) or 1
        able = msgspec.structs.replace(
            able, logit_bias=bool(bans), chosen_logprobs=chosen, max_n=max_n
        )
        speed = await self._holds("speed", replace(call, able=able).speed) or Speed()
        return Findings(capabilities=able, speed=speed, notes=tuple(self._notes))


def _name(able: Capabilities) -> str:
    if able.continuation == "token-ids":
        return f"token ids over {able.api}"
    if able.api == "anthropic":
        return "a closing message over anthropic"
    return f"prefix by {able.prefix}" if able.continuation == "prefix" else able.continuation


@dataclass(frozen=True, slots=True)
class _Call:
    """One way of asking one model."""

    prober: Prober
    able: Capabilities
    upstream: Upstream
    phrasing: Phrasing = Phrasing.FULL

    @property
    def is_whole(self) -> bool:
        """Whether whole replies are asked for, as clients do."""
        return self.able.continuation == "none"

    def _request(
        self, draft: Draft, temperature: float, said: Mapping[str, Any]
    ) -> GenerationRequest:
        body: dict[str, Any] = {"model": self.prober.model, "temperature": temperature, **said}
        if self.is_whole:
            del body["temperature"]
            body |= self.phrasing.fields(temperature=temperature, max_tokens=draft.max_tokens)
            body |= {"messages": [{"role": "user", "content": _WHOLE}]}
            if draft.bias:
                body["logit_bias"] = {str(token): value for token, value in draft.bias.items()}
        elif self.able.continuation == "prefix":
            body["messages"] = [{"role": "user", "content": f"Continue: {_PROMPT}"}]
        else:
            return parse_request(DialectName.TEXT, msgspec.json.encode(body | {"prompt": _PROMPT}))
        return parse_request(DialectName.CHAT, msgspec.json.encode(body))

    async def _ask(
        self,
        temperature: float = 0.0,
        *,
        said: Mapping[str, Any] = MappingProxyType({}),
        **fields: Any,  # noqa: ANN401 - a draft's
    ) -> _Drawn:
        given: dict[str, Any] = {"tokens": (), "n": 1, "max_tokens": 1}
        draft, headers = Draft(**(given | fields)), self.prober.headers
        request = self._request(draft, temperature, said)
        if self.is_whole:
            room = draft.max_tokens if self.phrasing.limit else UNBOUNDED
            draft = replace(draft, is_whole=True, max_tokens=room)
        prompt = await self.upstream.prompt_ids(request, headers)
        return (await self.upstream.draft(request, prompt, draft, headers)).continuations

    async def continues(self) -> bool:
        """Return whether the second half of a greedy reply comes after its first half."""
        (whole,) = await self._ask(max_tokens=_LENGTH)
        if not self.able.is_text:
            half = _LENGTH // 2
            if len(whole.tokens) <= half:
                return False
            (rest,) = await self._ask(tokens=whole.tokens[:half], max_tokens=_LENGTH - half)
            return rest.tokens == whole.tokens[half:]
        half = len(whole.text) // 2
        if not half:
            return False
        (rest,) = await self._ask(text=whole.text[:half], max_tokens=_LENGTH)
        wanted = whole.text[half:].lstrip()
        return bool(rest.text.strip()) and rest.text.lstrip().startswith(
            wanted[: max(1, half // 2)]
        )

    async def phrasing_taken(self) -> Phrasing | None:
        """Return how a whole question is put so that it is answered; None where it is not."""
        refusal: UpstreamStatusError | None = None
        for phrasing in Phrasing:
            try:
                (one,) = await replace(self, phrasing=phrasing)._ask(max_tokens=_LENGTH)  # noqa: SLF001 - its own kind
            except UpstreamStatusError as err:
                if err.upstream_status not in _UNTAKEN:
                    raise
                refusal = err
                continue
            if one.text:  # what is reasoned first may leave no room for it
                return phrasing
        if refusal is not None:
            raise refusal
        return None

    async def repeats(self) -> bool:
        """Return whether an answer repeats the text that it continues."""
        as_it_comes = self.prober.adapter(msgspec.structs.replace(self.able, echo=False))
        call = replace(self, upstream=as_it_comes)
        (one,) = await call._ask(text=BEGUN, max_tokens=1)  # noqa: SLF001 - its own kind
        return one.text.startswith(BEGUN)

    async def list_size(self) -> int:
        """Return how many likeliest tokens are listed."""
        sizes = [self.prober.vocab_size]
        if self.able.api != "llama-server" or self.able.is_text:
            sizes += [size for size in _SIZES if size < self.prober.vocab_size]
        for size in sizes:
            asked = msgspec.structs.replace(self.able, logprobs=size)
            call = replace(self, able=asked, upstream=self.prober.adapter(asked))
            try:
                # Warm: what is cold may leave tokens without any probability to list.
                (one,) = await call._ask(1.0, logprobs=size)  # noqa: SLF001 - its own kind
            except UpstreamUnreachableError:
                raise
            except UpstreamError:
                continue
            least = 1 if self.able.is_text else size  # labels that name no token end a list
            if one.logprobs and is_distribution(one, least):
                return size
        return 0

    async def mode(self) -> str:
        """Return which distribution is listed, `none` where it is none of those known."""
        if self.able.lists_everything:
            return "raw"
        size = self.able.logprobs
        (warm,) = await self._ask(1.0, logprobs=size)
        (cool,) = await self._ask(_COOL, logprobs=size)
        wide, narrow = gap(warm), gap(cool)
        if wide is None or narrow is None:
            return "none"
        if abs(narrow - wide) < _TOLERANCE:
            return "raw"
        is_tempered = abs(narrow - wide / _COOL) < _TOLERANCE * 2
        return await self._cut_mode(likeliest(warm)) if is_tempered else "none"

    async def _cut_mode(self, before: float) -> str:
        """Return whether tempered lists are also cut: one token is asked for, and has all the mass.

        Args:
            before: What the likeliest token has where nothing is cut.
        """
        said = {"top_p": _NUCLEUS} | ({} if self.able.is_text else {"top_k": 1})
        (cut,) = await self._ask(1.0, said=said, logprobs=self.able.logprobs)
        if not cut.logprobs or before > -_TOLERANCE:  # a token that is certain does not tell
            return "none"
        if likeliest(cut) > -_TOLERANCE:
            return "processed"
        return "tempered" if abs(likeliest(cut) - before) < _TOLERANCE else "none"

    async def bans(self) -> bool:
        """Return whether a ban keeps the likeliest token out."""
        size = min(self.able.logprobs, 2)
        size = self.able.logprobs if self.able.api == "llama-server" else size
        (free,) = await self._ask(logprobs=size)
        likeliest = free.tokens[0] if free.tokens else None
        if likeliest is None:
            return False
        (banned,) = await self._ask(logprobs=size, bias={likeliest: _BAN})
        return banned.tokens[:1] != (likeliest,)

    async def biases(self) -> int:
        """Return how many biases a request may have, 100 on one of them forcing its token."""
        is_endless = self.is_whole and not self.phrasing.limit  # a forced token ends nothing
        if self.prober.forced is None or is_endless:
            return 0
        token, text = self.prober.forced
        for count in sorted({self.able.max_bias, *_BIASES} - {0}, reverse=True):
            size = min(count, self.able.max_bias, self.prober.vocab_size)
            others = [other for other in range(size) if other != token][: size - 1]
            try:
                (one,) = await self._ask(bias=dict.fromkeys(others, _LITTLE) | {token: _FORCE},
                                         max_tokens=_LENGTH)  # fmt: skip
            except UpstreamUnreachableError:
                raise
            except UpstreamError:  # some refuse many, and say so
                continue
            if one.tokens:
                return size if set(one.tokens) == {token} else 0
            said = one.text.strip()
            return size if said and not said.replace(text.strip(), "").strip() else 0
        return 0

    async def lists_chosen(self) -> int:
        """Return how many tokens are listed by name."""
        chosen = tuple(range(min(_CHOSEN, self.prober.vocab_size)))
        (one,) = await self._ask(1.0, logprobs=1, chosen=chosen)
        is_listed = bool(one.logprobs) and set(chosen) <= set(one.logprobs[0].ids.tolist())
        return len(chosen) if is_listed else 0

    async def choices(self) -> int:
        """Return how many choices a request gives that are not all the same."""
        for n in self.phrasing.numbers:
            try:
                drawn = await self._ask(1.0, n=n, max_tokens=2 * _LENGTH)
            except UpstreamUnreachableError:
                raise
            except UpstreamError:
                continue
            said = {one.tokens or one.text for one in drawn}
            if len(drawn) == n and len(said) > 1:
                return n
        return 1

    async def speed(self) -> Speed:
        """Return what a request and a token take, and how sure the model is of its tokens."""
        clock, start = self.prober.clock, self.prober.clock()
        (first,) = await self._ask(1.0)
        short = clock() - start
        if self.is_whole and not self.phrasing.limit:
            each = short / max(1, first.n_tokens)
            return Speed(round_trip_s=each, token_s=each)
        size = self.able.logprobs
        (long,) = await self._ask(1.0, max_tokens=4 * _LENGTH)
        per_token = max(0.0, clock() - start - 2 * short) / max(1, long.n_tokens - 1)
        agreement = 0.5
        if size and not self.able.is_text:
            (listed,) = await self._ask(1.0, logprobs=size, max_tokens=_LENGTH)
            agreement = float(np.mean([np.exp(one.logprobs.max()) for one in listed.logprobs]))
        return Speed(round_trip_s=short, token_s=per_token, agreement=agreement)
