"""Proxies and models for tests: a key ring, configurations, and real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, Any, Final, TypeVar

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from proxy.cli.servers import running
from proxy.config import (
    Capabilities,
    DisclosureConfig,
    KeysConfig,
    ModelConfig,
    ProxyConfig,
    SelectConfig,
    SpliceConfig,
    UpstreamConfig,
)
from watermark.keys import KeyRecord, KeyRing, SecretKey
from watermark.text import WORDS_V1, tokenizer_unit_id

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from pathlib import Path

    from starlette.types import ASGIApp

T = TypeVar("T")
END: Final = "<|endoftext|>"
VOCAB: Final = 257
ABLE: Final = Capabilities(logprobs=4096, logprobs_mode="tempered", logit_bias=True, max_n=64)
SELECT_ONLY: Final = SpliceConfig(enabled=False)


def byte_tokenizer(folder: Path) -> Path:
    """Write a tokenizer of one token a byte, ids 1 to 256; 0 ends a text."""
    stand_ins = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {END: 0} | {stand_in: place for place, stand_in in enumerate(stand_ins, start=1)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(END, special=True)])
    path = folder / "tokenizer.json"
    tokenizer.save(str(path))
    return path


def key_record(unit: str, *, key_id: str = "test", secret: bytes = b"k" * 32) -> KeyRecord:
    return KeyRecord(key_id=key_id, unit=unit, secret=SecretKey(key_id, secret))


def key_ring(tokenizer: Path, *, secret: bytes = b"k" * 32) -> KeyRing:
    """Return keys for the tokenizer's unit and for words."""
    unit = tokenizer_unit_id(tokenizer.read_bytes())
    return KeyRing((key_record(unit, secret=secret), key_record(WORDS_V1, secret=secret)))


def model_config(name: str, tokenizer: Path, **fields: Any) -> ModelConfig:
    given: dict[str, Any] = {
        "capabilities": ABLE,
        "end_tokens": [END],
        "select": SelectConfig(),
    } | fields
    return ModelConfig(name=name, tokenizer=str(tokenizer), **given)


def proxy_config(
    url: str, *served: ModelConfig, callers: tuple[str, ...] = ("*",), **fields: Any
) -> ProxyConfig:
    upstream = fields.pop("upstream", {})
    return ProxyConfig(
        upstream=UpstreamConfig(url=url, **upstream),
        keys=KeysConfig(file="KEYS.toml"),
        disclosure=DisclosureConfig(callers=list(callers)),
        models=list(served),
        **fields,
    )


class Backstage:
    """An event loop in a thread of its own, with servers that clients of any kind can use."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._stack = contextlib.AsyncExitStack()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def serve(self, app: ASGIApp) -> str:
        """Serve until the stage closes; return the base URL."""
        return self.run(self._stack.enter_async_context(running(app)))

    @contextlib.contextmanager
    def opened(self) -> Iterator[Backstage]:
        self._thread.start()
        try:
            yield self
        finally:
            self.run(self._stack.aclose())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)
            self._loop.close()


async def eventually(condition: Callable[[], object], *, seconds: float = 5.0) -> None:
    """Wait until a condition holds."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "it did not happen in time"
        await asyncio.sleep(0.005)
