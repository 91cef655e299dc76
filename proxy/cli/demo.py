"""`watermark-proxy demo`: from a prompt to a p-value, on one machine, in a minute.

Everything is real: a language model in a process of its own, the proxy on a socket, HTTP between
them, and the detector reading nothing but the text that was delivered.
"""

from __future__ import annotations

import asyncio
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httpx2
import msgspec
from rich.console import Console
from rich.table import Table

from proxy.app import create_app
from proxy.cli.first_key import marking_ring
from proxy.cli.serve import say
from proxy.cli.servers import EmbeddedReady, embedded_upstream, running
from proxy.config import (
    Capabilities,
    DisclosureConfig,
    EmbeddedConfig,
    KeysConfig,
    ModelConfig,
    ProxyConfig,
    SpliceConfig,
    UpstreamConfig,
)
from proxy.errors import UpstreamProtocolError
from watermark.detection import Detector
from watermark.keys import KeyRecord, SecretKey
from watermark.text import TokenizerUnit
from watermark.wire.sse import EventDecoder

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from watermark.keys import KeyRing

PROMPTS: Final = {
    "splice": (
        "What does the parser do with a string?",
        "Explain how a module is found and loaded.",
        "When should a class define its own methods?",
    ),
    "select": (
        "How does a server answer a request?",
        "What happens when an exception is raised?",
    ),
}


class DemoReply(msgspec.Struct, frozen=True, kw_only=True):
    """One answer and what the detector says of it.

    Attributes:
        prompt: What was asked.
        text: The answer, as delivered.
        path: How the mark got in.
        n_tokens: Tokens of the text, tokenized anew.
        n_scored: Positions that the detector scored.
        log10_pvalue: Under the key that marked.
        log10_pvalue_wrong_key: Under a key drawn for this comparison.
        upstream_requests: Drafts that the proxy asked of the upstream.
    """

    prompt: str
    text: str
    path: str
    n_tokens: int
    n_scored: int
    log10_pvalue: float
    log10_pvalue_wrong_key: float
    upstream_requests: int


class DemoResult(msgspec.Struct, frozen=True, kw_only=True):
    """The whole run.

    Attributes:
        key_id: The key that marked.
        unit: Its unit.
        log10_pvalue: Of all answers together, under that key.
        log10_pvalue_wrong_key: Of all answers together, under the other.
        replies: The answers.
    """

    key_id: str
    unit: str
    log10_pvalue: float
    log10_pvalue_wrong_key: float
    replies: list[DemoReply]


def run_demo(state: Path, *, tokens: int, as_json: bool) -> None:
    """Run the demo and print it.

    Args:
        state: Folder for the key and the built-in model.
        tokens: Longest answer.
        as_json: Print one JSON object instead.

    Raises:
        WatermarkError: Something cannot be started or used.
    """
    console = Console(quiet=as_json, highlight=False)
    say("starting the built-in language model (the first start trains it, some seconds)")
    with embedded_upstream(EmbeddedConfig(port=0), cache_dir=state / "cache") as ready:
        ring = marking_ring(state / "KEYS.toml", ready.unit, say)
        demo = _Demo(ready, ring, console, tokens)
        result = asyncio.run(demo.run())
    if as_json:
        Console(highlight=False, soft_wrap=True).out(msgspec.json.encode(result).decode())
    else:
        _print_table(console, result)


