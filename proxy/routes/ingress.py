"""What of a request is the proxy's to say: fields that switch the mark off, or choose its key.

Engines that mark take such fields from whoever asks, and leave it to what stands before them to
strip or check them. Rule 1: they are looked for in every body that can be read as JSON, whatever
its label, on any path. Rule 2: a body is changed only where a rule changes it; every other goes on
byte for byte. Rule 3: what only lenient readers take for JSON (NaN, UTF-16, half a surrogate pair)
is refused: an upstream might read fields in it that are not seen here. Rule 4: the fields of a form
have the same names (vLLM's transcriptions); a form is never changed, so that such a field in it is
refused unless its rule is to pass it.

Source: vLLM 0.33 ("restrict this field to trusted callers, or strip and validate it at the ingress
boundary") and SGLang 0.5.23, whose `watermark` takes a key of the client's own.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import msgspec

from proxy.errors import BadRequestError
from proxy.routes.exchange import LEADING
from proxy.routes.packing import FORM, PARTS, PartNames, form_names
from watermark.wire.json_fields import raw_fields

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

    from proxy.config import IngressConfig
    from proxy.telemetry.metrics import Metrics
    from watermark.wire.openai_requests import GenerationRequest

OWNED: Final = (
    *("watermarking", "watermark", "custom_logit_processor", "custom_params"),
    *("vllm_xargs", "generation_config", "use_beam_search"),
)
NESTED: Final = "sampling_params"  # SGLang's `/generate` has some of them in here
# What asks for nothing is taken out, and not refused.
_NEUTRAL: Final[dict[str, tuple[object, ...]]] = {
    "watermarking": (None, True),
    "use_beam_search": (None, False),
}
_FEWEST: Final = 4  # bytes that tell a byte order mark
_MARKS: Final = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")


def may_be_json(begun: bytes) -> bool | None:
    """Return whether a body that begins like this may be a JSON object; None where unclear yet.

    Its label is not asked: some servers read any body as JSON.

    Args:
        begun: Its beginning, without blanks before it (`LEADING`).
    """
    if len(begun) < _FEWEST:
        return None
    return begun.startswith((b"{", *_MARKS))


class Ingress:
    """The operator's rules, at work."""

    def __init__(self, config: IngressConfig, metrics: Metrics) -> None:
        """Apply rules and count."""
        self._rules: dict[str, str] = {name: getattr(config, name) for name in OWNED}
        self._bias_rule = config.logit_bias
        self._reserved = frozenset(config.reserved)
        self._metrics = metrics

    def admit(self, body: bytes) -> bytes:
        """Return a body as it may go on: the same object where no rule changes it.

        Raises:
            BadRequestError: It holds a field that is refused, or is JSON to lenient readers only.
        """
        if not may_be_json(body.lstrip(LEADING)):
            return body
        try:
            asked = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            _refuse_lenient(body)
            return body
        if not isinstance(asked, dict):
            return body
        changed = self._apply(asked, body)
        nested = asked.get(NESTED)
        if isinstance(nested, dict):
            fields = raw_fields(changed)
            inner = bytes(fields[NESTED])
            kept = self._apply(nested, inner)
            if kept is not inner:
                changed = msgspec.json.encode(fields | {NESTED: msgspec.Raw(kept)})
        return changed

    def own_bias(self, request: GenerationRequest) -> Mapping[int, float]:
        """Return what stays of a client's biases where the proxy's own carry the mark.

        Raises:
            BadRequestError: He may set none.
        """
        if not request.logit_bias:
            return {}
        self._metrics.owned("logit_bias", self._bias_rule)
        if self._bias_rule == "refuse":
            raise BadRequestError(
                "logit_bias is not the client's to set here; leave it out", param="logit_bias"
            )
        return request.logit_bias if self._bias_rule == "merge" else {}

    async def watched(self, content: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Yield a multipart form's bytes as they come, as far as its fields are the client's.

        Raises:
            BadRequestError: It holds one that is not.
        """
        parts = PartNames()
        async for chunk in content:
            self._check(parts.feed(chunk))
            yield chunk

    def check_form(self, kinds: Sequence[bytes], body: bytes) -> None:
        """Hold the fields of a form against the rules.

        Raises:
            BadRequestError: One is not the client's to set.
        """
        if any(kind.startswith(PARTS) for kind in kinds):
            self._check(PartNames().feed(body))
        if any(kind.startswith(FORM) for kind in kinds):
            self._check(form_names(body))

    def _check(self, names: Iterable[str]) -> None:
        """Hold the names of a form's fields against the rules.

        Raises:
            BadRequestError: One is not the client's to set.
        """
        for name in names:
            bare = name.partition("[")[0]  # `name[key]` is how forms write entries
            if self._rules.get(bare, "pass") != "pass":
                self._metrics.owned(bare, "refuse")
                raise BadRequestError(
                    f"{bare} is not the client's to set here; leave it out", param=bare
                )

    def _apply(self, asked: dict[str, Any], data: bytes) -> bytes:
        """Return an object as the rules leave it; what they do not name keeps its bytes."""
        named = [name for name in OWNED if name in asked and self._rules[name] != "pass"]
        if not named:
            return data
        fields = raw_fields(data)
        before = dict(fields)
        for name in named:
            self._rule(fields, name, asked[name])
        return data if fields == before else msgspec.json.encode(fields)

    def _rule(self, fields: dict[str, msgspec.Raw], name: str, value: object) -> None:
        """Apply the rule of one field that the client has set."""
        rule = self._rules[name]
        if rule == "merge" and isinstance(value, dict):
            if self._reserved & value.keys():
                self._metrics.owned(name, rule)
                fields[name] = self._without_reserved(fields[name])
            return
        self._metrics.owned(name, rule)
        if rule == "refuse" and value not in _NEUTRAL.get(name, (None,)):
            raise BadRequestError(
                f"{name} is not the client's to set here; leave it out", param=name
            )
        del fields[name]

    def _without_reserved(self, entries: msgspec.Raw) -> msgspec.Raw:
        """Return a client's entries without those that are the operator's."""
        kept = {k: v for k, v in raw_fields(bytes(entries)).items() if k not in self._reserved}
        return msgspec.Raw(msgspec.json.encode(kept))


def _is_object(data: bytes | str) -> bool:
    """Return whether a lenient reader takes bytes, or characters, for an object."""
    try:
        return isinstance(json.loads(data), dict)
    except RecursionError:  # a reader without a limit would not stop here
        return True
    except ValueError:
        return False


def _refuse_lenient(body: bytes) -> None:
    """Refuse what Python's own reader takes for an object, and a strict one does not.

    Raises:
        BadRequestError: It does.
    """
    if _is_object(body) or _is_object(body.decode("latin-1")):
        raise BadRequestError(
            "the request body is JSON to lenient readers only; send it in UTF-8, without NaN, "
            "Infinity or half a surrogate pair, and not nested without end"
        )
