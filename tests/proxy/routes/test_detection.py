"""Asking a running proxy about a text: by name, counted, written down, and coarsely answered."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import httpx2
import numpy as np
import pytest

from proxy.app import create_app
from proxy.config import DetectionConfig, ProxyConfig, parse_config
from proxy.errors import ConfigError
from proxy.routes.detection import QueryBook
from tests.support.marked import marked_text, plain_text
from tests.support.servers import key_record, model_config, proxy_config
from watermark.keys import KeyRing, KeyState
from watermark.text import WORDS_V1, tokenizer_unit_id

if TYPE_CHECKING:
    from pathlib import Path

    from starlette.applications import Starlette

NAME = "investigator-1"
CALLER = f"sha256:{hashlib.sha256(NAME.encode()).hexdigest()}"
AUTHORIZED = {"authorization": f"Bearer {NAME}"}
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC).timestamp()
RECORD = key_record(WORDS_V1)


class Clock:
    """A clock that stands until it is set."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


def config_of(state: Path, tokenizer: Path, **detection: Any) -> ProxyConfig:
    given: dict[str, Any] = {"callers": [CALLER]}
    return proxy_config(
        "http://upstream",
        model_config("m", tokenizer),
        state=str(state),
        detection=DetectionConfig(**(given | detection)),
    )


def app_of(state: Path, tokenizer: Path, clock: Clock, **detection: Any) -> Starlette:
    unit = tokenizer_unit_id(tokenizer.read_bytes())
    older = replace(key_record(unit, key_id="other", secret=b"o" * 32), state=KeyState.DETECT)
    ring = KeyRing((RECORD, key_record(unit), older))
    return create_app(config_of(state, tokenizer, **detection), ring, now=clock)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def app(tmp_path: Path, tokenizer: Path, clock: Clock) -> Starlette:
    return app_of(tmp_path, tokenizer, clock, queries_per_day=5)


def ask(
    app: Starlette, body: dict[str, Any] | bytes, headers: dict[str, str] | None = None
) -> httpx2.Response:
    async def work() -> httpx2.Response:
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://p") as client:
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            given = AUTHORIZED if headers is None else headers
            return await client.post("/watermark/detect", content=content, headers=given)

    return asyncio.run(work())


def question(text: str, **fields: Any) -> dict[str, Any]:
    return {"text": text, "key": "test", "unit": WORDS_V1} | fields


def audit(folder: Path) -> list[dict[str, Any]]:
    files = sorted((folder / "detection").glob("*.audit.jsonl"))
    return [json.loads(line) for one in files for line in one.read_text().splitlines()]


def test_a_marked_text_and_another(app: Starlette) -> None:
    answer = ask(app, question(marked_text(RECORD, 1)))
    assert answer.status_code == 200
    assert answer.json() == {
        "object": "watermark.detection",
        "key": "test",
        "verdict": "carries-the-mark",
        "pvalue_at_most": 1e-12,
        "n_units": answer.json()["n_units"],
    }
    assert ask(app, question(plain_text(2))).json()["verdict"] == "not-found"


def test_every_question_is_written_down_without_its_text(app: Starlette, tmp_path: Path) -> None:
    text = marked_text(RECORD, 1)
    ask(app, question(text))
    ask(app, question("too short"))
    first, second = audit(tmp_path)
    assert first["outcome"] == "carries-the-mark"
    assert first["caller"] == CALLER
    assert first["key"] == "test"
    assert first["time"] == "2026-11-24T12:00:00Z"
    assert second["outcome"] == "refused"
    for path in (tmp_path / "detection").iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
        assert text[:20] not in path.read_text()
        assert "too short" not in path.read_text()


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer other"}, {"x-api-key": "*"}])
def test_nobody_else_may_ask(app: Starlette, tmp_path: Path, headers: dict[str, str]) -> None:
    answer = ask(app, question(plain_text(0)), headers)
    assert answer.status_code == 403
    assert "detection.callers" in answer.json()["error"]["message"]
    assert not (tmp_path / "detection").exists()


