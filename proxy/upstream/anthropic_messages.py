"""Continuation over Anthropic's messages: a closing message of the assistant's is gone on with.

For upstreams that speak this dialect alone. Each request gives one choice, so several are asked
side by side (`max_n = 1`, `parallel`). What the dialect does, and what is done about it:

- It refuses a closing message that ends in white space: what a continuation ends in is cut off, and
  drawn anew with what follows. (So a reply that ends for its length has no white space at its end.)
- Claude 4.6 and later refuse a closing message of the assistant's at all (400): the probe finds
  out, and whole replies are left. Later models refuse `temperature` too: what the client does not
  say is not said.
- A length is compulsory; whole replies of clients that name none get `WHOLE_TOKENS`.

Source: Anthropic API reference, "Create a message"; UPSTREAMS 2.7.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from proxy.errors import UpstreamProtocolError
from proxy.sampling.questions import UNBOUNDED, Continuation, Drafted, Finish
from proxy.upstream.client import decode_answer
from proxy.upstream.continuing import read_finish, text_continuation
from proxy.upstream.echo import BEGUN, QUESTION, Echo
from proxy.upstream.headers import with_anthropic_key
from proxy.upstream.whole_replies import read_replies
from watermark.wire.openai_requests import DialectName

if TYPE_CHECKING:
    from collections.abc import Sequence

    from proxy.sampling.questions import Draft
    from proxy.upstream.client import UpstreamClient
    from watermark.wire.openai_requests import GenerationRequest

    Pairs = list[tuple[bytes, bytes]]

WHOLE_TOKENS: Final = 4096  # every model's bound is at least this
_FINISHES: Final = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "refusal": "content_filter",
}
_SYSTEM: Final = frozenset({"system", "developer"})
_OURS: Final = ("stream", "max_tokens", "stop_sequences")
_SAMPLING: Final = ("temperature", "top_p", "top_k")


class _Block(msgspec.Struct):
    type: str
    text: str = ""
    thinking: str = ""


class _Usage(msgspec.Struct, frozen=True):
    input_tokens: int | None = None
    output_tokens: int | None = None


class _Message(msgspec.Struct):
    content: list[_Block]
    stop_reason: str | None = None
    stop_sequence: str | None = None
    usage: _Usage = _Usage()


class MessagesUpstream:
    """Asks one upstream for continuations, or whole replies, of messages."""

    def __init__(self, client: UpstreamClient, *, repeats: bool | None = None) -> None:
        """Ask through a client.

        Args:
            client: The pool.
            repeats: Whether the upstream repeats what it continues; None where nobody said.
        """
        self._client = client
        self._echo = Echo(repeats=repeats)

    async def context_limit(self, model: str, headers: Pairs) -> int | None:  # noqa: ARG002
        """Return None: it is not told; an answer that is cut short shows it."""
        return None

    async def prompt_ids(self, request: GenerationRequest, headers: Pairs) -> list[int]:  # noqa: ARG002
        """Return nothing: the prompt stays text."""
        return []

    async def draft(
        self,
        request: GenerationRequest,
        prompt: Sequence[int],  # noqa: ARG002 - the prompt is in the request
        draft: Draft,
        headers: Pairs,
    ) -> Drafted:
        """Return one continuation.

        Raises:
            UpstreamError: The upstream refused, did not answer, or not in form.
        """
        if draft.n > 1:
            raise UpstreamProtocolError(
                "messages give one choice a request; set max_n = 1 and parallel"
            )
        body = _whole(request, draft) if draft.is_whole else _continued(request, draft)
        answer = await self._answer(body, headers)
        if draft.is_whole:
            return read_replies(_as_chat(answer), draft)
        given = _said(request, draft) if draft.text else _given(request)
        (text,) = await self._echo.cut(
            [_text(answer)], given, lambda: self._begun(request, headers)
        )
        return Drafted(
            (_continuation(draft, answer, text),), prompt_tokens=answer.usage.input_tokens
        )

    async def _answer(self, body: dict[str, Any], headers: Pairs) -> _Message:
        data = await self._client.post_json("/v1/messages", body, with_anthropic_key(headers))
        return decode_answer(data, _Message)

    async def _begun(self, request: GenerationRequest, headers: Pairs) -> str:
        """Return what the upstream makes of the beginning that tells whether it repeats it."""
        turns = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": BEGUN}]
        body = _asked(request) | {"messages": turns, "max_tokens": 1}
        body.pop("system", None)
        return _text(await self._answer(body, headers))


def _continuation(draft: Draft, answer: _Message, text: str) -> Continuation:
    finish = read_finish(_FINISHES.get(answer.stop_reason or "", answer.stop_reason))
    if finish is Finish.LENGTH:
        text = text.rstrip()
    told = draft.max_tokens if finish is Finish.LENGTH else max(1, len(text) // 4)
    count = min(draft.max_tokens, max(1, answer.usage.output_tokens or told))
    return text_continuation(text, finish, count)


def _text(answer: _Message) -> str:
    if any(block.type != "text" for block in answer.content):
        raise UpstreamProtocolError(
            "the upstream's message holds more than text, such as thinking; switch that off, or "
            "leave this model out of the config"
        )
    return "".join(block.text for block in answer.content)


def _as_chat(answer: _Message) -> bytes:
    """Return a whole reply as a chat completion, in which it is handed on."""
    texts = (block.text for block in answer.content if block.type == "text")
    message: dict[str, Any] = {"role": "assistant", "content": "".join(texts)}
    if thought := "".join(block.thinking for block in answer.content):
        message["reasoning_content"] = thought
    choice = {
        "index": 0,
        "message": message,
        "finish_reason": _FINISHES.get(answer.stop_reason or "", answer.stop_reason),
        "stop_reason": answer.stop_sequence,
    }
    read, written = answer.usage.input_tokens, answer.usage.output_tokens
    usage = {"prompt_tokens": read, "completion_tokens": written}
    return msgspec.json.encode({"choices": [choice], "usage": usage})


def _given(request: GenerationRequest) -> str:
    """Return how the client began the reply; the dialect goes on with a closing message."""
    messages = request.messages
    is_open = bool(messages) and messages[-1].role == "assistant"
    return (messages[-1].text or "") if is_open else ""


def _whole(request: GenerationRequest, draft: Draft) -> dict[str, Any]:
    """Return the client's own request."""
    length = WHOLE_TOKENS if draft.max_tokens == UNBOUNDED else draft.max_tokens
    stop = {"stop_sequences": list(request.stop)} if request.stop else {}
    return _asked(request) | {"max_tokens": length} | stop


def _continued(request: GenerationRequest, draft: Draft) -> dict[str, Any]:
    """Return the request with the reply so far as its closing message."""
    body = _asked(request) | {"max_tokens": draft.max_tokens}
    if draft.text:
        messages = list(body["messages"])
        if _given(request):
            messages.pop()
        body["messages"] = [*messages, {"role": "assistant", "content": _said(request, draft)}]
    return body


def _said(request: GenerationRequest, draft: Draft) -> str:
    """Return the reply so far as the dialect takes it."""
    return (_given(request) + draft.text).rstrip()


def _asked(request: GenerationRequest) -> dict[str, Any]:
    """Return what the client asks for, in this dialect's words."""
    if request.client_dialect is DialectName.MESSAGES:
        return {name: value for name, value in request.client_body.items() if name not in _OURS}
    system = [one.text or "" for one in request.messages if one.role in _SYSTEM]
    turns = [
        {"role": one.role, "content": one.text or ""}
        for one in request.messages
        if one.role not in _SYSTEM
    ]
    body: dict[str, Any] = {"model": request.model, "messages": turns}
    body |= {name: request.body[name] for name in _SAMPLING if request.body.get(name) is not None}
    return body | ({"system": "\n\n".join(system)} if system else {})
