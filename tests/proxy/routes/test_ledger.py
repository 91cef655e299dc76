"""What the proxy writes of each reply, and what it does while nothing can be written."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import apsw
import httpx2
import pytest

from proxy.accounts.book import AccountHolder
from proxy.app import create_app
from proxy.cli.servers import running
from proxy.config import Capabilities, LedgerConfig
from tests.support.accounts import account, book
from tests.support.asgi import scenario
from tests.support.disks import Disk
from tests.support.fake_upstream import FakeUpstream, Turn, honest
from tests.support.ledgers import by_kind, make_settings, open_ledger, rows_in
from tests.support.servers import SELECT_ONLY, eventually, key_ring, model_config, proxy_config
from watermark.errors import LedgerFileError
from watermark.ledger import (
    Keeps,
    Kind,
    Ledger,
    Pseudonyms,
    Row,
    State,
    Vault,
    gap_of,
    unpack_fingerprints,
    unpack_tokens,
)
from watermark.text import WORDS_V1, TokenizerUnit, WordsUnit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from watermark.ledger import LedgerSettings

URL = "/v1/chat/completions"
CHAT = {"model": "m", "messages": [{"role": "user", "content": "?"}], "max_tokens": 24}
STREAM = CHAT | {"stream": True}


@dataclass(frozen=True)
class Kept:
    """A proxy with a ledger on a disk that can fail."""

    client: httpx2.AsyncClient
    upstream: FakeUpstream
    ledger: Callable[[], Ledger]
    disk: Disk
    settings: LedgerSettings

    async def metric(self, name: str) -> float:
        text = (await self.client.get("/watermark/metrics")).text
        lines = [line for line in text.splitlines() if line.startswith(name)]
        return sum(float(line.split()[-1]) for line in lines)

    def rows(self) -> dict[Kind, list[Row]]:
        return by_kind(rows_in(self.settings, self.disk))


@contextlib.asynccontextmanager
async def kept(
    tokenizer: Path,
    folder: Path,
    *,
    policy: Any = "block",
    keeps: Keeps = Keeps.CONTEXTS,
    accounts: AccountHolder | None = None,
    change: Any = lambda _asked, answer: answer,
    **model: Any,
) -> AsyncIterator[Kept]:
    settings = make_settings(folder, keeps)
    disk = Disk(f"proxy-{folder.name}")
    opened: list[Ledger] = []

    def opener() -> Ledger:
        opened.append(open_ledger(settings, disk))
        return opened[0]

    draft = honest(change)

    async def behave(turn: Turn) -> None:
        if turn.request.target == URL.encode():  # it came through unmarked
            await turn.answer({"choices": []})
        else:
            await draft(turn)

    async with FakeUpstream(behave).serving() as upstream:
        config = proxy_config(
            upstream.url,
            model_config("m", tokenizer, **({"splice": SELECT_ONLY} | model)),
            ledger=LedgerConfig(file="LEDGER.toml", on_unavailable=policy),
            state=str(folder),
        )
        app = create_app(config, key_ring(tokenizer), open_ledger=opener, accounts=accounts)
        async with (
            running(app) as url,
            httpx2.AsyncClient(base_url=url, timeout=20, trust_env=False) as client,
        ):
            yield Kept(client, upstream, lambda: opened[0], disk, settings)


def test_every_reply_begins_and_ends_with_what_was_handed_over(
    tokenizer: Path, tmp_path: Path
) -> None:
    bodies: list[bytes] = []

    async def work() -> Kept:
        async with kept(tokenizer, tmp_path) as on:
            asked = (CHAT, STREAM, CHAT | {"n": 3})
            bodies.extend([(await on.client.post(URL, json=body)).content for body in asked])
            await eventually(lambda: sum(on.ledger().stats.rows.values()) == 6)
            assert await on.metric("watermark_ledger_rows_total") == 6
            assert await on.metric('watermark_ledger_state{state="open"}') == 1
            return on

    rows = asyncio.run(work()).rows()
    begun, ended = rows[Kind.BEGIN], rows[Kind.END]
    assert [row.reply for row in begun] == [row.reply for row in ended]
    assert len({row.reply for row in begun}) == 3
    assert [row.digest for row in ended] == [hashlib.sha256(body).digest() for body in bodies]
    assert [row.n_bytes for row in ended] == [len(body) for body in bodies]
    assert [row.n_tokens for row in ended] == [24, 24, 72]
    assert {row.outcome for row in ended} == {"finish"}
    assert len({row.conversation for row in begun}) == 1  # they begin alike
    assert {(row.key_id, row.model, row.path) for row in begun} == {("test", "m", "select")}
    for row in ended:
        prints = unpack_fingerprints(row.contents or b"")
        assert 1 <= len(prints) <= 22 * 3
        assert sorted(set(prints.tolist())) == prints.tolist()


def test_turns_of_a_conversation_count_a_context_once(tokenizer: Path, tmp_path: Path) -> None:
    async def work() -> Kept:
        async with kept(tokenizer, tmp_path) as on:
            first = (await on.client.post(URL, json=CHAT)).json()["choices"][0]["message"]
            messages = [*CHAT["messages"], first, {"role": "user", "content": "go on"}]  # type: ignore[misc]
            await on.client.post(URL, json=CHAT | {"messages": messages})
            await on.client.post(URL, json=CHAT | {"messages": messages[-1:]})
            return on

    first, again, other = asyncio.run(work()).rows()[Kind.END]
    prints = [set(unpack_fingerprints(row.contents or b"").tolist()) for row in (first, again)]
    assert prints[0]
    assert not prints[0] & prints[1]
    assert first.conversation == again.conversation != other.conversation


def test_tokens_are_kept_encrypted_and_go_with_their_key(tokenizer: Path, tmp_path: Path) -> None:
    async def work() -> tuple[Kept, str]:
        async with kept(tokenizer, tmp_path, keeps=Keeps.TOKENS) as on:
            answer = await on.client.post(URL, json=CHAT | {"return_token_ids": True})
            return on, str(answer.json()["choices"][0]["token_ids"])

    on, shown = asyncio.run(work())
    (row,) = on.rows()[Kind.END]
    vault = Vault(tmp_path / "accounts.vault", on.settings.secret(), bytes)
    assert row.reply is not None
    assert row.contents is not None
    plain = vault.open(row.account, row.reply, row.contents)
    assert plain is not None
    assert plain not in row.contents
    assert str(unpack_tokens(plain)[0].tolist()) == shown
    assert vault.erase(bytes(16), at_us=1)
    assert vault.open(row.account, row.reply, row.contents) is None
    vault.close()


def test_units_of_words_are_cut_from_the_text_that_left(tokenizer: Path, tmp_path: Path) -> None:
    async def work() -> Kept:
        async with kept(tokenizer, tmp_path, unit=WORDS_V1) as on:
            await on.client.post(URL, json=CHAT | {"logit_bias": {"33": 4}})
            return on

    (row,) = asyncio.run(work()).rows()[Kind.END]
    assert row.unit == WORDS_V1
    assert row.n_tokens == 24
    assert row.contents == b""  # one word has no context


def as_text(asked: Any, answer: dict[str, Any]) -> dict[str, Any]:
    """Turn a draft of token ids into one of text."""
    text = "a" * asked["max_tokens"]
    return {
        "choices": [
            {"index": one["index"], "text": text, "finish_reason": "length"}
            for one in answer["choices"]
        ]
    }


@pytest.mark.parametrize("unit", ["tokenizer", WORDS_V1])
def test_tokens_of_a_continued_text_are_those_of_the_text_that_left(
    tokenizer: Path, tmp_path: Path, unit: str
) -> None:
    async def work() -> tuple[Kept, str]:
        able = Capabilities(continuation="text", max_n=4)
        async with kept(
            tokenizer, tmp_path, keeps=Keeps.TOKENS, change=as_text, capabilities=able, unit=unit
        ) as on:
            asked = {"model": "m", "prompt": "?", "max_tokens": 24}
            answer = await on.client.post("/v1/completions", json=asked)
            return on, answer.json()["choices"][0]["text"]

    on, text = asyncio.run(work())
    rows = on.rows()
    (begun,), (ended,) = rows[Kind.BEGIN], rows[Kind.END]
    cut = WordsUnit() if unit == WORDS_V1 else TokenizerUnit.read(tokenizer)
    assert begun.tokenizer == begun.unit == cut.unit_id
    assert ended.reply is not None
    assert ended.contents is not None
    vault = Vault(tmp_path / "accounts.vault", on.settings.secret(), bytes)
    plain = vault.open(ended.account, ended.reply, ended.contents)
    vault.close()
    assert plain is not None
    assert text == "a" * 24
    assert unpack_tokens(plain)[0].tolist() == cut.encode(text).tolist()


def test_no_byte_leaves_before_the_beginning_is_on_the_disk(
    tokenizer: Path, tmp_path: Path
) -> None:
    async def timed() -> None:
        async with kept(tokenizer, tmp_path) as on:
            gate = asyncio.Event()
            disk_step, loop = on.disk.step, asyncio.get_running_loop()

            def slow(operation: str) -> None:
                asyncio.run_coroutine_threadsafe(gate.wait(), loop).result(10)
                disk_step(operation)

            on.disk.step = slow  # type: ignore[method-assign]
            asked = asyncio.ensure_future(on.client.post(URL, json=STREAM))
            await eventually(on.upstream.asked)
            await asyncio.sleep(0.2)  # the upstream has long answered
            assert len(on.upstream.asked()) == 1
            assert not asked.done()
            gate.set()
            assert (await asked).content.endswith(b"data: [DONE]\n\n")

    scenario(timed)


def test_who_leaves_is_written_down_with_what_he_had(tokenizer: Path, tmp_path: Path) -> None:
    async def work() -> tuple[Kept, bytes]:
        async with kept(tokenizer, tmp_path, change=later) as on:
            async with on.client.stream("POST", URL, json=STREAM) as answer:
                parts = answer.aiter_raw()
                data = await anext(parts)
                while data.count(b"\n\n") < 3:
                    data += await anext(parts)
            await eventually(lambda: on.ledger().n_open == 0)
            return on, data

    drafts: list[int] = []

    def later(_asked: Any, answer: Any) -> Any:
        drafts.append(1)
        return answer if len(drafts) < 3 else None  # it never answers again

    on, data = asyncio.run(work())
    (row,) = on.rows()[Kind.END]
    assert row.outcome == "abort"
    assert row.n_bytes == len(data)
    assert row.digest == hashlib.sha256(data).digest()
    assert 0 < (row.n_tokens or 0) < 24


def test_an_upstream_that_fails_leaves_nothing_delivered(tokenizer: Path, tmp_path: Path) -> None:
    async def work() -> Kept:
        async with kept(tokenizer, tmp_path, change=lambda _asked, _answer: b"{") as on:
            answer = await on.client.post(URL, json=STREAM)
            assert answer.status_code == 502
            return on

    (row,) = asyncio.run(work()).rows()[Kind.END]
    assert (row.outcome, row.n_tokens, row.n_bytes) == ("void", 0, 0)


@pytest.mark.parametrize("policy", ["block", "pass-unmarked"])
def test_while_nothing_can_be_written_nothing_is_marked(
    tokenizer: Path, tmp_path: Path, policy: str
) -> None:
    async def work() -> Kept:
        async with kept(tokenizer, tmp_path, policy=policy) as on:
            on.disk.fault = {"sync": apsw.IOError}
            for attempt in range(3):  # the first one finds out
                answer = await on.client.post(URL, json=STREAM)
                if policy == "block":
                    assert answer.status_code == 503
                    assert answer.headers["retry-after"]
                else:
                    header = answer.headers["x-watermark"]
                    assert header == "unmarked; reason=ledger-down"
                assert on.ledger().state is State.BROKEN, attempt
            assert await on.metric('watermark_ledger_state{state="broken"}') == 1
            on.disk.fault = {}
            await eventually(lambda: on.ledger().state is State.OPEN)
            answer = await on.client.post(URL, json=STREAM)
            assert answer.headers["x-watermark"].startswith("marked")
            return on

    rows = asyncio.run(work()).rows()
    (gap,) = map(gap_of, rows[Kind.GAP])
    assert (gap.cause, gap.refused, gap.lost) == ("write-error", 3, 0)
    assert [row.outcome for row in rows[Kind.END]] == ["finish"]


def test_an_account_may_have_a_policy_of_its_own_and_is_named_by_its_pseudonym(
    tokenizer: Path, tmp_path: Path
) -> None:
    text = account("free", "sk-f", on_ledger_unavailable="pass-unmarked") + account("paid", "sk-p")
    keys = {name: {"authorization": f"Bearer sk-{name[0]}"} for name in ("free", "paid")}

    async def work() -> Kept:
        async with kept(tokenizer, tmp_path, accounts=AccountHolder(book(text))) as on:
            for headers in keys.values():
                answer = await on.client.post(URL, json=STREAM, headers=headers)
                assert answer.headers["x-watermark"].startswith("marked")
            on.disk.fault = {"sync": apsw.IOError}
            free = await on.client.post(URL, json=STREAM, headers=keys["free"])
            paid = await on.client.post(URL, json=STREAM, headers=keys["paid"])
            assert free.headers["x-watermark"] == "unmarked; reason=ledger-down"
            assert paid.status_code == 503
            on.disk.fault = {}
            await eventually(lambda: on.ledger().state is State.OPEN)
            return on

    on = asyncio.run(work())
    names = Pseudonyms(on.settings.secret())
    wanted = [names.of_account(name) for name in ("free", "paid")]
    ended = {row.reply: row.account for row in on.rows()[Kind.END]}  # one may be there twice
    assert list(ended.values()) == wanted


@pytest.mark.parametrize("policy", ["block", "pass-unmarked"])
def test_a_reply_under_way_stops_being_marked(tokenizer: Path, tmp_path: Path, policy: str) -> None:
    async def work() -> tuple[Kept, bytes]:
        async with kept(tokenizer, tmp_path, policy=policy, change=breaks) as on:
            scene.append(on)
            answer = await on.client.post(URL, json=STREAM)
            on.disk.fault = {}
            await eventually(lambda: on.ledger().state is State.OPEN)
            return on, answer.content

    scene: list[Kept] = []
    drafts: list[int] = []

    def breaks(_asked: Any, answer: Any) -> Any:
        drafts.append(1)
        if len(drafts) == 2:  # another reply's row meets the error
            scene[0].disk.fault = {"sync": apsw.IOError}
            scene[0].ledger()._writer._break(LedgerFileError("x: SQLITE_IOERR; y"))
        return answer

    on, content = asyncio.run(work())
    (row,) = on.rows()[Kind.END]
    assert row.n_bytes == len(content)
    if policy == "block":
        assert b"[DONE]" not in content
        assert row.outcome == "abort"
    else:
        assert content.endswith(b"data: [DONE]\n\n")
        assert row.outcome == "finish"
    assert len(on.rows()[Kind.GAP]) == 1
