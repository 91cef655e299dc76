"""Which texts of a record are tested, and which were in view of the model.

Rule 1: each text is a reply of its own; no context reaches from one into the next. Rule 2: what
was in view of the model excludes the contexts that occur in it: the prompt field where one is
named, and the turns of a conversation that are not the assistant's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from watermark.text.canonical import canonical

SEARCHED: Final = (
    "text", "content", "completion", "response", "output", "answer", "messages", "conversations",
)  # fmt: skip
"""Where the text is looked for, in this order, when no field is named."""
_ASSISTANTS: Final = frozenset({"assistant", "gpt", "model", "bot", "chatgpt"})


@dataclass(frozen=True, slots=True)
class Document:
    """The texts of one record.

    Attributes:
        replies: What is tested.
        prompts: What was in view of the model.
    """

    replies: tuple[str, ...]
    prompts: tuple[str, ...] = ()

    def in_canonical_form(self) -> Document:
        """Return the document with all its texts in their canonical form."""
        return Document(tuple(map(canonical, self.replies)), tuple(map(canonical, self.prompts)))


@dataclass(frozen=True, slots=True)
class FieldChoice:
    """Where the texts of a record stand.

    Attributes:
        field: Path of names with dots between; None searches for a usual one.
        prompt_field: The same for the prompt; None where there is none.
    """

    field: str | None = None
    prompt_field: str | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of a table that may be needed."""
        fields = SEARCHED if self.field is None else (self.field,)
        if self.prompt_field is not None:
            fields = (*fields, self.prompt_field)
        return tuple(dict.fromkeys(field.partition(".")[0] for field in fields))

    def document(self, record: object) -> Document | str:
        """Return the texts of a record, or why there are none."""
        if isinstance(record, str) and self.field is None and self.prompt_field is None:
            return Document((record,))
        if not isinstance(record, dict):
            return "not a JSON object"
        value = self._value(record)
        if value is None:
            return f"no field {self.field or ', '.join(SEARCHED)}"
        replies, prompts = _turns(value)
        if not replies:
            return "the field holds no text"
        if self.prompt_field is not None:
            given = _at(record, self.prompt_field)
            if given is None:
                return f"no prompt field {self.prompt_field}"
            own, others = _turns(given)
            prompts += own + others
        return Document(tuple(replies), tuple(prompts))

    def _value(self, record: dict[str, object]) -> object:
        if self.field is not None:
            return _at(record, self.field)
        for name in SEARCHED:
            value = record.get(name)
            if value and isinstance(value, str | list):
                return value
        return None


def _at(record: object, path: str) -> object:
    """Return what stands at a path of names; None where there is nothing."""
    if isinstance(record, dict) and path in record:
        return record[path]
    for name in path.split("."):
        if not isinstance(record, dict):
            return None
        record = record.get(name)
    return record


def _turns(value: object) -> tuple[list[str], list[str]]:
    """Return the texts of a value, and the turns of others where it is a conversation."""
    if isinstance(value, str):
        return ([value] if value else []), []
    replies: list[str] = []
    others: list[str] = []
    for part in value if isinstance(value, list) else [value]:
        if isinstance(part, str):
            replies.append(part)
        elif isinstance(part, dict):
            role = part.get("role", part.get("from"))
            texts = _content(part.get("content", part.get("value", part.get("text"))))
            (replies if _is_assistant(role) else others).extend(texts)
    return [text for text in replies if text], [text for text in others if text]


def _is_assistant(role: object) -> bool:
    """Return whether a turn of a role is the model's; a role may be any JSON."""
    return role is None or (isinstance(role, str) and role in _ASSISTANTS)


def _content(content: object) -> list[str]:
    """Return the texts of a turn: a string, or parts of which some are text."""
    parts = content if isinstance(content, list) else [content]
    texts = [part.get("text") if isinstance(part, dict) else part for part in parts]
    return [text for text in texts if isinstance(text, str)]