class _Demo:
    """One run against a ready upstream."""

    def __init__(self, ready: EmbeddedReady, ring: KeyRing, console: Console, tokens: int) -> None:
        self._ready = ready
        self._ring = ring
        self._console = console
        self._tokens = tokens
        self._unit = TokenizerUnit.read(Path(ready.tokenizer), expected=ready.unit)
        record = ring.marking(ready.unit, now=datetime.now(UTC))  # noqa: TID251 - the command line
        self._right = Detector(record, self._unit)
        self._wrong = Detector(_other_key(record), self._unit)

    async def run(self) -> DemoResult:
        """Ask every prompt through its path."""
        replies: list[DemoReply] = []
        for path, prompts in PROMPTS.items():
            app = create_app(self._config(path), self._ring)
            async with running(app) as url, httpx2.AsyncClient(base_url=url, timeout=60) as client:
                replies += [await self._ask(client, prompt, path) for prompt in prompts]
        texts = [reply.text for reply in replies]
        return DemoResult(
            key_id=self._right.record.key_id,
            unit=self._ready.unit,
            log10_pvalue=self._right.detect_pooled(texts).log10_pvalue,
            log10_pvalue_wrong_key=self._wrong.detect_pooled(texts).log10_pvalue,
            replies=replies,
        )

    def _config(self, path: str) -> ProxyConfig:
        model = ModelConfig(
            name=self._ready.model,
            tokenizer=self._ready.tokenizer,
            end_tokens=self._ready.end_tokens,
            capabilities=Capabilities(
                logprobs=100, logprobs_mode="tempered", logit_bias=True, max_n=64
            ),
            splice=SpliceConfig(enabled=path == "splice", logprobs=100, drafts=2),
        )
        return ProxyConfig(
            upstream=UpstreamConfig(url=self._ready.url),
            keys=KeysConfig(file="KEYS.toml"),
            disclosure=DisclosureConfig(callers=["*"]),
            models=[model],
        )

    async def _ask(self, client: httpx2.AsyncClient, prompt: str, path: str) -> DemoReply:
        before = await _drafts(client)
        self._console.print(f"\n[bold]{path}[/]  [dim]{prompt}[/]")
        parts = []
        async for part in _stream(client, self._body(prompt)):
            parts.append(part)
            self._console.print(part, end="", markup=False)
        self._console.print()
        text = "".join(parts)
        result = self._right.detect(text)
        return DemoReply(
            prompt=prompt,
            text=text,
            path=path,
            n_tokens=result.n_tokens,
            n_scored=result.n_scored,
            log10_pvalue=result.log10_pvalue,
            log10_pvalue_wrong_key=self._wrong.detect(text).log10_pvalue,
            upstream_requests=await _drafts(client) - before,
        )

    def _body(self, prompt: str) -> dict[str, Any]:
        return {
            "model": self._ready.model,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": self._tokens,
            "stream": True,
            # The built-in model likes short documents; without their end there is more to see.
            "logit_bias": {
                str(self._unit.tokenizer.token_to_id(token)): -100
                for token in self._ready.end_tokens
            },
        }


def _other_key(record: KeyRecord) -> KeyRecord:
    return KeyRecord(
        key_id="wrong",
        unit=record.unit,
        context_width=record.context_width,
        scheme=record.scheme,
        rho=record.rho,
        account_share_q16=record.account_share_q16,
        secret=SecretKey("wrong", secrets.token_bytes(32)),
    )


async def _stream(client: httpx2.AsyncClient, body: dict[str, Any]) -> AsyncIterator[str]:
    decoder = EventDecoder()
    async with client.stream("POST", "/v1/chat/completions", json=body) as response:
        if response.status_code != httpx2.codes.OK:
            _content((await response.aread()).decode())
        async for chunk in response.aiter_bytes():
            for event in decoder.feed(chunk):
                if event.is_done:
                    return
                yield _content(event.data)
    raise UpstreamProtocolError("the answer broke off before its end")


def _content(data: str) -> str:
    chunk = msgspec.json.decode(data)
    if "error" in chunk:
        raise UpstreamProtocolError(chunk["error"]["message"])
    return "".join(choice["delta"].get("content") or "" for choice in chunk["choices"])


async def _drafts(client: httpx2.AsyncClient) -> int:
    """Return how many drafts the proxy has asked for, from its own counters."""
    lines = (await client.get("/watermark/metrics")).text.splitlines()
    counts = [
        line.split()[-1] for line in lines if line.startswith("watermark_upstream_drafts_total")
    ]
    return int(sum(map(float, counts)))


def _print_table(console: Console, result: DemoResult) -> None:
    table = Table(title=f"Null: the text was produced without the key tested ({result.key_id})")
    names = (
        "path",
        "tokens",
        "scored",
        "log10 p, right key",
        "log10 p, wrong key",
        "tokens/request",
    )
    for name in names:
        table.add_column(name, justify="left" if name == "path" else "right")
    for reply in result.replies:
        per_request = reply.n_tokens / max(1, reply.upstream_requests)
        table.add_row(
            reply.path,
            str(reply.n_tokens),
            str(reply.n_scored),
            f"{reply.log10_pvalue:.1f}",
            f"{reply.log10_pvalue_wrong_key:.1f}",
            f"{per_request:.2f}",
        )
    table.add_section()
    n_tokens = sum(reply.n_tokens for reply in result.replies)
    n_scored = sum(reply.n_scored for reply in result.replies)
    table.add_row(
        "together",
        str(n_tokens),
        str(n_scored),
        f"{result.log10_pvalue:.1f}",
        f"{result.log10_pvalue_wrong_key:.1f}",
        "",
    )
    console.print()
    console.print(table)
