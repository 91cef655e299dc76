"""The batch: who is in it, who leaves, and what a failing step does."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from proxy.embedded import server as server_module
from tests.proxy.embedded.driver import Exchange, ScriptedModel, Served, events, serve, until


def held(text: str = "abcdefgh" * 6, **options: Any) -> tuple[ScriptedModel, threading.Semaphore]:
    gate = threading.Semaphore(0)
    return ScriptedModel.saying(text, gate=gate, **options), gate


def test_requests_share_steps_and_the_loop_stays_free() -> None:
    model, gate = held()

    async def scenario(served: Served) -> None:
        tasks = [asyncio.create_task(served.complete("x", max_tokens=4)) for _ in range(3)]
        engine = served.app.state.engine
        await until(lambda: engine.active_rows + engine.waiting_rows == 3)
        # The model's thread stands still at the gate, and the server still answers.
        assert (await served.client.get("/health")).status_code == 200
        gate.release(100)
        bodies = await asyncio.gather(*tasks)
        assert [body["choices"][0]["text"] for body in bodies] == ["abcd"] * 3
        assert 3 in model.steps

    serve(model, scenario)


@pytest.mark.parametrize("is_streamed", [True, False])
def test_a_cancelled_request_leaves_at_the_next_step(*, is_streamed: bool) -> None:
    model, gate = held()

    async def scenario(served: Served) -> None:
        body = {"prompt": "x", "max_tokens": 50, "n": 2, "stream": is_streamed}
        leaving = Exchange(served.app, "/v1/completions", body)
        staying = asyncio.create_task(served.complete("x", max_tokens=6))
        engine = served.app.state.engine
        await until(lambda: engine.active_rows + engine.waiting_rows == 3)
        gate.release(2)  # The first step may have begun with fewer; the second has all.
        await until(lambda: model.steps[-1:] == [3])
        leaving.leave()
        await leaving.task
        seen = len(model.steps)
        gate.release(100)
        assert (await staying)["choices"][0]["text"] == "abcdef"
        assert model.steps[seen + 1 :] == [1] * len(model.steps[seen + 1 :])

    serve(model, scenario)


def test_a_client_that_leaves_the_queue_never_joins() -> None:
    model, gate = held(max_rows=1)

    async def scenario(served: Served) -> None:
        first = asyncio.create_task(served.complete("x", max_tokens=2))
        await until(lambda: served.app.state.engine.active_rows == 1)
        waiting = Exchange(served.app, "/v1/completions", {"prompt": "x", "max_tokens": 9})
        await until(lambda: served.app.state.engine.waiting_rows == 1)
        waiting.leave()
        await waiting.task
        gate.release(100)
        await first
        assert (await served.complete("x", max_tokens=1))["choices"][0]["text"] == "a"
        assert len(model.steps) == 3

    serve(model, scenario)


def test_more_choices_than_rows_take_turns() -> None:
    model = ScriptedModel.saying("ab", max_rows=2)

    async def scenario(served: Served) -> None:
        body = await served.complete("x", n=5)
        assert [choice["text"] for choice in body["choices"]] == ["ab"] * 5
        assert max(model.steps) == 2

    serve(model, scenario)


def test_a_failing_step_fails_its_requests_only() -> None:
    model = ScriptedModel.saying("abc", fails_at_step=1)

    async def scenario(served: Served) -> None:
        error = await served.refused("/v1/completions", {"prompt": "x"}, 500)
        assert error["type"] == "proxy_error"
        assert (await served.complete("x"))["choices"][0]["text"] == "abc"

    serve(model, scenario)


def test_a_failing_step_is_told_in_the_stream() -> None:
    async def scenario(served: Served) -> None:
        body = {"prompt": "x", "stream": True}
        response = await served.client.post("/v1/completions", json=body)
        assert b"[DONE]" not in response.content
        *_pieces, last = events(response.content + b"data: [DONE]\n\n")
        assert "failed" in last["error"]["message"]

    serve(ScriptedModel.saying("abc", fails_at_step=1), scenario)


def test_a_flood_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "MAX_WAITING_ROWS", 2)
    model, gate = held(max_rows=1)

    async def scenario(served: Served) -> None:
        task = asyncio.create_task(served.complete("x", n=5, max_tokens=1))
        await until(lambda: served.app.state.engine.waiting_rows == 4)
        error = await served.refused("/v1/completions", {"prompt": "x"}, 503)
        assert error["type"] == "overloaded_error"
        gate.release(100)
        await task

    serve(model, scenario)


def test_shutdown_ends_what_is_running() -> None:
    model, gate = held(context_limit=100_000)
    tasks: list[asyncio.Task[Any]] = []

    async def scenario(served: Served) -> None:
        body = {"prompt": "x", "max_tokens": 90_000}
        tasks.append(asyncio.create_task(served.refused("/v1/completions", body, 500)))
        await until(lambda: served.app.state.engine.active_rows == 1)
        gate.release(3)
        threading.Timer(0.2, gate.release, [2]).start()
        await served.app.state.engine.stop()
        assert "shutting down" in (await tasks[0])["message"]

    serve(model, scenario)
