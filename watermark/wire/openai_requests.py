"""Requests for text: what a client asks of the sampler, in the terms of the OpenAI dialects.

Whatever dialect the client speaks, the upstream is asked in chat completions or completions;
`client_body` keeps the client's own words. Only fields that bear on the reply's text are read;
everything else is counted as unknown, so that whoever marks can decline what it does not
understand.
"""

from __future__ import annotations

import enum
import hashlib
import math
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from watermark.errors import WireError
from watermark.wire.features import Feature, features_of
from watermark.wire.messages_requests import chat_of_messages
from watermark.wire.responses_requests import chat_of_responses

if TYPE_CHECKING:
    from collections.abc import Mapping

COMPLETION_MAX_TOKENS: Final = 16  # OpenAI's default for /v1/completions
MAX_BIAS: Final = 100.0  # OpenAI's range is -100 to 100
_LEAST_MASS: Final = math.ulp(0.0)  # top_p may be anything above zero
_TOKEN_ID: Final = re.compile(r"[0-9]{1,10}")

NumberT = TypeVar("NumberT", int, float)


class DialectName(enum.Enum):
    """The generation endpoints, by their paths."""

    CHAT = "/v1/chat/completions"
    TEXT = "/v1/completions"
    RESPONSES = "/v1/responses"
    MESSAGES = "/v1/messages"

    @classmethod
    def of_path(cls, path: str) -> DialectName | None:
        """Return the dialect of what lies at a path or below it, None where it is another's."""
        return next(
            (one for one in cls if path == one.value or path.startswith(f"{one.value}/")), None
        )


class _StreamOptions(msgspec.Struct, frozen=True):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class _Common(msgspec.Struct, frozen=True, kw_only=True):
    model: str | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    max_tokens: int | None = None
    stop: str | list[str] | None = None
    n: int | None = None
    seed: int | None = None
    return_token_ids: bool | None = None
    return_tokens_as_token_ids: bool | None = None


class _Text(_Common, frozen=True, kw_only=True):
    prompt: str | list[Any]
    logprobs: int | None = None


class _Part(msgspec.Struct, frozen=True):
    type: str
    text: str | None = None


class Message(msgspec.Struct, frozen=True):
    """One message; its content may be text, parts, or missing."""

    role: str
    content: str | list[_Part] | None = None

    @property
    def text(self) -> str | None:
        """The message's text, None where it holds anything else."""
        if self.content is None or isinstance(self.content, str):
            return self.content or ""
        if any(part.type != "text" or part.text is None for part in self.content):
            return None
        return "".join(part.text or "" for part in self.content)


class _Chat(_Common, frozen=True, kw_only=True):
    messages: list[Message]
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None