def test_nobody_may_ask_by_default(tmp_path: Path, tokenizer: Path, clock: Clock) -> None:
    app = app_of(tmp_path, tokenizer, clock, callers=[])
    assert ask(app, question(plain_text(0))).status_code == 403


def test_everybody_cannot_be_named(tmp_path: Path) -> None:
    text = '[upstream]\nurl = "http://u"\n[keys]\nfile = "K"\n[detection]\ncallers = ["*"]\n'
    with pytest.raises(ConfigError, match="callers"):
        parse_config(text, path=tmp_path / "proxy.toml")


def test_a_budget_a_day_and_key(app: Starlette, clock: Clock, tokenizer: Path) -> None:
    statuses = [ask(app, question(plain_text(0))).status_code for _ in range(7)]
    assert statuses == [200] * 5 + [429] * 2
    spent = ask(app, question(plain_text(0)))
    assert spent.json()["error"]["type"] == "rate_limit_error"
    unit = tokenizer_unit_id(tokenizer.read_bytes())
    # Another unit of the same key spends the same budget; another key has one of its own.
    assert ask(app, question(plain_text(0), unit=unit)).status_code == 429
    letters = "".join(map(chr, np.random.default_rng(0).integers(97, 123, 1500).tolist()))
    assert ask(app, question(letters, key="other", unit=unit)).status_code == 200
    clock.now += 12 * 3600
    assert ask(app, question(plain_text(0))).status_code == 200


def test_workers_and_restarts_share_the_count(
    tmp_path: Path, tokenizer: Path, clock: Clock
) -> None:
    apps = [app_of(tmp_path, tokenizer, clock, queries_per_day=3) for _ in range(2)]
    statuses = [ask(app, question(plain_text(0))).status_code for app in apps * 2]
    assert statuses == [200, 200, 200, 429]
    assert [line["outcome"] for line in audit(tmp_path)][-1] == "budget-spent"


def test_no_question_is_lost_between_threads(tmp_path: Path) -> None:
    book, counts = QueryBook(tmp_path), list[int]()

    def work() -> None:
        counts.extend(book.count(caller=CALLER, record=RECORD, day="2026-11-24") for _ in range(50))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert max(counts) == 200
    assert sum(count <= 100 for count in counts) <= 100


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"no json", 400, "cannot be read"),
        ({"key": "test"}, 400, "cannot be read"),
        ({"text": "a", "key": "test", "exact": True}, 400, "exact"),
        (question("few words"), 400, "ask about a longer text"),
        (question("a" * 9000, key="none"), 404, "no key 'none' detects here"),
        ({"text": "a", "key": "test"}, 400, "say unit"),
        (b'{"text": "\\ud800", "key": "test", "unit": "words/v1"}', 400, "cannot be read"),
    ],
)
def test_what_is_no_question_is_refused(
    app: Starlette, body: dict[str, Any] | bytes, status: int, says: str
) -> None:
    answer = ask(app, body)
    assert answer.status_code == status, answer.text
    assert says in answer.json()["error"]["message"]


def test_a_book_that_cannot_be_kept_answers_nothing(app: Starlette, tmp_path: Path) -> None:
    (tmp_path / "detection").write_text("in the way")
    answer = ask(app, question(marked_text(RECORD, 1)))
    assert answer.status_code == 500
    assert "folder" in answer.json()["error"]["message"]
    assert "verdict" not in answer.text


def test_questions_are_counted_for_operators(app: Starlette) -> None:
    ask(app, question(marked_text(RECORD, 1)))
    ask(app, question(plain_text(0)), {})

    async def work() -> str:
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://p") as client:
            return (await client.get("/watermark/metrics")).text

    text = asyncio.run(work())
    assert 'watermark_detection_questions_total{outcome="carries-the-mark"} 1.0' in text
    assert 'watermark_detection_questions_total{outcome="not-allowed"} 1.0' in text
