"""What the proxy delivers follows the model's own distribution.

A process has one key, so the average over keys is taken here over proxies: every reply comes from
an application of its own with a fresh key, in process, before one model. Lists are shorter than
the vocabulary. Within a reply the average is over the positions, each after its own tokens; where
the upstream continues text, after those that the text is cut into.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx2
import msgspec
import numpy as np
import pytest
from scipy import stats

from proxy.app import create_app
from proxy.config import Capabilities, SpliceConfig
from proxy.embedded.language_model import TokenRow
from proxy.embedded.server import create_app as create_model_app
from tests.support.servers import SELECT_ONLY, key_ring, model_config, proxy_config

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from proxy.embedded.builtin import BuiltinModel

TEXT = "over-text"
SHORT = Capabilities(logprobs=20, logprobs_mode="tempered", logit_bias=True, max_n=64)
PATHS = {
    "splice-greedy": SpliceConfig(logprobs=20, drafts=0),
    "splice-sampled": SpliceConfig(logprobs=20, drafts=2),
    "select": SELECT_ONLY,
    f"splice-{TEXT}": SpliceConfig(logprobs=20, drafts=2),
    f"select-{TEXT}": SELECT_ONLY,
}
PROMPT = "The parser reads"
REPLIES, LENGTH, BINS = 250, 10, 24
TEMPERATURE = 0.8


def distribution(
    builtin: BuiltinModel, tokens: list[int], temperature: float
) -> NDArray[np.float64]:
    """The model's own next-token law, end tokens banned."""
    logits = builtin.open_session().logits([TokenRow(tokens=list(tokens))])[0] / temperature
    logits[list(builtin.end_ids)] = -np.inf
    weights = np.exp(logits - logits.max())
    law: NDArray[np.float64] = weights / weights.sum()
    return law


async def draw(builtin: BuiltinModel, path: str) -> list[tuple[list[int], int]]:
    """Return (tokens before, token) of every position of many replies, a key each."""
    model_app = create_model_app(builtin)
    upstream = httpx2.ASGITransport(app=model_app)
    is_text = path.endswith(TEXT)
    able = msgspec.structs.replace(SHORT, continuation="text" if is_text else "token-ids")
    model = model_config("builtin", builtin.tokenizer_path, capabilities=able, splice=PATHS[path])
    config = proxy_config("http://model", model)
    body = {
        "model": "builtin",
        "prompt": PROMPT,
        "max_tokens": LENGTH,
        "temperature": TEMPERATURE,
        "logit_bias": {str(token): -100 for token in builtin.end_ids},
        "return_token_ids": not is_text,
    }
    pairs = []
    async with model_app.router.lifespan_context(model_app):
        for place in range(REPLIES):
            ring = key_ring(builtin.tokenizer_path, secret=(place + 1).to_bytes(32, "little"))
            app = create_app(config, ring, transport=upstream)
            transport = httpx2.ASGITransport(app=app)
            asked = body | {"seed": place}
            async with httpx2.AsyncClient(transport=transport, base_url="http://p") as client:
                answer: Any = (await client.post("/v1/completions", json=asked)).json()
            (choice,) = answer["choices"]
            prompt, tokens = ids_of(builtin, choice)
            pairs += [([*prompt, *tokens[:i]], tokens[i]) for i in range(len(tokens))]
    return pairs


def ids_of(builtin: BuiltinModel, choice: Any) -> tuple[list[int], list[int]]:
    """The tokens of the prompt and of the reply."""
    if "token_ids" in choice:
        return choice["prompt_token_ids"], choice["token_ids"]
    prompt = builtin.encode(PROMPT, add_special_tokens=True)
    both = builtin.encode(PROMPT + choice["text"], add_special_tokens=True)
    return prompt, both[len(prompt) :]


def pvalue(builtin: BuiltinModel, pairs: list[tuple[list[int], int]], temperature: float) -> float:
    """Chi-square of the draws' places in their laws.

    The place F(before x) + v p(x) of a draw x, v uniform, is itself uniform, whatever came before;
    tokens are ordered by probability, so likely ones fill the low bins.
    """
    rng = np.random.default_rng(5)
    places = []
    for before, token in pairs:
        law = distribution(builtin, before, temperature)
        is_likelier = (law > law[token]) | ((law == law[token]) & (np.arange(len(law)) < token))
        places.append(float(law[is_likelier].sum()) + rng.random() * float(law[token]))
    observed, _ = np.histogram(places, bins=BINS, range=(0, 1 + 1e-9))
    return float(stats.chisquare(observed).pvalue)


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS)
def test_tokens_follow_the_model(builtin: BuiltinModel, path: str) -> None:
    pairs = asyncio.run(draw(builtin, path))
    assert pvalue(builtin, pairs, TEMPERATURE) > 1e-3
    # The negative control: of another temperature's law they are no draws.
    assert pvalue(builtin, pairs, 1.25 * TEMPERATURE) < 1e-4