_TRANSLATIONS: Final = {
    DialectName.MESSAGES: chat_of_messages,
    DialectName.RESPONSES: chat_of_responses,
}
# No bearing on the reply's text: who asks, and what to keep of it.
_IGNORED: Final = frozenset(
    {"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"}
)
# Bear on the text only where they hold more than their neutral value.
_NEUTRAL: Final[dict[str, tuple[Any, ...]]] = {
    "tools": (None, []),
    "functions": (None, []),
    "tool_choice": (None, "none"),
    "function_call": (None, "none"),
    "parallel_tool_calls": (None, True, False),
    "response_format": (None, {"type": "text"}),
    "echo": (None, False),
    "suffix": (None, ""),
    "best_of": (None, 1),
    "ignore_eos": (None, False),
    "modalities": (None, ["text"]),
    "audio": (None,),
}
_FIELDS: Final = {kind: frozenset(kind.__struct_fields__) | _IGNORED for kind in (_Chat, _Text)}
_STREAM_FIELDS: Final = frozenset(_StreamOptions.__struct_fields__)
# Stop strings only cut the text that a seed gives.
_NOT_SHAPING: Final = frozenset({"stream", "stream_options", "stop"}) | _IGNORED


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """A request for text, read as far as marking needs it.

    Attributes:
        dialect: In whose terms `body` is: chat completions or completions.
        body: The JSON object that asks for the reply in those terms.
        client_dialect: The endpoint that the client asked.
        client_body: The whole JSON object, as it came.
        features: What is asked for besides text.
        model: The model asked for; empty where the upstream shall choose.
        is_streamed: Whether the reply is a stream of events.
        wants_usage: Whether a stream ends with a chunk of usage.
        temperature: Sampling temperature, >= 0.
        top_p: Nucleus mass in (0, 1].
        top_k: Likeliest tokens kept; 0 for all.
        presence_penalty: As OpenAI defines it.
        frequency_penalty: As OpenAI defines it.
        logit_bias: Additions to logits by token id.
        max_tokens: Longest reply; None for the rest of the context.
        stop: Strings that end the text.
        n: Number of choices.
        seed: For repeatable sampling; None for fresh randomness.
        logprobs: Likeliest tokens to report a position; None for no report.
        wants_token_ids: Whether ids come beside the text (a vLLM extension).
        labels_as_ids: Whether reported tokens are spelt `token_id:N` (a vLLM extension).
        unknown: Names of fields with a bearing that this parser does not know, sorted.
    """

    dialect: DialectName
    body: Mapping[str, Any]
    client_dialect: DialectName
    client_body: Mapping[str, Any]
    features: frozenset[Feature]
    model: str
    is_streamed: bool
    wants_usage: bool
    temperature: float
    top_p: float
    top_k: int
    presence_penalty: float
    frequency_penalty: float
    logit_bias: Mapping[int, float]
    max_tokens: int | None
    stop: tuple[str, ...]
    n: int
    seed: int | None
    logprobs: int | None
    wants_token_ids: bool
    labels_as_ids: bool
    unknown: tuple[str, ...]

    @property
    def messages(self) -> list[Message]:
        """The conversation, empty for a text completion."""
        if self.dialect is not DialectName.CHAT:
            return []
        return msgspec.convert(self.body["messages"], list[Message])

    @property
    def prompt(self) -> Any:  # noqa: ANN401 - a string, token ids, or a batch of either
        """The prompt of a text completion; a batch of one is that one."""
        prompt = self.body.get("prompt")
        if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str | list):
            return prompt[0]
        return prompt

    def with_defaults(self, *, temperature: float, top_p: float, top_k: int) -> GenerationRequest:
        """Return the request with what an upstream takes where the client says nothing."""

        def said(name: str) -> bool:
            return self.body.get(name) is not None

        return replace(
            self,
            temperature=self.temperature if said("temperature") else temperature,
            top_p=self.top_p if said("top_p") else top_p,
            top_k=self.top_k if said("top_k") else top_k,
        )

    def shaping_digest(self) -> bytes:
        """Return SHA-256 over everything that shapes the reply, 32 bytes.

        Requests that differ only in how the reply is transported have the same digest.
        """
        shaping = {name: value for name, value in self.body.items() if name not in _NOT_SHAPING}
        canonical = msgspec.json.encode([self.dialect.value, shaping], order="deterministic")
        return hashlib.sha256(canonical).digest()


