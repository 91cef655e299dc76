"""A reply belongs to the key that marks when its first token is chosen, and to no other."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx2
import msgspec

from proxy.app import create_app
from proxy.cli.servers import running
from proxy.config import KeysConfig, ServerConfig
from proxy.sampling.keys import KeyHolder
from tests.support.asgi import scenario
from tests.support.fake_upstream import FakeUpstream, honest
from tests.support.servers import SELECT_ONLY, model_config, proxy_config
from watermark.keys import KeyRecord, KeyRing, KeyState, Scope, SecretKey
from watermark.text import tokenizer_unit_id

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.fake_upstream import Turn

T0 = datetime(2026, 11, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
CHAT = {"model": "m", "messages": [{"role": "user", "content": "?"}], "max_tokens": 12}
URL = "/v1/chat/completions"


def record(tokenizer: Path, key_id: str, **fields: Any) -> KeyRecord:
    unit = tokenizer_unit_id(tokenizer.read_bytes())
    secret = SecretKey(key_id, key_id.encode().ljust(32, b"."))
    return KeyRecord(key_id=key_id, unit=unit, secret=secret, **fields)


@dataclass
class Scene:
    """A proxy whose clock and keys the test moves."""

    client: httpx2.AsyncClient
    holder: KeyHolder
    upstream: FakeUpstream
    clock: list[datetime]

    async def metric(self, start: str) -> list[str]:
        text = (await self.client.get("/watermark/metrics")).text
        return [line for line in text.splitlines() if line.startswith(start)]


@contextlib.asynccontextmanager
async def scene(
    tokenizer: Path, ring: KeyRing, *, change: Any = None, delay_s: float = 0.0, **keys: Any
) -> AsyncIterator[Scene]:
    clock = [T0]
    holder = KeyHolder(ring, now=T0)

    def changed(asked: Any, answer: Any) -> Any:
        if change is not None:
            change(asked, clock, holder)
        return answer

    async def behave(turn: Turn) -> None:
        if turn.request.target == b"/v1/completions":
            await asyncio.sleep(delay_s)
        await honest(changed)(turn)

    async with FakeUpstream(behave).serving() as upstream:
        model = model_config("m", tokenizer, splice=SELECT_ONLY)
        config = proxy_config(upstream.url, model)
        chosen = KeysConfig(file="KEYS.toml", **keys)
        server = ServerConfig(keep_alive_s=0.05 if delay_s else 15.0)
        config = msgspec.structs.replace(config, keys=chosen, server=server)

        def now() -> float:
            return clock[0].timestamp()

        app = create_app(config, holder, now=now)
        async with (
            running(app) as url,
            httpx2.AsyncClient(base_url=url, timeout=20, trust_env=False) as client,
        ):
            yield Scene(client, holder, upstream, clock)


def two_keys(tokenizer: Path) -> KeyRing:
    return KeyRing(
        (
            record(tokenizer, "old", not_after=T0 + HOUR),
            record(tokenizer, "new", not_before=T0 + HOUR, not_after=T0 + 2 * HOUR),
        )
    )


def test_the_clock_alone_rotates(tokenizer: Path) -> None:
    async def work() -> None:
        async with scene(tokenizer, two_keys(tokenizer)) as on:
            for at, key in ((T0, "old"), (T0 + HOUR, "new"), (T0 + HOUR - timedelta(0, 1), "old")):
                on.clock[0] = at
                answer = await on.client.post(URL, json=CHAT)
                assert answer.headers["x-watermark"] == f"marked; path=select; key={key}"

    scenario(work)


def test_the_first_token_decides_and_later_ones_do_not(tokenizer: Path) -> None:
    """The clock passes a rotation while the n-th draft is under way."""
    for moved_at, streamed in ((1, False), (1, True), (2, False), (2, True)):
        asked: list[int] = []

        def change(
            one: Any, clock: list[datetime], _: KeyHolder, asked: Any = asked, at: int = moved_at
        ) -> None:
            asked.append(len(one["prompt"]))
            if len(asked) == at:
                clock[0] = T0 + HOUR

        key = "new" if moved_at == 1 else "old"

        async def work(change: Any = change, *, streamed: bool = streamed, key: str = key) -> None:
            async with scene(tokenizer, two_keys(tokenizer), change=change) as on:
                answer = await on.client.post(URL, json=CHAT | {"stream": streamed})
                assert answer.headers["x-watermark"].endswith(f"key={key}")

        scenario(work)
        # Under another key the reply is prepared again: the first draft is asked for once more.
        assert asked.count(asked[0]) == (2 if moved_at == 1 else 1)


def test_a_key_that_goes_while_comments_are_sent_is_told_in_the_stream(tokenizer: Path) -> None:
    """It is too late for a status then, and too late to go through unmarked."""

    def change(_one: Any, clock: list[datetime], _: KeyHolder) -> None:
        clock[0] = T0 + 3 * HOUR

    async def work(on_missing: str) -> None:
        ring = two_keys(tokenizer)
        async with scene(tokenizer, ring, change=change, delay_s=0.2, on_missing=on_missing) as on:
            answer = await on.client.post(URL, json=CHAT | {"stream": True})
            assert answer.status_code == 200
            assert answer.headers["x-watermark"] == "marked; path=select"  # nothing of a key
            *_, last, rest = answer.text.split("\n\n")
            assert rest == ""
            assert "cannot answer for this model now" in last
            assert len(on.upstream.asked()) == 1

    for on_missing in ("block", "pass-unmarked"):
        scenario(lambda on_missing=on_missing: work(on_missing))  # type: ignore[misc]


def test_a_key_that_goes_before_the_first_token_is_no_key(tokenizer: Path) -> None:
    def change(_one: Any, clock: list[datetime], _: KeyHolder) -> None:
        clock[0] = T0 + 3 * HOUR

    async def work() -> None:
        async with scene(tokenizer, two_keys(tokenizer), change=change) as on:
            answer = await on.client.post(URL, json=CHAT)
            assert answer.status_code == 503
            assert "x-watermark" not in answer.headers

    scenario(work)


def test_a_swap_reaches_the_next_reply(tokenizer: Path) -> None:
    async def work() -> None:
        async with scene(tokenizer, KeyRing((record(tokenizer, "one"),))) as on:
            seen = []
            for key_id in ("one", "two", "three"):
                on.holder.replace(KeyRing((record(tokenizer, key_id),)), now=T0)
                answer = await on.client.post(URL, json=CHAT)
                seen.append(answer.headers["x-watermark"].rpartition("=")[2])
            assert seen == ["one", "two", "three"]

    scenario(work)


def test_only_an_end_more_is_the_same_key(tokenizer: Path) -> None:
    """The edit of every rotation: the key that marks gets an end while a draft is under way."""
    asked: list[int] = []

    def change(_one: Any, _clock: list[datetime], holder: KeyHolder) -> None:
        asked.append(1)
        holder.replace(two_keys(tokenizer), now=T0)

    async def work() -> None:
        async with scene(tokenizer, KeyRing((record(tokenizer, "old"),)), change=change) as on:
            answer = await on.client.post(URL, json=CHAT | {"max_tokens": 8})
            assert answer.headers["x-watermark"].endswith("key=old")
        assert len(asked) == 1

    scenario(work)


def test_scopes_by_route(tokenizer: Path) -> None:
    ring = KeyRing(
        (record(tokenizer, "rest"), record(tokenizer, "texts", scope="texts")),
        scopes=(Scope(name="texts", routes=("/v1/completions",)),),
    )

    async def work() -> None:
        async with scene(tokenizer, ring) as on:
            chat = await on.client.post(URL, json=CHAT)
            text = await on.client.post("/v1/completions", json={"model": "m", "prompt": "a"})
            assert chat.headers["x-watermark"].endswith("key=rest")
            assert text.headers["x-watermark"].endswith("key=texts")

    scenario(work)


def test_scopes_by_account(tokenizer: Path) -> None:
    account = f"sha256:{hashlib.sha256(b'sk-gold').hexdigest()}"
    ring = KeyRing(
        (record(tokenizer, "rest"), record(tokenizer, "gold", scope="gold")),
        scopes=(Scope(name="gold", accounts=(account,)),),
    )

    async def work() -> None:
        async with scene(tokenizer, ring) as on:
            for sent, key in (("sk-gold", "gold"), ("sk-other", "rest"), (None, "rest")):
                headers = {} if sent is None else {"authorization": f"Bearer {sent}"}
                answer = await on.client.post(URL, json=CHAT, headers=headers)
                assert answer.headers["x-watermark"].endswith(f"key={key}")

    scenario(work)


def test_without_a_key_the_operator_decides(tokenizer: Path) -> None:
    async def blocked() -> None:
        async with scene(tokenizer, two_keys(tokenizer)) as on:
            on.clock[0] = T0 + 2 * HOUR
            for body in (CHAT, CHAT | {"stream": True}):
                answer = await on.client.post(URL, json=body)
                assert answer.status_code == 503
                assert answer.headers["retry-after"]
                assert "key" not in answer.text
                assert "watermark" not in answer.text
            unmarked = CHAT | {"temperature": 0, "n": 1}  # passes as ever
            assert (await on.client.post(URL, json=unmarked)).status_code == 200
            (line,) = [
                m for m in await on.metric("watermark_decisions_total") if "no-marking-key" in m
            ]
            assert line.endswith("2.0")
            (left,) = await on.metric("watermark_key_expires_in_seconds{")
            assert left == 'watermark_key_expires_in_seconds{scope="default"} 0.0'

    async def passed() -> None:
        async with scene(tokenizer, two_keys(tokenizer), on_missing="pass-unmarked") as on:
            on.clock[0] = T0 + 2 * HOUR
            answer = await on.client.post(URL, json=CHAT | {"n": 1})
            assert answer.headers["x-watermark"] == "unmarked; reason=no-marking-key"
            assert [
                m for m in await on.metric("watermark_decisions_total") if "no-marking-key" in m
            ]

    scenario(blocked)
    scenario(passed)


def test_a_suspended_key_does_not_mark(tokenizer: Path) -> None:
    async def work() -> None:
        async with scene(tokenizer, KeyRing((record(tokenizer, "one"),))) as on:
            held = record(tokenizer, "one", state=KeyState.SUSPENDED)
            on.holder.replace(KeyRing((held,)), now=T0)
            assert (await on.client.post(URL, json=CHAT)).status_code == 503

    scenario(work)


def test_a_stream_under_way_keeps_its_key(tokenizer: Path) -> None:
    gate = asyncio.Event()

    async def work() -> None:
        async def behave(turn: Any) -> None:
            is_later = turn.request.target == b"/v1/completions" and (
                len(turn.request.json()["prompt"]) > 3
            )
            if is_later:
                await gate.wait()
            await honest()(turn)

        async with FakeUpstream(behave).serving() as upstream:
            config = proxy_config(upstream.url, model_config("m", tokenizer, splice=SELECT_ONLY))
            holder = KeyHolder(KeyRing((record(tokenizer, "one"),)), now=T0)
            app = create_app(config, holder)
            async with (
                running(app) as url,
                httpx2.AsyncClient(base_url=url, timeout=20, trust_env=False) as client,
                client.stream("POST", URL, json=CHAT | {"stream": True, "max_tokens": 30}) as old,
            ):
                assert old.headers["x-watermark"].endswith("key=one")
                holder.replace(KeyRing((record(tokenizer, "two"),)), now=T0)
                gate.set()
                assert (await old.aread()).endswith(b"data: [DONE]\n\n")
                new = await client.post(URL, json=CHAT)
                assert new.headers["x-watermark"].endswith("key=two")

    scenario(work)
