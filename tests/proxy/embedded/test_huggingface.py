"""Model folders: what is refused, and that caches and batches change no logit."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from proxy.embedded.language_model import TokenRow
from proxy.embedded.models import load_model
from proxy.errors import ModelFolderError
from tests.proxy.embedded.driver import Served, serve

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from proxy.embedded.language_model import LanguageModel

MODELS = ("tinystories-ple-3.5M", "stories260K")
REMOTE = "tinystories-ple-3.5M"


def shared_folder(name: str) -> Path:
    torch = pytest.importorskip("torch", reason="needs the extra: embedded", exc_type=ImportError)
    torch.set_num_threads(1)  # these models are too small to share a step between cores
    pytest.importorskip("transformers", reason="needs the extra: embedded", exc_type=ImportError)
    shared = os.environ.get("OUTPUT_WATERMARK_SHARED")
    if not shared:
        pytest.skip("OUTPUT_WATERMARK_SHARED is not set")
    return Path(shared) / "models" / name


@pytest.fixture(scope="module", params=MODELS)
def folder_model(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[LanguageModel]:
    folder = shared_folder(request.param)
    modules = tmp_path_factory.mktemp("modules")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(modules))
        yield load_model(str(folder), cache_dir=modules, trust_remote_code=True)


def plain_logits(model: Any, tokens: list[int]) -> NDArray[np.float64]:
    import torch  # noqa: PLC0415

    with torch.inference_mode():
        logits = model.network(input_ids=torch.tensor([tokens])).logits[0, -1]
    result: NDArray[np.float64] = logits.double().numpy()
    return result


@pytest.mark.shared
def test_logits_equal_plain_forward_passes(folder_model: LanguageModel) -> None:
    """Ragged batches, shared prefixes, twins, rows that come and go, over many steps."""
    session = folder_model.open_session()
    rng = np.random.default_rng(3)
    active: list[TokenRow] = []
    past: list[list[int]] = []
    reused = 0

    def noise(most: int) -> list[int]:
        size = int(rng.integers(1, most))
        return [int(token) for token in rng.integers(3, folder_model.vocab_size, size)]

    for _step in range(14):
        for _arrival in range(int(rng.integers(0, 4))):
            begin = past[int(rng.integers(len(past)))] if past and rng.random() < 0.6 else []
            tokens = [*begin[: int(rng.integers(len(begin) + 1))], *noise(90)][:180]
            active += [TokenRow(tokens=list(tokens)) for _twin in range(int(rng.integers(1, 3)))]
        if not active:
            continue
        for row, logits in zip(active, session.logits(active), strict=True):
            np.testing.assert_allclose(logits, plain_logits(folder_model, row.tokens), atol=1e-4)
            row.tokens += noise(2)
        for row in [row for row in active if rng.random() < 0.3]:
            reused += row.cached_tokens
            past.append(row.tokens[:-1])
            active.remove(row)
            session.release(row)
    assert reused > 50


@pytest.mark.shared
def test_more_requests_than_slots_evict_the_oldest(folder_model: LanguageModel) -> None:
    session = folder_model.open_session()
    for start in range(session.max_rows + 20):
        row = TokenRow(tokens=[3 + start, 4, 5, 6])
        session.logits([row])
        session.release(row)
    again = TokenRow(tokens=[3, 4, 5, 6])
    np.testing.assert_allclose(
        session.logits([again])[0], plain_logits(folder_model, again.tokens), atol=1e-4
    )
    assert again.cached_tokens == 0


@pytest.mark.shared
def test_a_story_over_http(folder_model: LanguageModel) -> None:
    async def scenario(served: Served) -> None:
        request = {"max_tokens": 40, "seed": 1, "return_token_ids": True, "n": 2}
        first, *others = await asyncio.gather(
            *[served.complete("Once upon a time", **request) for _ in range(4)]
        )
        for other in others:
            assert other["choices"] == first["choices"]
        decode = folder_model.tokenizer.decode
        for choice in first["choices"]:
            prompt, ids = choice["prompt_token_ids"], choice["token_ids"]
            assert prompt == folder_model.encode("Once upon a time", add_special_tokens=True)
            assert prompt[0] in folder_model.end_ids  # Both models start stories as they end.
            assert decode(prompt) + choice["text"] == decode([*prompt, *ids])
        chunks = await served.stream("/v1/completions", prompt="Once upon a time", **request)
        for choice in first["choices"]:
            mine = [c for x in chunks for c in x["choices"] if c["index"] == choice["index"]]
            assert "".join(c["text"] for c in mine) == choice["text"]
        again = await served.complete("Once upon a time", **request)
        cached = again["usage"]["prompt_tokens_details"]["cached_tokens"]
        assert cached == again["usage"]["prompt_tokens"] - 1

    serve(folder_model, scenario)


@pytest.mark.shared
def test_code_in_a_folder_needs_trust(tmp_path: Path) -> None:
    folder = shared_folder(REMOTE)
    with pytest.raises(ModelFolderError, match="--trust-remote-code"):
        load_model(str(folder), cache_dir=tmp_path)


@pytest.mark.shared
def test_a_chat_template_is_used(tmp_path: Path) -> None:
    source = shared_folder("stories260K")
    for path in source.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    options = json.loads((tmp_path / "tokenizer_config.json").read_text())
    options["chat_template"] = (
        "<s>{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}[assistant] {% endif %}"
    )
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(options))
    model = load_model(str(tmp_path), cache_dir=tmp_path)

    async def scenario(served: Served) -> None:
        hello = [{"role": "user", "content": "hi"}]
        ids = (await served.post("/tokenize", messages=hello))["tokens"]
        assert ids.count(1) == 1
        assert model.tokenizer.decode(ids) == "[user] hi\n[assistant] "
        ids = (
            await served.post(
                "/tokenize",
                messages=[*hello, {"role": "assistant", "content": "once"}],
                add_generation_prompt=False,
                continue_final_message=True,
            )
        )["tokens"]
        assert model.tokenizer.decode(ids) == "[user] hi\n[assistant] once"

    serve(model, scenario)


@pytest.mark.shared
def test_an_incomplete_folder_is_refused(tmp_path: Path) -> None:
    source = shared_folder("stories260K")
    (tmp_path / "config.json").write_bytes((source / "config.json").read_bytes())
    with pytest.raises(ModelFolderError, match=r"tokenizer\.json"):
        load_model(str(tmp_path), cache_dir=tmp_path)
    (tmp_path / "tokenizer.json").write_bytes((source / "tokenizer.json").read_bytes())
    with pytest.raises(ModelFolderError, match="cannot be loaded"):
        load_model(str(tmp_path), cache_dir=tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelFolderError, match="cannot be read"):
        load_model(str(tmp_path), cache_dir=tmp_path)


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFolderError, match=r"config\.json"):
        load_model(str(tmp_path), cache_dir=tmp_path)


def test_missing_packages_name_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_name: str) -> None:
        raise ImportError

    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setattr(importlib, "import_module", refuse)
    with pytest.raises(ModelFolderError, match=r"output-watermark\[embedded\]"):
        load_model(str(tmp_path), cache_dir=tmp_path)