def parse_request(dialect: DialectName, data: bytes) -> GenerationRequest:
    """Read a request's body.

    Raises:
        WireError: The body is not a JSON object, or a field has a type or a value that no
            upstream should accept; it knows best how to refuse it.
    """
    try:
        body = msgspec.json.decode(data, type=dict[str, Any])
        return _read(dialect, body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as err:
        raise WireError(f"the request body cannot be read: {err}") from err


def _read(dialect: DialectName, body: dict[str, Any]) -> GenerationRequest:
    """Read a request in its own dialect.

    Raises:
        msgspec.ValidationError: A field has another type than the dialect gives it.
        WireError: A field has a value that no upstream should accept.
    """
    translate = _TRANSLATIONS.get(dialect)
    asked, unknown = (body, None) if translate is None else translate(body)
    kind = _Text if dialect is DialectName.TEXT else _Chat
    # A number or a switch in quotes is one to most upstreams: it must not be a way around the mark.
    fields: Any = msgspec.convert(asked, kind, strict=False)
    request = _build(asked, fields, is_chat=kind is _Chat)
    return replace(
        request,
        client_dialect=dialect,
        client_body=body,
        features=features_of(body, is_stateful=dialect is DialectName.RESPONSES),
        unknown=request.unknown if unknown is None else unknown,
    )


def _build(body: dict[str, Any], fields: Any, *, is_chat: bool) -> GenerationRequest:  # noqa: ANN401
    dialect = DialectName.CHAT if is_chat else DialectName.TEXT
    return GenerationRequest(
        dialect=dialect,
        body=body,
        client_dialect=dialect,
        client_body=body,
        features=frozenset(),
        model=fields.model or "",
        is_streamed=bool(fields.stream),
        wants_usage=_wants_usage(fields),
        temperature=_number("temperature", fields.temperature, 1.0, low=0.0),
        top_p=_number("top_p", fields.top_p, 1.0, low=_LEAST_MASS, high=1.0),
        top_k=max(0, _number("top_k", fields.top_k, 0, low=-1)),
        presence_penalty=_number("presence_penalty", fields.presence_penalty, 0.0, low=-2, high=2),
        frequency_penalty=_number(
            "frequency_penalty", fields.frequency_penalty, 0.0, low=-2, high=2
        ),
        logit_bias=_bias(fields.logit_bias),
        max_tokens=_max_tokens(fields, is_chat=is_chat),
        stop=_stop(fields.stop),
        n=_number("n", fields.n, 1, low=1),
        seed=fields.seed,
        logprobs=_logprobs(fields, is_chat=is_chat),
        wants_token_ids=bool(fields.return_token_ids),
        labels_as_ids=bool(fields.return_tokens_as_token_ids),
        unknown=_unknown(body, _FIELDS[type(fields)]),
    )


def _unknown(body: Mapping[str, Any], known: frozenset[str]) -> tuple[str, ...]:
    names = [
        name
        for name, value in body.items()
        if name not in known and value not in _NEUTRAL.get(name, (None,))
    ]
    options = body.get("stream_options") or {}
    names += [f"stream_options.{name}" for name in options if name not in _STREAM_FIELDS]
    return tuple(sorted(names))


def _wants_usage(fields: _Common) -> bool:
    if fields.stream_options is None:
        return False
    if not fields.stream:
        raise WireError("stream_options are for streams; set stream to true or leave them out")
    return bool(fields.stream_options.include_usage)


def _number(
    name: str, value: NumberT | None, default: NumberT, *, low: float, high: float = math.inf
) -> NumberT:
    number = default if value is None else value
    if not low <= number <= high:
        raise WireError(f"{name} is out of range; send {low} to {high}")
    return number


def _max_tokens(fields: Any, *, is_chat: bool) -> int | None:  # noqa: ANN401 - either struct
    wanted: int | None = fields.max_tokens
    if is_chat and fields.max_completion_tokens is not None:
        wanted = fields.max_completion_tokens
    if wanted is None:
        return None if is_chat else COMPLETION_MAX_TOKENS
    return _number("max_tokens", wanted, 1, low=1)


def _logprobs(fields: Any, *, is_chat: bool) -> int | None:  # noqa: ANN401 - either struct
    count: int | None = fields.top_logprobs if is_chat else fields.logprobs
    is_wanted: bool = bool(fields.logprobs) if is_chat else count is not None
    if count and not is_wanted:
        raise WireError("top_logprobs needs logprobs; set logprobs to true")
    return _number("logprobs", count, 0, low=0) if is_wanted else None


def _stop(stop: str | list[str] | None) -> tuple[str, ...]:
    strings = (stop,) if isinstance(stop, str) else tuple(stop or ())
    if not all(strings):
        raise WireError("stop has an empty string; leave it out")
    return strings


def _bias(bias: dict[str, float] | None) -> dict[int, float]:
    if not all(_TOKEN_ID.fullmatch(token) for token in bias or {}):
        raise WireError("logit_bias has a key that is no token id; send decimal ids")
    return {
        int(token): _number("logit_bias", value, 0.0, low=-MAX_BIAS, high=MAX_BIAS)
        for token, value in (bias or {}).items()
    }
