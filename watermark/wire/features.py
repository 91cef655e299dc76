"""What a request asks for besides free text: such replies are passed as they are."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping


class Feature(enum.StrEnum):
    """Something that a reply may hold, or do, besides giving text."""

    TOOLS = "tools"
    STRUCTURED_OUTPUT = "structured-output"
    REASONING = "reasoning"
    STORED = "stored"


# What asks for a reasoning trace, in the APIs' own words, with what asks for none.
_REASONING: Final[Mapping[str, tuple[Any, ...]]] = {
    "reasoning_effort": (None, "none"),
    "include_reasoning": (None, False),
    "thinking": (None, {"type": "disabled"}),
    "enable_thinking": (None, False),
    "thinking_budget": (None, 0),
}
REASONING_FIELDS: Final = frozenset({*_REASONING, "reasoning"})
TEMPLATE: Final = "chat_template_kwargs"
_TEMPLATE_SWITCHES: Final = ("enable_thinking", "thinking")
# Grammars and schemas: OpenAI's, vLLM's, SGLang's, llama.cpp's, Anthropic's.
_GRAMMARS: Final = (
    *("structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar"),
    *("json_schema", "regex", "ebnf", "structural_tag", "grammar", "output_format"),
)
_PLAIN: Final = (None, {"type": "text"})
# The upstream keeps a reply, or goes on with one that it kept; ours it does not have.
_STORED: Final = ("previous_response_id", "conversation", "prompt", "background", "store")


def features_of(body: Mapping[str, Any], *, is_stateful: bool = False) -> frozenset[Feature]:
    """Return what a request asks for besides text.

    Args:
        body: The request in its own dialect.
        is_stateful: Whether the dialect keeps replies at the upstream (OpenAI responses).
    """
    found = {
        Feature.TOOLS: bool(body.get("tools") or body.get("functions")),
        Feature.STRUCTURED_OUTPUT: _is_structured(body),
        Feature.REASONING: _asks_for_reasoning(body),
        Feature.STORED: is_stateful and any(body.get(name) for name in _STORED),
    }
    return frozenset(feature for feature, is_asked in found.items() if is_asked)


def _is_structured(body: Mapping[str, Any]) -> bool:
    if body.get("response_format") not in _PLAIN:
        return True
    nested = (_member(body, "text", "format"), _member(body, "output_config", "format"))
    if any(form not in _PLAIN for form in nested):
        return True
    return any(body.get(name) is not None for name in _GRAMMARS)


def _asks_for_reasoning(body: Mapping[str, Any]) -> bool:
    if any(body.get(name) not in neutral for name, neutral in _REASONING.items()):
        return True
    reasoning = body.get("reasoning")
    if isinstance(reasoning, dict):
        effort = reasoning.get("effort")
        others = any(value for name, value in reasoning.items() if name != "effort")
        return others or effort not in (None, "none")
    template = body.get(TEMPLATE)
    is_switched = isinstance(template, dict) and any(template.get(s) for s in _TEMPLATE_SWITCHES)
    return bool(reasoning) or is_switched


def _member(body: Mapping[str, Any], name: str, member: str) -> Any:  # noqa: ANN401 - any JSON
    holder = body.get(name)
    return holder.get(member) if isinstance(holder, dict) else None
