"""An answer without its reasoning trace, for a client that is not to have one.

Rule 1: what says nothing of a trace is left byte for byte as it came. Rule 2: an answer keeps its
form: clients count blocks, items and events, so a trace that has a place of its own there becomes
empty. Rule 3: what cannot be read does not go out. What a server keeps sealed for itself
(signatures, encrypted content) stays: it goes back to it with the next turn.

Source: OpenAI API reference (responses, streaming events), Anthropic API reference (extended
thinking); for chat completions, which name no trace, the fields of vLLM, SGLang, DeepSeek
(`reasoning_content`, `reasoning`), OpenRouter (`reasoning_details`), Ollama and LiteLLM
(`thinking`, `thinking_blocks`), and Mistral's parts of a content.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, Protocol

from watermark.errors import WireError
from watermark.wire.openai_requests import DialectName
from watermark.wire.sse import EventDecoder, EventSplitter, with_data

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

MAX_BYTES: Final = 64 * 1024 * 1024  # of an answer that is not streamed
_FIELDS: Final = (
    "reasoning_content", "reasoning", "reasoning_details", "thinking", "thinking_blocks",
)  # fmt: skip
_PARTS: Final = frozenset({"thinking", "reasoning", "reasoning_text"})
_TOKENS: Final = ("logprobs", "token_ids")  # of the trace too, and none can say which


class TraceFilter(Protocol):
    """Takes the trace out of one answer, however its bytes are cut."""

    def feed(self, data: bytes) -> bytes:
        """Add bytes of the answer; return those that can go out.

        Raises:
            WireError: It cannot be read.
        """
        ...

    def finish(self) -> bytes:
        """Return what is left at the answer's end.

        Raises:
            WireError: It cannot be read.
        """
        ...


def trace_filter(dialect: DialectName, *, is_streamed: bool) -> TraceFilter:
    """Return what takes the trace out of one answer.

    Args:
        dialect: The answer's.
        is_streamed: Whether it is a stream of events.
    """
    return _OfEvents(dialect) if is_streamed else _OfBody(dialect)


class _OfBody:
    """Of an answer in one piece, which waits for its end."""

    def __init__(self, dialect: DialectName) -> None:
        self._dialect = dialect
        self._data = bytearray()

    def feed(self, data: bytes) -> bytes:
        self._data += data
        if len(self._data) > MAX_BYTES:
            raise WireError(f"an answer exceeds {MAX_BYTES} bytes")
        return b""

    def finish(self) -> bytes:
        data = bytes(self._data)
        return _without_trace(self._dialect, data) or data


class _OfEvents:
    """Of a stream; what stands behind the last whole event is no event, and does not go out."""

    def __init__(self, dialect: DialectName) -> None:
        self._dialect = dialect
        self._splitter = EventSplitter()

    def feed(self, data: bytes) -> bytes:
        return b"".join(map(self._without_trace, self._splitter.feed(data)))

    def finish(self) -> bytes:
        return self.feed(b":")  # whatever comes next: a CR at the very end was no half of a CRLF

    def _without_trace(self, block: bytes) -> bytes:
        for event in EventDecoder().feed(block + b"\n"):
            if not event.is_done:
                data = _without_trace(self._dialect, event.data.encode())
                if data is not None:
                    return with_data(block, data)
        return block


def _without_trace(dialect: DialectName, data: bytes) -> bytes | None:
    """Return a JSON text without its trace, None where it has none."""
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        raise WireError("an answer or an event of it is not JSON") from None
    if not isinstance(body, dict) or not _CLEARED[dialect](body):
        return None
    return json.dumps(body, separators=(",", ":")).encode()


def _clear_completion(body: dict[str, Any]) -> bool:
    choices = [one for one in _list(body.get("choices")) if isinstance(one, dict)]
    return _any(map(_clear_choice, choices))


def _clear_choice(choice: dict[str, Any]) -> bool:
    said = [choice, *(one for name in ("message", "delta") if (one := _dict(choice.get(name))))]
    if not _any(map(_clear_said, said)):
        return False
    for name in _TOKENS:
        if choice.get(name) is not None:
            choice[name] = None
    return True


def _clear_said(said: dict[str, Any]) -> bool:
    found = [name for name in _FIELDS if said.get(name)]
    for name in found:
        del said[name]
    parts = _list(said.get("content"))
    kept = [one for one in parts if _kind(one) not in _PARTS]
    if len(kept) < len(parts):
        said["content"] = kept
    return bool(found) or len(kept) < len(parts)


def _clear_message(event: dict[str, Any]) -> bool:
    """Clear a whole message, or an event of one."""
    blocks = [
        *_list(event.get("content")),
        *_list(_dict(event.get("message")).get("content")),
        event.get("content_block"),
        event.get("delta"),
    ]
    thoughts = [one for one in blocks if _kind(one) in {"thinking", "thinking_delta"}]
    return _any(_empty(one, "thinking") for one in thoughts)


def _clear_response(event: dict[str, Any]) -> bool:
    """Clear a whole response, or an event of one."""
    items = [
        *_list(event.get("output")),
        *_list(_dict(event.get("response")).get("output")),
        event.get("item"),
    ]
    cleared = [_empty(one, "summary", "content") for one in items if _kind(one) == "reasoning"]
    is_trace = _kind(event).startswith("response.reasoning") or _kind(event.get("part")) in _PARTS
    if is_trace:
        cleared += [_empty(event, "delta", "text"), _empty(_dict(event.get("part")), "text")]
    return any(cleared)


def _any(cleared: Iterable[bool]) -> bool:
    """Return whether anything was cleared, with all of it done: `any` would stop at the first."""
    return any(list(cleared))


def _empty(holder: dict[str, Any], *names: str) -> bool:
    """Empty texts and lists in place; return whether there was anything in them."""
    found = [name for name in names if holder.get(name)]
    holder.update((name, type(holder[name])()) for name in found)
    return bool(found)


def _kind(value: Any) -> str:  # noqa: ANN401 - any JSON value
    return str(_dict(value).get("type"))


def _dict(value: Any) -> dict[str, Any]:  # noqa: ANN401 - any JSON value
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:  # noqa: ANN401 - any JSON value
    return value if isinstance(value, list) else []


_CLEARED: Final[Mapping[DialectName, Callable[[dict[str, Any]], bool]]] = {
    DialectName.CHAT: _clear_completion,
    DialectName.TEXT: _clear_completion,
    DialectName.RESPONSES: _clear_response,
    DialectName.MESSAGES: _clear_message,
}
