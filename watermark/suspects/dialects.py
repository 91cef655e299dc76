"""How three kinds of API are asked one prompt, and where the answer stands in theirs.

Source: OpenAI API reference, Chat and Completions; Anthropic API reference, Messages.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import msgspec

from watermark.errors import SuspectError
from watermark.radioactivity.plan import TokensField

_ANTHROPIC_VERSION: Final = "2023-06-01"
_USAGE: Final = (("prompt_tokens", "input_tokens"), ("completion_tokens", "output_tokens"))
_DIGITS: Final = 12
T = TypeVar("T")


class Dialect(enum.StrEnum):
    """Which endpoint a suspect is asked at."""

    CHAT = "chat"
    COMPLETIONS = "completions"
    MESSAGES = "messages"

    @property
    def path(self) -> str:
        """The endpoint, behind the base URL."""
        return _PATHS[self]


_PATHS: Final = {
    Dialect.CHAT: "/v1/chat/completions",
    Dialect.COMPLETIONS: "/v1/completions",
    Dialect.MESSAGES: "/v1/messages",
}


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """How a suspect is to answer.

    Attributes:
        temperature: As the API has it, >= 0; None leaves the field out.
        max_tokens: Tokens of an answer, >= 1.
        max_tokens_as: The field that says so; `none` leaves it out.
        system: A system prompt; empty for none. It is in view of every answer.
    """

    temperature: float | None = 1.0
    max_tokens: int = 400
    max_tokens_as: TokensField = TokensField.MAX_TOKENS
    system: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What stands in an answer.

    Attributes:
        text: What the model wrote.
        model: Its name.
        prompt_tokens: Tokens billed for the prompt; None where the answer does not say.
        completion_tokens: Tokens billed for the text; None likewise.
    """

    text: str
    model: str
    prompt_tokens: int | None
    completion_tokens: int | None


class _Message(msgspec.Struct):
    content: str | list[Any] | None = None
    refusal: str | None = None


class _Choice(msgspec.Struct):
    message: _Message | None = None
    text: str | None = None


class _OpenAI(msgspec.Struct):
    choices: list[_Choice]
    model: str | None = None
    usage: Any = None


class _Block(msgspec.Struct):
    type: str
    text: str | None = None


class _Anthropic(msgspec.Struct):
    content: list[_Block]
    model: str | None = None
    usage: Any = None


def headers_of(dialect: Dialect, api_key: str) -> dict[str, str]:
    """Return the headers of a request."""
    headers = {"content-type": "application/json"}
    if dialect is Dialect.MESSAGES:
        headers["anthropic-version"] = _ANTHROPIC_VERSION
    if api_key:
        name = "x-api-key" if dialect is Dialect.MESSAGES else "authorization"
        headers[name] = api_key if dialect is Dialect.MESSAGES else f"Bearer {api_key}"
    return headers


def body_of(dialect: Dialect, model: str, prompt: str, sampling: Sampling) -> bytes:
    """Return the body that asks one prompt; Anthropic's always says `max_tokens`."""
    body: dict[str, Any] = {"model": model}
    field = TokensField.MAX_TOKENS if dialect is Dialect.MESSAGES else sampling.max_tokens_as
    if field is not TokensField.NONE:
        body[field.value] = sampling.max_tokens
    if sampling.temperature is not None:
        body["temperature"] = sampling.temperature
    if dialect is Dialect.COMPLETIONS:
        body["prompt"] = as_one_text(sampling.system, prompt)
        return msgspec.json.encode(body)
    is_apart = dialect is Dialect.MESSAGES
    body["messages"] = as_turns("" if is_apart else sampling.system, prompt)
    if sampling.system and is_apart:
        body["system"] = sampling.system
    return msgspec.json.encode(body)


def as_one_text(system: str, prompt: str) -> str:
    """Return what a suspect is given that takes no roles; `system` is empty for none."""
    return f"{system}\n\n{prompt}" if system else prompt


def as_turns(system: str, prompt: str) -> list[dict[str, str]]:
    """Return what a suspect is given that takes roles; `system` is empty for none."""
    turns = [{"role": "system", "content": system}] if system else []
    return [*turns, {"role": "user", "content": prompt}]


def read_said(dialect: Dialect, data: bytes) -> Said:
    """Return what an answer says.

    Raises:
        SuspectError: It is not of the dialect's form; the message quotes nothing of it.
    """
    if dialect is Dialect.MESSAGES:
        answer = _decode(data, _Anthropic)
        text = "".join(one.text or "" for one in answer.content if one.type == "text")
        return _said(text, answer.model, answer.usage)
    found = _decode(data, _OpenAI)
    if not found.choices:
        raise SuspectError("the suspect's answer holds no choice")
    choice = found.choices[0]
    message = choice.message or _Message()
    text = choice.text or _joined(message.content) or message.refusal or ""
    return _said(text, found.model, found.usage)


def _joined(content: str | list[Any] | None) -> str:
    """Return a text, or the parts of one that are text."""
    if not isinstance(content, list):
        return content or ""
    parts = (one.get("text") if isinstance(one, dict) else one for one in content)
    return "".join(one for one in parts if isinstance(one, str))


def _said(text: str, model: str | None, usage: object) -> Said:
    prompt, completion = billed_tokens(usage)
    if text.strip():
        completion = completion or None  # text is never free: a zero says nothing
    return Said(
        text=text, model=model or "", prompt_tokens=prompt or None, completion_tokens=completion
    )


def billed_tokens(usage: object) -> tuple[int | None, int | None]:
    """Return tokens of prompt and of answer, as a server says them; None where it does not.

    Servers disagree on names and on types; what is no number is none, and never an error.
    """
    found = usage if isinstance(usage, dict) else {}
    prompt, said = (
        next((n for n in (_count(found.get(name)) for name in names) if n is not None), None)
        for names in _USAGE
    )
    return prompt, said


def _count(value: object) -> int | None:
    if isinstance(value, str):
        return int(value) if value.isascii() and value.isdigit() and len(value) < _DIGITS else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return math.ceil(value) if 0 <= value < 10.0**_DIGITS else None


def _decode(data: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise SuspectError("the suspect's answer is not of the dialect's form") from None
