"""Failures as each dialect's clients read them."""

from __future__ import annotations

import json

import pytest

from watermark.wire.failures import Failure, dialect_of_path, failure_body, failure_event
from watermark.wire.openai_requests import DialectName
from watermark.wire.sse import EventDecoder

BROKEN = Failure(message="no answer", kind="upstream_error", status=502, param="n")


@pytest.mark.parametrize(
    ("path", "dialect"),
    [
        ("/v1/messages", DialectName.MESSAGES),
        ("/v1/messages/count_tokens", DialectName.MESSAGES),
        ("/v1/messagesx", DialectName.CHAT),
        ("/v1/responses", DialectName.RESPONSES),
        ("/v1/responses/r_1", DialectName.RESPONSES),
        ("/v1/models", DialectName.CHAT),
    ],
)
def test_paths(path: str, dialect: DialectName) -> None:
    assert dialect_of_path(path) is dialect


def test_bodies() -> None:
    plain = {"message": "no answer", "type": "upstream_error", "param": "n", "code": None}
    for dialect in (DialectName.CHAT, DialectName.TEXT, DialectName.RESPONSES):
        assert failure_body(dialect, BROKEN) == {"error": plain}
    assert failure_body(DialectName.MESSAGES, BROKEN) == {
        "type": "error",
        "error": {"type": "api_error", "message": "no answer"},
    }


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (403, "permission_error"),
        (413, "request_too_large"),
        (429, "rate_limit_error"),
        (503, "overloaded_error"),
        (504, "timeout_error"),
        (500, "api_error"),
    ],
)
def test_anthropics_clients_tell_errors_by_name(status: int, kind: str) -> None:
    failure = Failure(message="no", kind="ours", status=status)
    assert failure_body(DialectName.MESSAGES, failure)["error"]["type"] == kind


@pytest.mark.parametrize("dialect", DialectName)
def test_events(dialect: DialectName) -> None:
    (event,) = EventDecoder().feed(failure_event(dialect, BROKEN, sequence_number=7))
    body = json.loads(event.data)
    assert body["error"]["message"] == "no answer"
    is_named = dialect in {DialectName.MESSAGES, DialectName.RESPONSES}
    assert event.kind == ("error" if is_named else "message")
    if dialect is DialectName.RESPONSES:
        assert (body["sequence_number"], body["message"]) == (7, "no answer")
