"""A whole reply as an upstream gave it, in OpenAI's words: what is not its text stays as it is.

Where one of several whole replies is delivered, its calls of tools, refusal, reasoning, notes,
log-probabilities, finish reason and fields that nobody here knows belong to it. Clients of the same
dialect get them with every digit; those of others get what their dialect has a place for, and the
envelope's other fields. What has another form than OpenAI gives it goes on, and is not understood.

Source: OpenAI API reference, "The chat completion object"; Anthropic API reference, "Messages".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from watermark.wire.readings import text_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    Fields = Mapping[str, msgspec.Raw]

T = TypeVar("T")
_NO_ENVELOPE: Final = ("choices", "usage")
_OWN: Final = ("id", "object", "created", "model")  # of which each dialect has its own
_TRACES: Final = (
    "reasoning_content",
    "reasoning",
)  # vLLM, SGLang, DeepSeek; later vLLM, OpenRouter


class _Part(msgspec.Struct):
    type: str = ""
    text: str | None = None


class _Function(msgspec.Struct, frozen=True):
    name: str = ""
    arguments: str = ""


class Call(msgspec.Struct):
    """A call of a tool.

    Attributes:
        id: Its id.
        function: Name and arguments.
    """

    id: str = ""
    function: _Function = _Function()

    @property
    def input(self) -> Any:  # noqa: ANN401 - any JSON value
        """The arguments, read; none where they are not JSON."""
        try:
            return msgspec.json.decode(self.function.arguments or "{}")
        except msgspec.DecodeError:
            return {}


class _Message(msgspec.Struct):
    content: Any = None
    refusal: Any = None
    tool_calls: Any = None
    annotations: Any = None
    reasoning_content: Any = None  # vLLM, SGLang, DeepSeek
    reasoning: Any = None  # later vLLM, OpenRouter


class _Choice(msgspec.Struct):
    index: int = 0
    text: str | None = None
    message: _Message | None = None
    finish_reason: str | None = None
    stop_reason: Any = None
    logprobs: Any = None

    @property
    def said(self) -> _Message:
        """The message; an empty one of a text completion."""
        return self.message or _Message()


class _Details(msgspec.Struct):
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: Any = None
    completion_tokens_details: Any = None


class _Answer(msgspec.Struct):
    choices: list[_Choice]
    usage: _Usage | None = None


class _RawAnswer(msgspec.Struct):
    choices: list[dict[str, msgspec.Raw]]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Origin:
    """One whole reply.

    Attributes:
        envelope: The answer's fields besides choices and usage, as they are written.
        fields: The choice's fields, as they are written.
        usage: The usage's fields, as they are written; none where there is none.
        is_alone: Whether the usage is of this reply alone.
    """

    envelope: Fields
    fields: Fields
    usage: Fields
    is_alone: bool
    _choice: _Choice
    _usage: _Usage

    @property
    def index(self) -> int:
        """The choice's number."""
        return self._choice.index

    @property
    def text(self) -> str:
        """The reply's free text."""
        content = _as(str | list[_Part], self._choice.said.content, "")
        return (self._choice.text or "") + text_of(content)

    @property
    def finish(self) -> str | None:
        """Why it ended, in the upstream's words."""
        return self._choice.finish_reason

    @property
    def stop_string(self) -> str | None:
        """Which stop string ended it, where the upstream says (vLLM)."""
        return _as(str, self._choice.stop_reason, "") or None

    @property
    def trace(self) -> str:
        """The reasoning before it."""
        said = self._choice.said
        return _as(str, said.reasoning_content, "") or _as(str, said.reasoning, "")

    @property
    def refusal(self) -> str:
        """What it says in place of an answer."""
        return _as(str, self._choice.said.refusal, "")

    @property
    def calls(self) -> list[Call]:
        """Its calls of tools."""
        return _as(list[Call], self._choice.said.tool_calls, [])

    @property
    def annotations(self) -> list[dict[str, Any]]:
        """What its text is annotated with, in the flat form of the responses dialect."""
        found = []
        for one in _objects(self._choice.said.annotations):
            kind = one.get("type")
            inner = one.get(kind) if isinstance(kind, str) else None
            found.append({"type": kind} | inner if isinstance(inner, dict) else one)
        return found

    @property
    def logprobs(self) -> list[dict[str, Any]]:
        """Its tokens' log-probabilities, as the chat dialect lists them."""
        listed = self._choice.logprobs
        return _objects(listed.get("content")) if isinstance(listed, dict) else []

    @property
    def prompt_tokens(self) -> int | None:
        """Tokens of the prompt, as the upstream counts them."""
        return self._usage.prompt_tokens

    @property
    def completion_tokens(self) -> int | None:
        """Tokens of all choices of the answer, as the upstream counts them."""
        return self._usage.completion_tokens

    @property
    def cached_tokens(self) -> int | None:
        """Tokens of the prompt that needed no computation."""
        return _as(_Details, self._usage.prompt_tokens_details, _Details()).cached_tokens

    @property
    def reasoning_tokens(self) -> int | None:
        """Tokens of reasoning, of all choices of the answer."""
        return _as(_Details, self._usage.completion_tokens_details, _Details()).reasoning_tokens

    @property
    def message(self) -> Fields:
        """The message's fields, as they are written; none of a text completion."""
        raw = self.fields.get("message")
        return {} if raw is None else msgspec.json.decode(raw, type=dict[str, msgspec.Raw])

    @property
    def others(self) -> Fields:
        """The envelope's fields of which no dialect has one of its own."""
        return {name: raw for name, raw in self.envelope.items() if name not in _OWN}


def origins_of(data: bytes) -> list[Origin]:
    """Return the replies of one answer, by their numbers.

    Raises:
        msgspec.DecodeError: It is not JSON, or not of the dialect's form.
        UnicodeDecodeError: It is not UTF-8.
    """
    answer = msgspec.json.decode(data, type=_Answer)
    raw = msgspec.json.decode(data, type=_RawAnswer)
    fields = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
    usage = fields.get("usage")
    found = [
        Origin(
            envelope={name: one for name, one in fields.items() if name not in _NO_ENVELOPE},
            fields=one,
            usage=_members(usage) if answer.usage is not None and usage is not None else {},
            is_alone=len(raw.choices) == 1,
            _choice=choice,
            _usage=answer.usage or _Usage(),
        )
        for choice, one in zip(answer.choices, raw.choices, strict=True)
    ]
    return sorted(found, key=lambda one: one.index)


def _as(kind: Any, value: Any, other: T) -> T:  # noqa: ANN401 - any JSON value
    """Return a value of a kind; another value where it is none."""
    try:
        found: T = msgspec.convert(value, kind)
    except msgspec.ValidationError:
        return other
    return found


def _objects(value: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - any JSON value
    """Return a list of objects; an empty one where it is none."""
    none: list[dict[str, Any]] = []
    return _as(list[dict[str, Any]], value, none)


def _members(data: msgspec.Raw) -> Fields:
    return msgspec.json.decode(data, type=dict[str, msgspec.Raw])
