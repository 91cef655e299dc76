"""Does an engine that is said to mark really mark: ask once, and read the answer with its key.

An engine that ignores its switch answers as if nothing were wrong: an older version, one that was
started without its watermark, another runner, a gateway in between that drops the field.

The test's own error: a text without the key's mark is taken for a marked one with probability
`SURE`, because p is super-uniform then; a marked one is missed where the model is so sure of its
tokens that some hundred of them leave nothing to choose.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, Final

from proxy.errors import UpstreamError, UpstreamUnreachableError
from proxy.sampling.native import switch_on
from watermark.detection import Detector
from watermark.errors import TextTooShortError
from watermark.wire.openai_requests import DialectName
from watermark.wire.readings import read_answer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proxy.upstream.client import UpstreamClient
    from watermark.keys import KeyRecord
    from watermark.text import Unit

    Pairs = list[tuple[bytes, bytes]]

SURE: Final = 1e-3
_LOG10_SURE: Final = -3.0
_TOKENS: Final = 400
_PROMPT: Final = "Write a long story about a town by the sea, in which every house has a name."


class NativeMark(enum.StrEnum):
    """What became of the mark that was asked for."""

    READ = "read"
    IGNORED = "ignored"
    NO_KEY = "no key"
    UNANSWERED = "unanswered"


async def read_native_mark(
    client: UpstreamClient,
    model: str,
    record: KeyRecord | None,
    unit: Unit,
    headers: Pairs,
) -> tuple[NativeMark, str]:
    """Return whether an engine marks as it is told to, and a line on how that was found.

    Args:
        client: The pool.
        model: The model's name.
        record: The key with which the engine would mark; None where there is none.
        unit: How it cuts text.
        headers: Of the probe's own requests.

    Raises:
        UpstreamUnreachableError: It does not answer.
    """
    if record is None:
        return NativeMark.NO_KEY, "no key of its scheme marks this model"
    failed = ""
    for path, body in _questions(model):
        try:
            data = await client.post_json(path.value, body | switch_on(body, record), headers)
        except UpstreamUnreachableError:
            raise
        except UpstreamError as err:
            failed = str(err).partition(";")[0]
            continue
        return _verdict("".join(read_answer(path, data).texts.values()), record, unit)
    return NativeMark.UNANSWERED, failed


def _questions(model: str) -> Iterator[tuple[DialectName, dict[str, Any]]]:
    """Yield the one question, as a chat and for models without a template."""
    common: dict[str, Any] = {"model": model, "max_tokens": _TOKENS, "temperature": 1.0}
    yield DialectName.CHAT, common | {"messages": [{"role": "user", "content": _PROMPT}]}
    yield DialectName.TEXT, common | {"prompt": _PROMPT}


def _verdict(text: str, record: KeyRecord, unit: Unit) -> tuple[NativeMark, str]:
    try:
        result = Detector(record, unit).detect(text)
    except TextTooShortError:
        return NativeMark.UNANSWERED, "it said too little to tell"
    is_read = result.log10_pvalue <= _LOG10_SURE
    said = f"log10 p {result.log10_pvalue:.1f} over {result.n_scored} tokens"
    return (NativeMark.READ if is_read else NativeMark.IGNORED), said
