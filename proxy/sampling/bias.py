"""`bias`: an upstream that takes biases and nothing else. What is added to a request.

The request goes on as the client wrote it, with a keyed list of tokens in `logit_bias`; the reply
passes back as it comes. What the client has in that field is his: the list is added to it, and a
token that he bans stays banned.

It changes the distribution of replies, and the list can be read off them: off unless the operator
switches it on, and no evidence.

Source: `watermark.schemes.static_green_list`; UPSTREAMS (vLLM 0.33.0: 1,024 entries, -100 to 100).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from proxy.sampling.parameters import MAX_BIAS
from watermark.keys import STATIC_GREEN_LIST
from watermark.schemes import green_list
from watermark.wire.openai_requests import DialectName

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from proxy.config import ModelConfig
    from watermark.keys import KeyRecord
    from watermark.text import TokenTable
    from watermark.wire.openai_requests import GenerationRequest

_TAKES_BIASES: Final = frozenset({DialectName.CHAT, DialectName.TEXT})
_LEAST_SHARE: Final = 0.5  # of the list; a smaller rest would be tested as if it were whole


def is_biased_by(record: KeyRecord) -> bool:
    """Return whether a key marks by biases."""
    return record.scheme == STATIC_GREEN_LIST


def takes_biases(request: GenerationRequest, model: ModelConfig) -> bool:
    """Return whether the operator and the dialect have a list go with a request."""
    is_asked = request.client_dialect in _TAKES_BIASES
    return is_asked and model.bias.enabled and model.capabilities.logit_bias


def has_room(n_own: int, record: KeyRecord, max_bias: int) -> bool:
    """Return whether enough of a key's list fits beside a client's own biases.

    Args:
        n_own: How many of those there are.
        record: A key of the scheme `static-green-list`.
        max_bias: Most biases a request.
    """
    return max_bias - n_own >= _LEAST_SHARE * int(record.parameter("list_size"))


def sayable(record: KeyRecord, table: TokenTable) -> list[int]:
    """Return the green ids of a key that are whole text.

    A special token or half a character would be more frequent in the reply, and break it.
    """
    ids = green_list(record).tolist()
    return [token for token in ids if token < len(table.content) and _is_text(token, table)]


def _is_text(token: int, table: TokenTable) -> bool:
    if token in table.special or token in table.byte_pieces or not table.content[token]:
        return False
    try:
        table.content[token].decode()
    except UnicodeDecodeError:
        return False
    return True


def with_list(
    own: Mapping[int, float], green: Sequence[int], *, delta: float, max_bias: int
) -> dict[str, Any]:
    """Return the field `logit_bias`: a client's own biases, and a list in what room they leave.

    Args:
        own: By token id; -100 bans, and is left alone.
        green: The ids of the list.
        delta: What is added to each, in nats.
        max_bias: Most entries; the end of the list is cut off.
    """
    listed = frozenset(green)
    merged = {
        token: min(value + delta, MAX_BIAS) if token in listed and value > -MAX_BIAS else value
        for token, value in own.items()
    }
    added = [token for token in green if token not in own][: max(0, max_bias - len(own))]
    merged |= dict.fromkeys(added, delta)
    return {"logit_bias": {str(token): _number(value) for token, value in merged.items()}}


def _number(value: float) -> float:
    """Return an integer where there is one: some servers take nothing else."""
    return int(value) if value.is_integer() else value
