"""Splice over an upstream that lists tokens by name: more of the text carries the mark."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from proxy.app import create_app
from proxy.config import Capabilities, SpliceConfig
from tests.support.servers import Backstage, model_config, proxy_config
from watermark.detection import Detector
from watermark.text import TokenizerUnit

if TYPE_CHECKING:
    from proxy.embedded.builtin import BuiltinModel
    from tests.e2e.conftest import Stage

NOW = datetime.now(UTC)


@pytest.mark.slow
@pytest.mark.parametrize("drafts", [0, 2])
def test_the_effect_grows_with_chosen_tokens(
    stage: Stage, builtin: BuiltinModel, drafts: int
) -> None:
    unit = TokenizerUnit.read(builtin.tokenizer_path)
    detector = Detector(stage.ring.marking(unit.unit_id, now=NOW), unit)
    effects = []
    for chosen in (0, 128):
        able = Capabilities(
            logprobs=3,
            logprobs_mode="tempered",
            logit_bias=True,
            max_n=4,
            chosen_logprobs=chosen,
        )
        model = model_config(
            "builtin",
            builtin.tokenizer_path,
            capabilities=able,
            splice=SpliceConfig(logprobs=3, drafts=drafts, draft_tokens=2),
        )
        with Backstage().opened() as backstage:
            url = backstage.serve(create_app(proxy_config(stage.direct, model), stage.ring))
            texts = [_text(url, builtin, number) for number in range(16)]
        effects.append(detector.detect_pooled(texts).effect)
    assert effects[1] > effects[0]  # by .19 in the mean; four texts a side gave a deviation of .08


def _text(url: str, builtin: BuiltinModel, number: int) -> str:
    body: dict[str, Any] = {
        "model": "builtin",
        "messages": [{"role": "user", "content": f"Explain point {number} of the manual."}],
        "max_tokens": 100,
        "logit_bias": {str(token): -100 for token in builtin.end_ids},
    }
    answer = httpx2.post(f"{url}/v1/chat/completions", json=body, timeout=60)
    assert answer.headers["x-watermark"] == "marked; path=splice; key=test"
    return str(answer.json()["choices"][0]["message"]["content"])


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"logprob_token_ids": [1]}, "needs logprobs"),
        ({"logprob_token_ids": [1, 1], "logprobs": 1}, "each once"),
        ({"logprob_token_ids": [10**6], "logprobs": 1}, "outside 0 to"),
    ],
)
def test_the_embedded_upstream_refuses_what_it_cannot_list(
    stage: Stage, asked: dict[str, Any], says: str
) -> None:
    body = {"model": "builtin", "prompt": "The parser", "max_tokens": 1} | asked
    answer = httpx2.post(f"{stage.direct}/v1/completions", json=body)
    assert answer.status_code == 400
    assert says in answer.json()["error"]["message"]
