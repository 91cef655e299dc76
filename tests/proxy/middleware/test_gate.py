"""The door over HTTP: refusals in the client's dialect, quotas, rules, and bans in mid-stream."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httpx2
import numpy as np
import pytest

from tests.support.accounts import GATEWAY, account, book, digest, guarded
from tests.support.asgi import scenario
from tests.support.fake_upstream import honest as honest_upstream
from tests.support.servers import SELECT_ONLY, eventually, key_record
from watermark.keys import KeyRing
from watermark.text import tokenizer_unit_id
from watermark.tracing import code_sums, trace_accounts

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.fake_upstream import Turn

drafts = honest_upstream()
TERMS = 'terms = "https://example.com/terms"\n'


async def honest(turn: Turn) -> None:
    """Answer drafts, and everything else with what was asked."""
    asked = turn.request.json() if turn.request.body else {}
    is_own = turn.request.target in {b"/v1/models", b"/tokenize"} or "return_token_ids" in asked
    if is_own:
        await drafts(turn)
    else:
        await turn.answer({"asked": asked})


async def dribble(turn: Turn) -> None:
    """Stream events for ever."""
    await turn.raw(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    while True:
        await turn.chunk(b'data: {"n": 1}\n\ndata: {"half"')
        await asyncio.sleep(0.02)
        await turn.chunk(b": 1}\n\n")


@pytest.mark.parametrize("state", ["suspended", "banned"])
def test_a_refusal_is_a_403_in_the_callers_dialect(
    state: str, tokenizer: Path, tmp_path: Path
) -> None:
    accounts = book(TERMS + account("acme", "sk-1", state=state))

    async def work() -> None:
        async with guarded(accounts, honest, tokenizer, tmp_path) as proxy:
            refused = await proxy.ask("sk-1")
            assert refused.status_code == 403
            assert refused.headers["link"] == '<https://example.com/terms>; rel="terms-of-service"'
            error = refused.json()["error"]
            assert error["type"] == "permission_error"
            assert f"this account is {state}; the terms of use: https://" in error["message"]
            anthropic = await proxy.ask("sk-1", "/v1/messages")
            assert anthropic.json() == {
                "type": "error",
                "error": {"type": "permission_error", "message": error["message"]},
            }
            assert (await proxy.client.get("/v1/models")).status_code == 200
            assert proxy.upstream.asked() == []
            assert await proxy.metric(f'watermark_refusals_total{{reason="{state}"}}') == 2

    scenario(work)


def test_a_quota_is_a_429_that_says_when(tokenizer: Path, tmp_path: Path) -> None:
    accounts = book(account("acme", "sk-1", requests_per_day=2))

    async def work() -> None:
        async with guarded(accounts, honest, tokenizer, tmp_path) as proxy:
            for path in ("/v1/completions", "/v1/embeddings"):
                assert (await proxy.ask("sk-1", path)).status_code == 200
            for path in ("/v1/completions", "/v1/embeddings"):
                refused = await proxy.ask("sk-1", path)
                assert refused.status_code == 429
                assert 0 < int(refused.headers["retry-after"]) <= 86_401
                assert refused.json()["error"]["type"] == "rate_limit_error"
            assert (await proxy.ask("sk-2")).status_code == 200

    scenario(work)


def test_reserved_tokens_are_given_back(tokenizer: Path, tmp_path: Path) -> None:
    accounts = book(account("acme", "sk-1", tokens_per_day=100))

    async def work() -> None:
        async with guarded(accounts, honest, tokenizer, tmp_path) as proxy:
            for _ in range(3):  # "a" eight times, then the stop string
                done = await proxy.ask("sk-1", max_tokens=60, stop="aaaaa")
                assert done.status_code == 200, done.text
            assert (await proxy.ask("sk-1", max_tokens=200)).status_code == 429

    scenario(work)


RULES: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"models": ["other"]}, {}, "model"),
    ({"logprobs": False}, {"logprobs": 2}, "logprobs"),
    ({"max_n": 2}, {"n": 3}, "n"),
    ({"max_n": 2}, {"best_of": 3}, "n"),
    ({"max_n": 2}, {"prompt": ["a", "b", "c"]}, "n"),
    ({"reasoning": False}, {"reasoning_effort": "high"}, "reasoning"),
    ({"reasoning": False}, {"chat_template_kwargs": {"enable_thinking": True}}, "reasoning"),
    ({"min_temperature": 0.5}, {"top_k": 1}, "top_k"),
]


@pytest.mark.parametrize(("rules", "body", "param"), RULES)
def test_what_an_account_may_not_ask_is_refused(
    rules: dict[str, Any], body: dict[str, Any], param: str, tokenizer: Path, tmp_path: Path
) -> None:
    accounts = book(account("acme", "sk-1", **rules))

    async def work() -> None:
        async with guarded(accounts, honest, tokenizer, tmp_path) as proxy:
            refused = await proxy.ask("sk-1", **body)
            assert (refused.status_code, refused.json()["error"]["param"]) == (403, param)
            assert (await proxy.ask("sk-2", **body)).status_code == 200
            unread = await proxy.ask("sk-1", "/v1/responses")
            assert (unread.status_code, "limits can be checked" in unread.text) == (403, True)

    scenario(work)


def test_a_low_temperature_is_raised(tokenizer: Path, tmp_path: Path) -> None:
    accounts = book(account("acme", "sk-1", min_temperature=0.5, marking=False))

    async def work() -> None:
        async with guarded(accounts, honest, tokenizer, tmp_path) as proxy:
            for given, sent in ((0, 0.5), (0.25, 0.5), (0.75, 0.75)):
                answer = await proxy.ask("sk-1", temperature=given)
                assert answer.headers["x-watermark"].startswith("unmarked; reason=")
                assert answer.json()["asked"]["temperature"] == sent

    scenario(work)


def test_marking_is_off_for_whom_it_is_off(tokenizer: Path, tmp_path: Path) -> None:
    accounts = book(account("acme", "sk-1", marking=False))

    async def work() -> None:
        async with guarded(accounts, honest, tokenizer, tmp_path) as proxy:
            answer = await proxy.ask("sk-1")
            assert answer.headers["x-watermark"] == "unmarked; reason=account-unmarked"
            assert (await proxy.ask("sk-2")).headers["x-watermark"].startswith("marked")

    scenario(work)


def test_a_virtual_key_never_reaches_the_upstream(tokenizer: Path, tmp_path: Path) -> None:
    text = f"""[[account]]
