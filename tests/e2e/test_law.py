"""What the proxy delivers follows the model's own distribution.

A key is fixed for a process, so the mark is averaged over keys here: every draw comes from an
application of its own with a fresh key, in process, in front of one model. The law held is that
of the third token after two delivered ones: the first position that a key of width 2 marks. Its
exact distribution is averaged over the contexts that the replies themselves drew. Negative
controls with a fixed key and context show that the test would see a mark that is not averaged.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx2
import numpy as np
import pytest
from scipy import stats

from proxy.app import create_app
from proxy.config import Capabilities, SpliceConfig
from proxy.embedded.language_model import TokenRow
from proxy.embedded.server import create_app as create_model_app
from tests.support.servers import SELECT_ONLY, key_ring, model_config, proxy_config

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from proxy.embedded.builtin import BuiltinModel

SHORT = Capabilities(logprobs=20, logprobs_mode="tempered", logit_bias=True, max_n=64)
PATHS = {
    "splice-greedy": SpliceConfig(logprobs=20, drafts=0),
    "splice-sampled": SpliceConfig(logprobs=20, drafts=2),
    "select": SELECT_ONLY,
}
BINS = 24


def distribution(
    builtin: BuiltinModel, tokens: list[int], temperature: float
) -> NDArray[np.float64]:
    """The model's own next-token law, end tokens banned."""
    logits = builtin.open_session().logits([TokenRow(tokens=list(tokens))])[0] / temperature
    logits[list(builtin.end_ids)] = -np.inf
    weights = np.exp(logits - logits.max())
    law: NDArray[np.float64] = weights / weights.sum()
    return law


async def draw(
    builtin: BuiltinModel, splice: SpliceConfig, count: int, *, fixed_key: bool
) -> list[tuple[list[int], int]]:
    """Return (context, token) pairs at the third position of replies."""
    model_app = create_model_app(builtin)
    upstream = httpx2.ASGITransport(app=model_app)
    model = model_config("builtin", builtin.tokenizer_path, capabilities=SHORT, splice=splice)
    config = proxy_config("http://model", model)
    body = {
        "model": "builtin",
        "prompt": "The parser reads",
        "max_tokens": 3,
        "temperature": 0.8,
        "logit_bias": {str(token): -100 for token in builtin.end_ids},
        "return_token_ids": True,
    }
    secrets: Iterator[bytes] = (
        (0 if fixed_key else place).to_bytes(32, "little") for place in range(1, count + 1)
    )

    async def one(secret: bytes) -> tuple[list[int], int]:
        app = create_app(
            config, key_ring(builtin.tokenizer_path, secret=secret), transport=upstream
        )
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://p") as client:
            answer: Any = (await client.post("/v1/completions", json=body)).json()
        (choice,) = answer["choices"]
        return choice["prompt_token_ids"] + choice["token_ids"][:2], choice["token_ids"][2]

    async with model_app.router.lifespan_context(model_app):
        return [await one(secret) for secret in secrets]


def pvalue(builtin: BuiltinModel, pairs: list[tuple[list[int], int]]) -> float:
    """Chi-square of the draws' places in their laws.

    A draw of the law at cumulative place F(x - 1) + v p(x), v uniform, is itself uniform, whatever
    its context; tokens are ordered by probability, so likely tokens fill the low bins.
    """
    rng = np.random.default_rng(5)
    places = []
    for context, token in pairs:
        law = distribution(builtin, context, 0.8)
        order = np.argsort(-law, kind="stable")
        before = float(law[order[: int(np.flatnonzero(order == token)[0])]].sum())
        places.append(before + rng.random() * float(law[token]))
    observed, _ = np.histogram(places, bins=BINS, range=(0, 1))
    return float(stats.chisquare(observed).pvalue)


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS)
def test_next_tokens_follow_the_model(builtin: BuiltinModel, path: str) -> None:
    pairs = asyncio.run(draw(builtin, PATHS[path], 1500, fixed_key=False))
    assert pvalue(builtin, pairs) > 1e-3


@pytest.mark.slow
def test_the_test_sees_a_law_that_is_not_the_models(builtin: BuiltinModel) -> None:
    """The same draws, held against another temperature's law, must fail."""
    pairs = asyncio.run(draw(builtin, PATHS["splice-sampled"], 1500, fixed_key=False))
    rng = np.random.default_rng(6)
    flattened = [
        (context, int(rng.choice(builtin.vocab_size, p=distribution(builtin, context, 1.1))))
        for context, _ in pairs
    ]
    assert pvalue(builtin, flattened) < 1e-6
