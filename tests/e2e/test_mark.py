"""The mark, read from nothing but delivered text; and who is told of it."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from proxy.app import create_app
from proxy.config import Capabilities
from tests.support.servers import (
    SELECT_ONLY,
    Backstage,
    key_record,
    model_config,
    proxy_config,
)
from watermark.detection import Detector
from watermark.text import TokenizerUnit, WordsUnit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proxy.embedded.builtin import BuiltinModel
    from tests.e2e.conftest import Stage

NOW = datetime.now(UTC)
PROMPTS = ("What does the parser do?", "How is a class defined?", "When is a file closed?")


@pytest.fixture(scope="module")
def http() -> Iterator[httpx2.Client]:
    with httpx2.Client(timeout=60) as client:
        yield client


# Tokens a reply: splice marks nearly every token, select about a third as strongly, and a word
# of this model is about two tokens.
@pytest.mark.parametrize(
    ("path", "tokens"),
    [("splice-greedy", 80), ("splice-sampled", 80), ("select", 160), ("select-words", 320)],
)
def test_the_text_shows_its_key_and_no_other(
    stage: Stage, builtin: BuiltinModel, http: httpx2.Client, path: str, tokens: int
) -> None:
    texts = []
    for prompt in PROMPTS:
        body = {
            "model": "builtin",
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": tokens,
            "logit_bias": {str(token): -100 for token in builtin.end_ids},
        }
        answer = http.post(f"{stage.proxies[path]}/v1/chat/completions", json=body)
        assert answer.headers["x-watermark"] == f"marked; path={path.partition('-')[0]}; key=test"
        texts.append(answer.json()["choices"][0]["message"]["content"])
    is_words = path == "select-words"
    unit = WordsUnit() if is_words else TokenizerUnit.read(Path(builtin.tokenizer_path))
    right = Detector(stage.ring.marking(unit.unit_id, now=NOW), unit).detect_pooled(texts)
    wrong = Detector(key_record(unit.unit_id, secret=b"w" * 32), unit).detect_pooled(texts)
    assert right.log10_pvalue < -6
    assert wrong.log10_pvalue > -4


CHAT: dict[str, Any] = {
    "model": "builtin",
    "messages": [{"role": "user", "content": "Hi"}],
    "max_tokens": 4,
    "seed": 5,
}
UNMARKED: list[tuple[str, str, dict[str, Any] | bytes]] = [
    ("temperature-zero", "chat/completions", CHAT | {"temperature": 0}),
    ("temperature-zero", "chat/completions", CHAT | {"temperature": 5e-7}),
    ("temperature-zero", "chat/completions", CHAT | {"top_k": 1}),
    ("too-short", "chat/completions", CHAT | {"max_tokens": 2}),
    ("unsupported-parameter", "chat/completions", CHAT | {"frequency_penalty": -1.0}),
    ("tools", "chat/completions", CHAT | {"tools": [{"type": "function"}]}),
    ("structured-output", "chat/completions", CHAT | {"response_format": {"type": "json"}}),
    ("unsupported-parameter", "chat/completions", CHAT | {"min_p": 0.1}),
    ("unsupported-parameter", "completions", {"model": "builtin", "prompt": "A", "echo": True}),
    ("batch-prompt", "completions", {"model": "builtin", "prompt": ["A", "B"], "seed": 1}),
    ("batch-prompt", "completions", {"model": "builtin", "prompt": [[5], [6]], "seed": 1}),
    ("model-not-configured", "chat/completions", CHAT | {"model": "other"}),
    ("unreadable", "chat/completions", b'{"model": "builtin", "messages": [\xe2\x82'),
    ("unreadable", "completions", b""),
    ("unreadable", "completions", b"[" * 100_000),
    ("no-capable-path", "completions", {"model": "builtin", "prompt": "A", "logprobs": 4097}),
]


def decisions(http: httpx2.Client, url: str) -> dict[str, float]:
    """The counted decisions by reason."""
    found: dict[str, float] = {}
    for line in http.get(f"{url}/watermark/metrics").text.splitlines():
        if line.startswith("watermark_decisions_total"):
            reason = line.partition('reason="')[2].partition('"')[0]
            found[reason] = found.get(reason, 0) + float(line.split()[-1])
    return found


@pytest.mark.parametrize(("reason", "endpoint", "body"), UNMARKED)
def test_what_is_not_marked_passes_as_it_is_and_is_counted(
    stage: Stage, http: httpx2.Client, reason: str, endpoint: str, body: dict[str, Any] | bytes
) -> None:
    url = stage.proxies["splice-greedy"]
    sent: dict[str, Any] = {"content": body} if isinstance(body, bytes) else {"json": body}
    before = decisions(http, url).get(reason, 0)
    passed = http.post(f"{url}/v1/{endpoint}", **sent)
    plain = http.post(f"{stage.direct}/v1/{endpoint}", **sent)
    assert passed.headers["x-watermark"] == f"unmarked; reason={reason}"
    assert decisions(http, url)[reason] == before + 1
    assert passed.status_code == plain.status_code
    if plain.status_code == 200:  # ids and times differ, seeded texts do not
        assert passed.json()["choices"] == plain.json()["choices"]
        assert passed.json()["usage"].keys() == plain.json()["usage"].keys()
    else:
        assert passed.content == plain.content


def test_text_on_other_paths_is_counted(stage: Stage, http: httpx2.Client) -> None:
    url = stage.proxies["splice-greedy"]
    before = decisions(http, url).get("other-path", 0)
    http.post(f"{url}/v1/generate", json={})
    http.get(f"{url}/v1/models")
    assert decisions(http, url)["other-path"] == before + 1


def test_no_capability_no_mark(stage: Stage, builtin: BuiltinModel) -> None:
    poor = Capabilities(continuation="none", max_n=1)
    alone = Capabilities(max_n=1)
    for able in (poor, alone):
        model = model_config(
            "builtin", builtin.tokenizer_path, capabilities=able, splice=SELECT_ONLY
        )
        with Backstage().opened() as backstage:
            url = backstage.serve(create_app(proxy_config(stage.direct, model), stage.ring))
            answer = httpx2.post(f"{url}/v1/chat/completions", json=CHAT)
        assert answer.headers["x-watermark"] == "unmarked; reason=no-capable-path"


def test_only_trusted_callers_are_told(stage: Stage, builtin: BuiltinModel) -> None:
    digest = f"sha256:{hashlib.sha256(b'sk-friend').hexdigest()}"
    model = model_config("builtin", builtin.tokenizer_path)
    config = proxy_config(stage.direct, model, callers=(digest,))
    cases = [
        ({"authorization": "Bearer sk-friend"}, True),
        ({"authorization": "bearer  sk-friend"}, True),
        ({"x-api-key": "sk-friend"}, True),
        ({"api-key": "sk-friend"}, True),
        ({"authorization": "Bearer sk-stranger"}, False),
        ({"authorization": "Basic sk-friend"}, False),
        ({}, False),
    ]
    with Backstage().opened() as backstage:
        url = backstage.serve(create_app(config, stage.ring))
        for headers, is_told in cases:
            for body in (CHAT, CHAT | {"temperature": 0}, CHAT | {"stream": True}):
                answer = httpx2.post(f"{url}/v1/chat/completions", json=body, headers=headers)
                assert answer.status_code == 200
                assert ("x-watermark" in answer.headers) == is_told
                assert "date" in answer.headers
            counters = httpx2.get(f"{url}/watermark/metrics", headers=headers)
            assert counters.status_code == (200 if is_told else 403)
