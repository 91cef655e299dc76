"""`POST /watermark/detect`: named callers ask whether a text carries a key's mark.

Rule 1: nobody asks who is not named; `*` names nobody. Rule 2: a question is counted before it is
answered, in a file that all workers share and a restart keeps, and written down before the answer
leaves; where either cannot be written nothing is answered. Rule 3: what is written names the
caller, the key and the level, never the text.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec

from proxy.errors import (
    BadRequestError,
    BudgetSpentError,
    NotAllowedError,
    ProxyError,
    UnknownKeyError,
)
from proxy.routes.exchange import ClientGoneError, Exchange, caller_digest
from watermark.detection import CoarseAnswer, Oracle
from watermark.errors import KeysError, TextEncodingError, TextTooShortError, UnitMismatchError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from starlette.types import Receive, Scope, Send

    from proxy.config import DetectionConfig
    from proxy.sampling.keys import KeyHolder
    from proxy.telemetry.metrics import Metrics
    from watermark.keys import KeyRecord
    from watermark.text import Unit

_OWNER_ONLY: Final = 0o600
_FOLDER_MODE: Final = 0o700


class _Question(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    text: str
    key: str
    unit: str | None = None


class _AuditLine(msgspec.Struct, frozen=True, kw_only=True):
    time: str
    caller: str
    key: str
    unit: str
    outcome: str
    n_units: int = 0
    scored: str = ""


class QueryBook:
    """Counts questions and writes them down, in a folder that all workers share.

    A question is one byte in a file of its caller, key and day, so its size is the count.
    """

    def __init__(self, folder: Path) -> None:
        """Keep the book in a folder, which is made when the first question comes."""
        self._folder = folder

    def count(self, *, caller: str, record: KeyRecord, day: str) -> int:
        """Count one question and return how many there are of its day, caller and key.

        Raises:
            OSError: It cannot be counted.
        """
        who = caller.removeprefix("sha256:")
        name = f"{day}.{who}.{record.secret.fingerprint}.count"
        descriptor = self._open(name)
        try:
            os.write(descriptor, b".")
            return os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)

    def write(self, line: _AuditLine) -> None:
        """Append one line to the audit of its day; whole, whoever else writes.

        Raises:
            OSError: It cannot be written.
        """
        descriptor = self._open(f"{line.time[:10]}.audit.jsonl")
        try:
            os.write(descriptor, msgspec.json.encode(line) + b"\n")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _open(self, name: str) -> int:
        self._folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        return os.open(self._folder / name, flags, _OWNER_ONLY)


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionService:
    """What the endpoint needs.

    Attributes:
        config: Who may ask, and how often.
        keys: The keys in force.
        units: How the served models' keys cut text, by unit id.
        book: Where questions are counted and written down.
        metrics: The counters.
        max_body_bytes: Largest question.
        now: Seconds since the epoch.
    """

    config: DetectionConfig
    keys: KeyHolder
    units: Mapping[str, Unit]
    book: QueryBook
    metrics: Metrics
    max_body_bytes: int
    now: Callable[[], float]

    def ask(self, caller: str, body: bytes) -> CoarseAnswer:
        """Answer one question.

        Raises:
            ProxyError: It is no question, is not about a key of this place, is about too short a
                text, or the day's budget is spent.
            OSError: It cannot be counted or written down.
        """
        moment = datetime.fromtimestamp(self.now(), UTC)
        question = _read(body)
        record = self._record(question, moment)
        oracle = self._oracle(record)
        count = self.book.count(caller=caller, record=record, day=f"{moment:%Y-%m-%d}")
        answer: CoarseAnswer | None = None
        outcome = "budget-spent"
        try:
            self._check_budget(count)
            outcome = "refused"
            answer = _asked(oracle, question.text)
            outcome = answer.verdict.value
        finally:
            self.book.write(
                _AuditLine(
                    time=moment.isoformat().replace("+00:00", "Z"),
                    caller=caller,
                    key=record.key_id,
                    unit=record.unit,
                    outcome=outcome,
                    n_units=0 if answer is None else answer.n_units,
                    scored="" if answer is None else answer.scored,
                )
            )
            self.metrics.asked(outcome)
        return answer

    def _check_budget(self, count: int) -> None:
        if count > self.config.queries_per_day:
            raise BudgetSpentError(
                f"{self.config.queries_per_day} questions a day and key are answered; ask again "
                "tomorrow (UTC), or have the operator test the text offline"
            )

    def _record(self, question: _Question, moment: datetime) -> KeyRecord:
        ring = self.keys.current.ring
        found = [one for one in ring.detecting(moment) if one.key_id == question.key]
        if question.unit is not None:
            found = [one for one in found if one.unit == question.unit]
        if not found:
            raise UnknownKeyError(
                f"no key {question.key!a} detects here; ask the operator for its name", param="key"
            )
        if len(found) > 1:
            units = ", ".join(one.unit for one in found)
            raise BadRequestError(f"key {question.key!a} has units {units}; say unit", param="unit")
        return found[0]

    def _oracle(self, record: KeyRecord) -> Oracle:
        unit = self.units.get(record.unit)
        if unit is None:
            raise UnknownKeyError(
                f"key {record.key_id!a} cuts text by {record.unit}, and no model here does; have "
                "the operator test the text offline",
                param="key",
            )
        try:
            return Oracle(record, unit, sigma=self.config.sigma, min_units=self.config.min_units)
        except (KeysError, UnitMismatchError) as err:
            raise UnknownKeyError(
                f"key {record.key_id!a} is an engine's or disclosed, and answers need a secret of "
                "our own; test the text with `watermark detect`",
                param="key",
            ) from err


class DetectionEndpoint:
    """An ASGI application for `POST /watermark/detect`."""

    def __init__(self, service: DetectionService) -> None:
        """Answer by a service."""
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one question."""
        exchange = Exchange(scope, receive, send)
        try:
            answer = await self._answer(exchange)
        except ClientGoneError:
            return
        except ProxyError as error:
            await exchange.refuse(error)
            return
        await exchange.answer(200, msgspec.json.encode(_wire(answer)))

    async def _answer(self, exchange: Exchange) -> CoarseAnswer:
        caller = caller_digest(exchange.headers)
        if caller is None or caller not in self._service.config.callers:
            self._service.metrics.asked("not-allowed")
            raise NotAllowedError(
                "questions about texts are for the callers that detection.callers names"
            )
        body = await exchange.body(self._service.max_body_bytes)
        try:
            return await asyncio.to_thread(self._service.ask, caller, body)
        except OSError as err:
            raise ProxyError(
                "the question cannot be counted and written down, so it is not answered; the "
                "operator has to look at the folder `detection` of the proxy's state"
            ) from err


def _read(body: bytes) -> _Question:
    try:
        return msgspec.json.decode(body, type=_Question)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as err:
        raise BadRequestError(
            f'the question cannot be read ({err}); send {{"text": "...", "key": "..."}}'
        ) from err


def _asked(oracle: Oracle, text: str) -> CoarseAnswer:
    try:
        return oracle.ask(text)
    except (TextTooShortError, TextEncodingError) as err:
        raise BadRequestError(str(err), param="text") from err


def _wire(answer: CoarseAnswer) -> dict[str, Any]:
    return {
        "object": "watermark.detection",
        "key": answer.key_id,
        "verdict": answer.verdict.value,
        "pvalue_at_most": answer.pvalue_at_most,
        "n_units": answer.n_units,
    }
