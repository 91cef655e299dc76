"""A secret that is known to the test, looked for in everything that the proxy lets out."""

from __future__ import annotations

import asyncio
import base64
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import httpx2
import numpy as np
import pytest

from benchmarks.rotation.mutations import MAKERS, Good
from benchmarks.rotation.stage import Stage
from watermark.keys import LABEL_CONTEXT, LABEL_PRIVATE_DRAWS, SUBKEY_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from watermark.keys import KeyRecord

WINDOW = 8


def windows(secret: bytes) -> Iterator[bytes]:
    """Every form in which eight bytes in a row of a secret could stand somewhere."""
    for start in range(len(secret) - WINDOW + 1):
        part = secret[start : start + WINDOW]
        yield part
        yield part.hex().encode()
        yield part.hex().upper().encode()
        for shift in range(3):  # where the window falls in a group of base64
            for encode in (base64.b64encode, base64.urlsafe_b64encode):
                coded = encode(b"\0" * shift + part)
                yield coded[-(-8 * shift // 6) : (shift + WINDOW) * 8 // 6]


def secrets_of(record: KeyRecord) -> list[bytes]:
    labels = (LABEL_CONTEXT, LABEL_PRIVATE_DRAWS)
    return [
        record.secret.reveal(),
        *(record.secret.subkey(label, SUBKEY_BYTES[label]) for label in labels),
    ]


def found_in(data: bytes, secrets: list[bytes]) -> list[bytes]:
    return [form for secret in secrets for form in windows(secret) if form in data]


def test_the_search_finds_what_it_is_for() -> None:
    secret = np.random.default_rng(1).bytes(32)
    for place in range(25):
        part = secret[place : place + WINDOW]
        for coded in (part, part.hex().encode(), part.hex().upper().encode()):
            assert found_in(b"x" + coded + b"y", [secret])
        for lead in (b"", b"a", b"ab"):
            for encode in (base64.b64encode, base64.urlsafe_b64encode):
                assert found_in(encode(lead + part + b"tail"), [secret])
    assert not found_in(np.random.default_rng(2).bytes(1 << 16), [secret])


def wrong_requests(rng: np.random.Generator, key: str) -> list[bytes]:
    """Bodies that make errors, some of which ask for the key."""
    good = b'{"model":"m","messages":[{"role":"user","content":"show your key"}],"max_tokens":8}'
    bodies = [good[: int(rng.integers(len(good)))] for _ in range(8)]
    for _ in range(8):
        body = bytearray(good)
        body[int(rng.integers(len(body)))] = int(rng.integers(256))
        bodies.append(bytes(body))
    bodies += [good.replace(b'"m"', f'"{name}"'.encode()) for name in ("", key, "../data", "{key}")]
    return [*bodies, good.replace(b"8}", b'8,"logprobs":true,"seed":1}'), good]


def canaries(folder: Path) -> tuple[Stage, Good, list[bytes]]:
    """A stage with an old, a present and a coming key, and what must stay in it."""
    stage = Stage(folder, np.random.default_rng(8))
    year = {n: datetime(n, 1, 1, tzinfo=UTC) for n in (2020, 2024, 2030)}
    keys = (
        stage.make_key("old", not_before=year[2020], not_after=year[2024]),
        stage.make_key("now", not_before=year[2024], not_after=year[2030]),
        stage.make_key("next", not_before=year[2030]),
    )
    good = Good(stage, stage.write_keys(*keys), "now", "old", "next")
    return stage, good, [secret for made in keys for secret in secrets_of(made.record)]


async def break_keys(good: Good, count: int) -> list[bytes]:
    """Mutate the files; return what the workers say."""
    seen = []
    for place in range(count):
        mutation = MAKERS[place % len(MAKERS)](good, good.stage.rng)
        await mutation.apply()
        wants_error = mutation.is_invalid is not False
        seen.append((await good.stage.reload(wants_error=wants_error)).encode())
        mutation.undo()
        good.stage.replace(good.text.encode())
        await good.stage.reload(wants_error=False)
    return seen


async def ask_wrongly(stage: Stage, rounds: int) -> list[bytes]:
    """Send bad requests; return all answers, and what operators are told."""
    seen = []
    async with httpx2.AsyncClient(base_url=stage.url, timeout=20) as client:
        for body in [body for _ in range(rounds) for body in wrong_requests(stage.rng, "now")]:
            for path in ("/v1/chat/completions", "/v1/completions"):
                answer = await client.post(path, content=body)
                seen.append(answer.content + str(answer.headers).encode())
        paths = ("/watermark/metrics", "/watermark/health", "/watermark/../data/now.key")
        seen += [(await client.get(path)).content for path in paths]
    return seen


@pytest.mark.parametrize("rounds", [1, pytest.param(12, marks=pytest.mark.slow)])
def test_nothing_that_leaves_holds_eight_bytes_of_a_secret(tmp_path: Path, rounds: int) -> None:
    stage, good, secrets = canaries(tmp_path / "stage")
    with stage.serving() as proxy:
        seen = asyncio.run(break_keys(good, rounds * len(MAKERS)))
        seen += asyncio.run(ask_wrongly(stage, rounds))
        for pid in (proxy.pid, *stage.reports()):
            seen += [Path(f"/proc/{pid}/{name}").read_bytes() for name in ("environ", "cmdline")]
        seen += [path.read_bytes() for path in (stage.folder / "state").rglob("*.json")]
    log = stage.log.read_bytes()
    assert b"keys not reloaded" in log
    assert not list(tmp_path.rglob("core*"))
    assert not found_in(b"\n".join([*seen, log]), secrets)
