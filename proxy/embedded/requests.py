"""The bodies of requests: what may be in them, field by field.

Unknown fields are errors, because a sampling parameter that is silently dropped changes the text
without a word. Fields that have no bearing on the text are accepted and ignored; known ones that
this server cannot honor are listed in `UNSUPPORTED` with the remedy.
"""

from __future__ import annotations

import re
from typing import Any, Final, TypeVar

import msgspec

from proxy.errors import BadRequestError

UNSUPPORTED: Final[dict[str, str]] = {
    "tools": "this server calls no tools; leave it out",
    "tool_choice": "this server calls no tools; leave it out",
    "functions": "this server calls no functions; leave it out",
    "function_call": "this server calls no functions; leave it out",
    "echo": "the prompt is not echoed; put it before the answer yourself",
    "suffix": "text is only ever continued at its end; leave it out",
    "best_of": "every choice is returned; ask for n choices and pick one",
    "modalities": "only text is served; leave it out",
    "audio": "only text is served; leave it out",
}

NEUTRAL: Final[dict[str, tuple[Any, ...]]] = {
    "tool_choice": ("none", "auto"),
    "function_call": ("none", "auto"),
    "best_of": (1,),
    "modalities": (["text"],),
}
"""Values of unsupported fields, besides empty ones, that ask for nothing."""


class StreamOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a stream carries besides text."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class CommonRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Fields of both generation endpoints; null is the same as absence throughout."""

    model: str | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    max_tokens: int | None = None
    stop: str | list[str] | None = None
    n: int | None = None
    seed: int | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    ignore_eos: bool | None = None
    return_token_ids: bool | None = None
    return_tokens_as_token_ids: bool | None = None
    add_special_tokens: bool | None = None

    # Without bearing on the text: accepted and ignored.
    user: str | None = None
    metadata: dict[str, Any] | None = None
    store: bool | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    service_tier: str | None = None

    # Known, and honored only at the values that change nothing.
    tools: list[Any] | None = None
    tool_choice: Any = None
    functions: list[Any] | None = None
    function_call: Any = None
    parallel_tool_calls: bool | None = None
    response_format: Any = None
    echo: bool | None = None
    suffix: str | None = None
    best_of: int | None = None
    modalities: list[str] | None = None
    audio: Any = None


class CompletionRequest(CommonRequest, frozen=True, kw_only=True):
    """Body of POST /v1/completions."""

    prompt: str | list[Any] | None = None
    logprobs: int | None = None
    logprob_token_ids: list[int] | None = None


class TextPart(msgspec.Struct, frozen=True, kw_only=True):
    """One part of a message's content."""

    type: str
    text: str | None = None


class MessageBody(msgspec.Struct, frozen=True, kw_only=True):
    """One message as it arrives; further fields that clients echo back are ignored."""

    role: str
    content: str | list[TextPart] | None = None
    name: str | None = None
    tool_calls: list[Any] | None = None


class ChatRequest(CommonRequest, frozen=True, kw_only=True):
    """Body of POST /v1/chat/completions."""

    messages: list[MessageBody]
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    add_generation_prompt: bool = True
    continue_final_message: bool = False


class TokenizeRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /tokenize: a text or a conversation."""

    model: str | None = None
    prompt: str | None = None
    add_special_tokens: bool = True
    messages: list[MessageBody] | None = None
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    return_token_strs: bool | None = None


class DetokenizeRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /detokenize."""

    model: str | None = None
    tokens: list[int]


RequestT = TypeVar("RequestT", bound=msgspec.Struct)

_FIELD_PATH: Final = re.compile(r" - at `\$\.?([^`]*)`\Z")
_NAMED_FIELD: Final = re.compile(r"field `([^`]+)`")


def parse_body(body: bytes, kind: type[RequestT]) -> RequestT:
    """Return the request in `body`.

    Raises:
        BadRequestError: The body is not JSON in UTF-8, or a field is unknown or of another type.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        message = str(error)
        path, field = _FIELD_PATH.search(message), _NAMED_FIELD.search(message)
        param = ".".join(part[1] for part in (path, field) if part and part[1]) or None
        raise BadRequestError(
            f"{_FIELD_PATH.sub('', message)}; see the server's documentation for its fields",
            param=param,
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequestError("the body is not JSON in UTF-8; send one JSON object") from error
