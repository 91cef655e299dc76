"""What the story-model benchmarks share: prompts, the model in process, servers, tables.

The models and texts lie in the folder that OUTPUT_WATERMARK_SHARED names; they are not part of
the project.
"""

from __future__ import annotations

import contextlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import httpx2
import msgspec
import numpy as np

from proxy.app import create_app
from proxy.cli.servers import EmbeddedReady, embedded_upstream, running
from proxy.config import (
    Capabilities,
    DisclosureConfig,
    EmbeddedConfig,
    KeysConfig,
    ModelConfig,
    ProxyConfig,
    ReplyConfig,
    SelectConfig,
    SpliceConfig,
    UpstreamConfig,
)
from proxy.embedded.language_model import TokenRow
from proxy.embedded.models import load_model
from watermark.keys import KeyRecord, KeyRing, SecretKey
from watermark.text import TokenizerUnit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from numpy.typing import NDArray

    from proxy.embedded.language_model import LanguageModel

STORY_MODEL = "models/tinystories-ple-3.5M"
PROMPT_TOKENS = 16
END_OF_TEXT = "<|endoftext|>"


def shared() -> Path:
    """Return the folder with models and texts."""
    folder = os.environ.get("OUTPUT_WATERMARK_SHARED")
    if not folder:
        sys.exit("set OUTPUT_WATERMARK_SHARED to the folder with models/, text/ and tokenizers/")
    return Path(folder)


def stories() -> list[str]:
    """Return the validation stories, the cut-off first one left out."""
    text = (shared() / "text/tinystories/tinystories_val.txt").read_text(encoding="utf-8")
    return [story.strip() for story in text.split(END_OF_TEXT)[1:] if len(story) > 200]


@dataclass(frozen=True)
class Story:
    """The story model in this process."""

    model: LanguageModel
    unit: TokenizerUnit

    @property
    def end_id(self) -> int:
        """The token that ends a story."""
        return min(self.model.end_ids)

    def prompts(self, count: int, *, skip: int = 0) -> list[list[int]]:
        """Return the beginnings of stories, start token first."""
        chosen = stories()[skip : skip + count]
        return [[self.end_id, *self.unit.encode(s).tolist()[:PROMPT_TOKENS]] for s in chosen]

    def key(
        self, seed: int, *, context_width: int = 2, rho: float = 0.9, unit: str = ""
    ) -> KeyRecord:
        """Return a key made from a fixed seed: for measurements only."""
        key_id = f"bench-{seed}"
        secret = SecretKey(key_id, np.random.default_rng(seed).bytes(32))
        return KeyRecord(
            key_id=key_id,
            unit=unit or self.unit.unit_id,
            context_width=context_width,
            rho=rho,
            secret=secret,
        )

    def logits(self, sequences: Sequence[Sequence[int]]) -> Iterator[NDArray[np.float64]]:
        """Yield next-token logits, shape (rows, vocab), while the caller appends to the rows."""
        session = self.model.open_session()
        rows = [TokenRow(tokens=list(sequence)) for sequence in sequences]
        while True:
            yield session.logits(rows)
            for row, sequence in zip(rows, sequences, strict=True):
                row.tokens[:] = sequence


def load_story() -> Story:
    """Load the story model."""
    folder = shared() / STORY_MODEL
    model = load_model(str(folder), cache_dir=Path(), trust_remote_code=True)
    return Story(model, TokenizerUnit.read(model.tokenizer_path))


def probabilities(
    logits: NDArray[np.float64], temperature: float, banned: int
) -> NDArray[np.float64]:
    """Return the sampling distribution with one token banned, shape as the logits."""
    logits = logits / temperature
    logits[..., banned] = -np.inf
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    p: NDArray[np.float64] = weights / weights.sum(axis=-1, keepdims=True)
    return p


@contextlib.contextmanager
def story_upstream(cache_dir: Path) -> Iterator[EmbeddedReady]:
    """Serve the story model in a process of its own."""
    config = EmbeddedConfig(model=str(shared() / STORY_MODEL), port=0, trust_remote_code=True)
    with embedded_upstream(config, cache_dir=cache_dir) as ready:
        yield ready


@dataclass(frozen=True)
class Setting:
    """How the proxy marks in one measurement."""

    path: str
    logprobs: int = 0
    draft_tokens: int = 4
    drafts: int = 0
    chunk_tokens: int = 8
    candidates: int = 8
    is_text: bool = False
    unit: Literal["tokenizer", "words/v1"] = "tokenizer"
    chosen: int = 0

    @property
    def _continuation(self) -> Literal["token-ids", "text", "none"]:
        if self.path == "reply":
            return "none"
        return "text" if self.is_text else "token-ids"

    def config(self, ready: EmbeddedReady) -> ProxyConfig:
        """Return the proxy's configuration."""
        model = ModelConfig(
            name=ready.model,
            tokenizer=ready.tokenizer,
            end_tokens=ready.end_tokens,
            unit=self.unit,
            capabilities=Capabilities(
                continuation=self._continuation,
                logprobs=self.logprobs,
                logprobs_mode="tempered",
                logit_bias=True,
                max_bias=8192,
                chosen_logprobs=self.chosen,
                max_n=max(1, self.candidates, self.drafts),
            ),
            splice=SpliceConfig(
                enabled=self.path == "splice",
                draft_tokens=self.draft_tokens,
                drafts=self.drafts,
                logprobs=max(1, self.logprobs),
            ),
            select=SelectConfig(
                enabled=self.path != "none",
                chunk_tokens=self.chunk_tokens,
                candidates=self.candidates,
            ),
            reply=ReplyConfig(candidates=self.candidates),
        )
        return ProxyConfig(
            upstream=UpstreamConfig(url=ready.url, read_timeout_s=600.0),
            keys=KeysConfig(file="KEYS.toml"),
            disclosure=DisclosureConfig(callers=["*"]),
            models=[model],
        )


@contextlib.asynccontextmanager
async def proxied(
    setting: Setting, ready: EmbeddedReady, record: KeyRecord
) -> AsyncIterator[httpx2.AsyncClient]:
    """Run the proxy and yield a client of it."""
    app = create_app(setting.config(ready), KeyRing((record,)))
    limits = httpx2.Limits(max_connections=256)
    async with (
        running(app) as url,
        httpx2.AsyncClient(base_url=url, timeout=1200, limits=limits) as client,
    ):
        yield client


async def complete(client: httpx2.AsyncClient, **body: Any) -> dict[str, Any]:
    """Return the answer of /v1/completions."""
    response = await client.post("/v1/completions", json=body)
    if response.status_code != httpx2.codes.OK:
        sys.exit(f"the proxy answered {response.status_code}: {response.text}")
    answer: dict[str, Any] = msgspec.json.decode(response.content)
    answer["watermark"] = response.headers.get("x-watermark", "")
    return answer


async def counter(client: httpx2.AsyncClient, name: str) -> float:
    """Return one of the proxy's counters, summed over its labels."""
    lines = (await client.get("/watermark/metrics")).text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name + "{"))


def print_table(title: str, head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a Markdown table."""
    print(f"\n### {title}\n")
    print("| " + " | ".join(head) + " |")
    print("|" + "|".join("---" for _ in head) + "|")
    for row in rows:
        print("| " + " | ".join(_cell(value) for value in row) + " |", flush=True)


def _cell(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
