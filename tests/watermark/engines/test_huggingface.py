"""Our mark inside `generate`: batches, padding, top-k; found by the detector, the law untouched."""

from __future__ import annotations

import copy
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from tests.support.devices import on_every_device
from tests.support.drive import law_pvalue, make_record
from watermark.detection import Detector
from watermark.text import TokenizerUnit

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
huggingface = pytest.importorskip("watermark.engines.huggingface")

VOCAB = 300
SIGNIFICANCE = 1e-4


@pytest.fixture(scope="module")
def model() -> Any:
    torch.set_num_threads(1)  # the machine is shared, and the model is tiny
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=512,
        bos_token_id=1,
        eos_token_id=None,
        pad_token_id=0,
    )
    return transformers.LlamaForCausalLM(config).eval()


def answers(model: Any, mark: Any, *, n: int = 70, **asked: Any) -> list[list[int]]:
    """Return the replies to three prompts of different length, padded on the left."""
    prompts = torch.tensor([[0, 0, 5, 6], [0, 7, 8, 9], [10, 11, 12, 13]], device=model.device)
    sampled = {"do_sample": True, "top_k": 50, "temperature": 0.9}
    with torch.no_grad():
        out = model.generate(
            prompts,
            attention_mask=(prompts != 0).long(),
            max_new_tokens=n,
            watermarking_config=mark,
            **(asked or sampled),
        )
    replies: list[list[int]] = out[:, prompts.shape[1] :].tolist()
    return replies


@on_every_device
def test_a_batch_is_marked_after_the_warpers(model: Any, device: str) -> None:
    record = make_record(0, width=2)
    torch.manual_seed(1)
    model = copy.deepcopy(model).to(device)
    replies = answers(model, huggingface.CopulaWatermarkingConfig(record))
    for reply in replies:
        result = Detector(record).detect(reply)
        assert result.log10_pvalue < -12
        assert result.effect > 1.2  # full strength: top-50 of a flat law has 5 bits and more
        assert Detector(make_record(1, width=2)).detect(reply).log10_pvalue > -4
    plain = answers(model, None)
    assert min(Detector(record).detect(reply).log10_pvalue for reply in plain) > -4


def test_a_greedy_call_looks_like_a_sampled_one_and_is_altered(model: Any) -> None:
    """The limit that the README names; where transformers says more one day, this fails."""
    mark = huggingface.CopulaWatermarkingConfig(make_record(0, width=2))
    greedy = answers(model, None, n=20, do_sample=False)
    assert answers(model, None, n=20, do_sample=False) == greedy
    assert answers(model, mark, n=20, do_sample=False) != greedy


@pytest.mark.shared
def test_a_real_model_is_marked_and_its_text_detected() -> None:
    """Prompts of two lengths through the story model, found again from the text alone."""
    shared = os.environ.get("OUTPUT_WATERMARK_SHARED")
    if not shared:
        pytest.skip("needs OUTPUT_WATERMARK_SHARED")
    folder = Path(shared) / "models/stories260K"
    unit = TokenizerUnit.read(folder / "tokenizer.json")
    record = replace(make_record(0, width=2), unit=unit.unit_id)
    torch.manual_seed(2)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    prompts = [unit.encode(text).tolist() for text in ("Once upon a time", "Lily had a big red")]
    longest = max(map(len, prompts))
    rows = torch.tensor([[0] * (longest - len(ids)) + ids for ids in prompts])
    out = model.generate(
        rows,
        attention_mask=(rows != 0).long(),
        do_sample=True,
        top_k=50,
        max_new_tokens=150,
        eos_token_id=None,
        watermarking_config=huggingface.CopulaWatermarkingConfig(record),
    )
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    texts = [tokenizer.decode(row) for row in out[:, longest:].tolist()]
    for text in texts:
        assert Detector(record, unit).detect(text).log10_pvalue < -6


def test_the_configuration_is_copied_and_shown_without_the_key() -> None:
    mark = huggingface.CopulaWatermarkingConfig(make_record(0))
    assert copy.deepcopy(mark) is mark
    assert mark.to_dict() == {"key_id": "k", "scheme": "gumbel-copula"}
    assert make_record(0).secret.reveal().hex() not in repr(mark)
    mark.validate()
    assert repr(mark.construct_processor(VOCAB, "cpu")) == "<CopulaLogitsProcessor 'k'>"


def test_contexts_of_the_prompt_and_repeats_are_left_to_generate() -> None:
    processor = huggingface.CopulaLogitsProcessor(make_record(0))
    scores = torch.zeros(1, 5)
    seen = []
    ids = [3, 4]
    for token in (1, 3, 1, 2, 4):
        out = processor(torch.tensor([ids]), scores)
        seen.append(int(torch.isfinite(out).sum()) == 1)
        ids.append(token)
    # no context yet; 1 is new; 3 is in the prompt; 1 has occurred; 2 is new
    assert seen == [False, True, False, False, True]
    assert (scores == 0).all()


def test_another_call_starts_new_replies() -> None:
    processor = huggingface.CopulaLogitsProcessor(make_record(0))
    scores = torch.zeros(2, 5)
    is_marked = []
    for ids in ([[1], [1]], [[1, 2], [1, 3]], [[9, 9, 2], [9, 9, 3]], [[9, 9, 2, 2], [9, 9, 3, 2]]):
        out = processor(torch.tensor(ids), scores)
        is_marked.append((torch.isfinite(out).sum(-1) == 1).tolist())
    assert is_marked == [[False] * 2, [True] * 2, [False] * 2, [False, True]]


def test_the_law_over_keys_is_that_of_the_scores() -> None:
    masses = np.array([0.6, 0.25, 0.15])
    scores = torch.tensor(np.log(masses))[None]
    sequences = []
    for seed in range(500):
        generator = torch.Generator().manual_seed(seed)
        processor = huggingface.CopulaLogitsProcessor(make_record(seed), generator=generator)
        ids = [[7, 8]]
        reply = []
        for _ in range(3):
            probabilities = torch.softmax(processor(torch.tensor(ids), scores), -1)
            token = int(torch.multinomial(probabilities, 1, generator=generator))
            reply.append(token)
            ids = [[*ids[0], token]]
        sequences.append(tuple(reply))
    law: dict[tuple[int, ...], float] = {
        (a, b, c): float(masses[a] * masses[b] * masses[c])
        for a in range(3)
        for b in range(3)
        for c in range(3)
    }
    assert law_pvalue(sequences, law) > SIGNIFICANCE


def test_positions_of_the_account_channel_need_an_account() -> None:
    record = make_record(0, account_share_q16=65_536)
    scores = torch.zeros(1, 5)
    for account, expected in ((None, 5), ("acme", 1)):
        processor = huggingface.CopulaLogitsProcessor(record, account=account)
        processor(torch.tensor([[1]]), scores)
        out = processor(torch.tensor([[1, 2]]), scores)
        assert int(torch.isfinite(out).sum()) == expected
