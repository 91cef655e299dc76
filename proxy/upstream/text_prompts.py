"""Continuation by text: completions with a text prompt, chats with a prefix message; whole replies.

For upstreams that take no token ids (Together, llama-cpp-python, Mistral, DeepSeek). Every draft
asks for what comes after the prompt and the reply so far, as text; the answer is read as text,
and, where log-probabilities were asked for, cut into tokens by their labels (`text_labels`).

What such upstreams do, and what is done about it:

- A character that the last token leaves unfinished reads U+FFFD; it is cut off.
- An answer to a chat that is continued may repeat the text it was given (llama-server, not
  streamed): `Capabilities.echo`, see `proxy.upstream.echo`.
- Whole replies are asked for in the client's own words, and nothing is continued
  (`whole_replies`).
- Token counts come for all choices together. A choice that ended for its length has as many as
  were asked for, unless all did and the sum is smaller: then the context is full.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import msgspec

from proxy.errors import UpstreamProtocolError
from proxy.sampling.questions import Continuation, Draft, Drafted, Finish
from proxy.upstream.client import decode_answer
from proxy.upstream.continuing import ContextLimits, read_finish, text_continuation
from proxy.upstream.echo import BEGUN, QUESTION, Echo
from proxy.upstream.text_labels import LabelReader, Logprobs
from proxy.upstream.whole_replies import question_of, read_replies
from watermark.wire.openai_requests import DialectName

if TYPE_CHECKING:
    from collections.abc import Sequence

    from proxy.config import Capabilities
    from proxy.sampling.spelling import Spelling
    from proxy.upstream.client import UpstreamClient
    from watermark.wire.openai_requests import GenerationRequest

    Pairs = list[tuple[bytes, bytes]]

_UNFINISHED: Final = "\ufffd"


class _Message(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    text: str | None = None
    message: _Message | None = None
    finish_reason: str | None = None
    logprobs: Logprobs | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Answer(msgspec.Struct):
    choices: list[_Choice]
    usage: _Usage | None = None


class TextUpstream:
    """Asks one upstream for continuations of text."""

    def __init__(
        self, client: UpstreamClient, able: Capabilities, spelling: Spelling | None
    ) -> None:
        """Ask through a client.

        Args:
            client: The pool.
            able: What the upstream can do for the model.
            spelling: The model's tokens by their looks; None where no tokens are read.
        """
        self._client = client
        self._able = able
        self._reader = None if spelling is None else LabelReader(spelling, able)
        self._limits = ContextLimits(client)
        self._echo = Echo(repeats=able.echo)

    async def context_limit(self, model: str, headers: Pairs) -> int | None:
        """Return None: what is left of the context the answers tell (`Drafted.room`).

        Raises:
            UpstreamError: The upstream did not answer, or not in form.
        """
        await self._limits.of(model, headers)
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
        """Return continuations.

        Raises:
            UpstreamError: The upstream refused, did not answer, or not in form.
        """
        path = request.dialect.value
        if draft.is_whole:
            question = question_of(request, draft)
            return read_replies(await self._client.post_json(path, question, headers), draft)
        answer = await self._answer(request, self._asked(request, draft), headers)
        texts = [_text(one) for one in answer.choices]
        if request.dialect is DialectName.CHAT:
            given = self._given(request) + draft.text
            texts = await self._echo.cut(texts, given, lambda: self._continued(request, headers))
        limit = self._limits.known(request.model)
        read = answer.usage.prompt_tokens if answer.usage else None
        return Drafted(
            self._continuations(draft, answer, texts),
            prompt_tokens=read,
            room=None if limit is None or read is None else limit - read,
        )

    async def _answer(
        self, request: GenerationRequest, body: dict[str, Any], headers: Pairs
    ) -> _Answer:
        """Return an answer, its choices in order."""
        data = await self._client.post_json(request.dialect.value, body, headers)
        answer = decode_answer(data, _Answer)
        answer.choices.sort(key=lambda one: one.index)
        return answer

    async def _continued(self, request: GenerationRequest, headers: Pairs) -> str:
        """Return what the upstream makes of the beginning that tells whether it repeats it."""
        messages = [{"role": "user", "content": QUESTION}]
        begun = replace(request, body={"messages": messages})
        draft = Draft(tokens=(), text=BEGUN, n=1, max_tokens=1)
        answer = await self._answer(begun, self._asked(begun, draft), headers)
        return "".join(_text(one) for one in answer.choices[:1])

    def _asked(self, request: GenerationRequest, draft: Draft) -> dict[str, Any]:
        body = self._body(request, draft)
        if request.dialect is DialectName.CHAT:
            return body | self._conversation(request, draft.text)
        return body | {"prompt": f"{request.prompt}{draft.text}"}

    def _body(self, request: GenerationRequest, draft: Draft) -> dict[str, Any]:
        """Return the parameters; fields that not every vendor knows only where they are needed."""
        body: dict[str, Any] = {
            "model": request.model,
            "max_tokens": draft.max_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
        }
        optional = {
            "n": draft.n if draft.n > 1 else None,
            "top_k": request.top_k or request.body.get("top_k"),
            "logit_bias": {str(t): value for t, value in draft.bias.items()} or None,
            "seed": draft.seed,
        }
        body |= {name: value for name, value in optional.items() if value is not None}
        if draft.logprobs and request.dialect is DialectName.CHAT:
            body |= {"logprobs": True, "top_logprobs": draft.logprobs}
        elif draft.logprobs:
            body["logprobs"] = draft.logprobs
        return body

    def _conversation(self, request: GenerationRequest, text: str) -> dict[str, Any]:
        """Return the messages, the reply so far the last of them, and what says to go on."""
        names = ("add_generation_prompt", "continue_final_message")
        flags = {name: request.body[name] for name in names if name in request.body}
        messages: list[Any] = list(request.body["messages"])
        is_ours = request.client_dialect is DialectName.MESSAGES  # whose clients say no flags
        is_open = self._is_open(request)
        if not text and not (is_open and is_ours):
            return {"messages": messages} | flags
        if is_open:
            messages[-1] = messages[-1] | {"content": self._given(request) + text}
        else:
            messages.append({"role": "assistant", "content": text})
        if self._able.prefix == "prefix":
            messages[-1] = messages[-1] | {"prefix": True}
        elif self._able.prefix == "continue-final-message":
            flags = {"add_generation_prompt": False, "continue_final_message": True}
        if is_ours and self._able.prefix != "continue-final-message":
            flags = {}
        return {"messages": messages} | flags

    def _is_open(self, request: GenerationRequest) -> bool:
        """Return whether the client began the reply itself."""
        if request.dialect is not DialectName.CHAT or not request.messages:
            return False
        if request.messages[-1].role != "assistant":
            return False
        if self._able.prefix == "trailing":
            return True
        last = request.body["messages"][-1]
        return bool(last.get("prefix") or request.body.get("continue_final_message"))

    def _given(self, request: GenerationRequest) -> str:
        """Return how the client began the reply."""
        return (request.messages[-1].text or "") if self._is_open(request) else ""

    def _continuations(
        self, draft: Draft, answer: _Answer, texts: Sequence[str]
    ) -> tuple[Continuation, ...]:
        choices = answer.choices
        finishes = [read_finish(one.finish_reason) for one in choices]
        total = answer.usage.completion_tokens if answer.usage else None
        counts = _counts(finishes, draft.max_tokens, total)
        return tuple(
            self._continuation(draft, choice, text, finish, count)
            for choice, text, finish, count in zip(choices, texts, finishes, counts, strict=True)
        )

    def _continuation(
        self, draft: Draft, choice: _Choice, text: str, finish: Finish, count: int
    ) -> Continuation:
        if finish is Finish.LENGTH:
            text = text.rstrip(_UNFINISHED)
        if draft.logprobs and self._reader is not None:
            return self._reader.read(draft, choice.logprobs, text, finish)
        return text_continuation(text, finish, count)


def _text(choice: _Choice) -> str:
    message = choice.message or _Message()
    if message.reasoning_content or message.reasoning:
        raise UpstreamProtocolError(
            "the upstream shows its reasoning, and only answers are chosen among; switch reasoning "
            "off, or leave this model out of the config"
        )
    return choice.text or message.content or ""


def _counts(finishes: Sequence[Finish], asked: int, total: int | None) -> list[int]:
    """Return how many tokens each choice took, the end included."""
    n_ended = sum(finish is Finish.STOP for finish in finishes)
    n_full = len(finishes) - n_ended
    if total is None:
        return [asked] * len(finishes)
    if not n_ended:
        return [min(asked, total // max(1, n_full))] * n_full
    ended = min(asked, max(1, (total - n_full * asked) // n_ended))
    return [ended if finish is Finish.STOP else asked for finish in finishes]