name = "acme"
virtual_keys = ["{digest("vk-1")}"]
upstream_key = "file:up"
"""
    accounts = book(text, gateway=GATEWAY, up=b"sk-upstream")

    async def work() -> None:
        async with guarded(accounts, honest, tokenizer, tmp_path) as proxy:
            for path in ("/v1/completions", "/v1/embeddings"):
                assert (await proxy.ask("vk-1", path)).status_code == 200
            assert proxy.upstream.requests
            for request in proxy.upstream.requests:
                assert request.values(b"authorization") == [b"Bearer sk-upstream"]

    scenario(work)


def test_a_ban_ends_a_stream_with_an_error_event_and_no_end(
    tokenizer: Path, tmp_path: Path
) -> None:
    async def work() -> None:
        async with guarded(book(account("acme", "sk-1")), dribble, tokenizer, tmp_path) as proxy:
            headers = {"authorization": "Bearer sk-1"}
            body = {"model": "unmarked", "stream": True}
            received = b""
            async with proxy.client.stream(
                "POST", "/v1/chat/completions", json=body, headers=headers
            ) as response:
                async for part in response.aiter_raw():
                    if not received:
                        ban = book(TERMS + account("acme", "sk-1", state="banned"))
                        await asyncio.to_thread(proxy.holder.replace, ban)
                    received += part
            *events, last, rest = received.split(b"\n\n")
            assert rest == b""
            error = json.loads(last.removeprefix(b"data: "))["error"]
            assert "this account is banned" in error["message"]
            assert b"[DONE]" not in received
            assert events[0] == b'data: {"n": 1}'
            await eventually(lambda: proxy.upstream.open == 0)

    scenario(work)


def test_a_marked_stream_ends_the_same_way(tokenizer: Path, tmp_path: Path) -> None:
    async def slow(turn: Turn) -> None:
        await asyncio.sleep(0.02)
        await honest(turn)

    async def work() -> None:
        async with guarded(book(account("acme", "sk-1")), slow, tokenizer, tmp_path) as proxy:
            body = {"model": "m", "prompt": "x", "stream": True, "max_tokens": 400}
            received = b""
            async with proxy.client.stream(
                "POST", "/v1/completions", json=body, headers={"authorization": "Bearer sk-1"}
            ) as response:
                assert response.headers["x-watermark"].startswith("marked")
                async for part in response.aiter_raw():
                    if not received:
                        ban = book(account("acme", "sk-1", state="suspended"))
                        proxy.holder.replace(ban)
                    received += part
            assert b"this account is suspended" in received.rsplit(b"data: ", 1)[1]
            assert b"[DONE]" not in received
            assert b'"finish_reason":"' not in received

    scenario(work)


def test_what_is_no_stream_gets_its_403_or_breaks_off(tokenizer: Path, tmp_path: Path) -> None:
    async def stuck(turn: Turn) -> None:
        if turn.request.target == b"/begun":
            await turn.raw(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nten bytes.")
        await turn.until_gone()

    async def work() -> None:
        async with guarded(book(account("acme", "sk-1")), stuck, tokenizer, tmp_path) as proxy:
            headers = {"authorization": "Bearer sk-1"}
            waiting = asyncio.ensure_future(proxy.client.get("/waits", headers=headers))
            begun = asyncio.ensure_future(proxy.client.get("/begun", headers=headers))
            await eventually(lambda: len(proxy.upstream.requests) == 2)
            await asyncio.sleep(0.1)
            proxy.holder.replace(book(account("acme", "sk-1", state="banned")))
            assert (await waiting).status_code == 403
            with pytest.raises(httpx2.RemoteProtocolError):
                await begun
            await eventually(lambda: proxy.upstream.open == 0)

    scenario(work)


def test_others_stay_when_one_is_banned(tokenizer: Path, tmp_path: Path) -> None:
    async def slow(turn: Turn) -> None:
        await asyncio.sleep(0.2)
        await honest(turn)

    async def work() -> None:
        text = account("other", "sk-2") + account("acme", "sk-1")
        async with guarded(book(text), slow, tokenizer, tmp_path) as proxy:
            kept = asyncio.ensure_future(proxy.ask("sk-2"))
            cut = asyncio.ensure_future(proxy.ask("sk-1"))
            await eventually(lambda: len(proxy.upstream.requests) >= 2)
            proxy.holder.replace(book(account("other", "sk-2") + account("acme", state="banned")))
            assert (await kept).status_code == 200
            assert (await cut).status_code == 200  # its key is no account's now: a pseudonym's
            text = account("other", "sk-2") + account("acme", "sk-1", state="banned")
            proxy.holder.replace(book(text))
            assert (await proxy.ask("sk-1")).status_code == 403

    scenario(work)


def test_the_accounts_code_is_in_its_replies(tokenizer: Path, tmp_path: Path) -> None:
    unit = tokenizer_unit_id(tokenizer.read_bytes())
    record = replace(key_record(unit), account_share_q16=1 << 15, context_width=2)
    texts: dict[str, list[list[int]]] = {}

    async def letters(turn: Turn) -> None:
        """Continue with letters, each as likely as any other."""
        if "return_token_ids" not in (turn.request.json() if turn.request.body else {}):
            await drafts(turn)
            return
        asked = turn.request.json()
        size, n = asked["max_tokens"], asked["n"]
        choices = [
            {"index": i, "token_ids": rng.integers(60, 90, size).tolist(),
             "finish_reason": "length", "logprobs": None}
            for i in range(n)
        ]  # fmt: skip
        await turn.answer({"choices": choices})

    rng = np.random.default_rng(0)
    text = account("acme", "sk-1") + account("quiet", "sk-2", code=False)

    async def work() -> None:
        proxied = guarded(
            book(text), letters, tokenizer, tmp_path, ring=KeyRing((record,)),
            model={"splice": SELECT_ONLY},
        )  # fmt: skip
        async with proxied as proxy:
            for key in ("sk-1", "sk-2"):
                for _ in range(6):
                    answer = await proxy.ask(key, max_tokens=60, return_token_ids=True)
                    assert answer.headers["x-watermark"].startswith("marked")
                    ids = answer.json()["choices"][0]["token_ids"]
                    texts.setdefault(key, []).append(ids)
            text_of_metrics = (await proxy.client.get("/watermark/metrics")).text
            assert 'watermark_account_tokens_total{account="",state="active"}' in text_of_metrics

    scenario(work)
    names = ["acme", "quiet", *(f"innocent-{i}" for i in range(200))]
    traces = [trace_accounts([code_sums(record, one)], names)[0] for one in texts.values()]
    assert [one.account for one in traces[0].named(alpha=1e-3)] == ["acme"]
    assert traces[1].named(alpha=1e-2) == ()
