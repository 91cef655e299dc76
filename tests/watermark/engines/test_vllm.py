"""The vLLM plug-ins against vLLM's own interface files, where a wheel is installed or unpacked."""

from __future__ import annotations

import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.support.drive import make_record
from tests.support.engines import EngineMissingError, VllmParams, engine_folder, load_file
from watermark.detection import Detector
from watermark.errors import KeysConfigError
from watermark.keys import KEYS_HEADER, SecretKey, format_record, write_key_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

torch = pytest.importorskip("torch")

UNIT = "tokenizer:sha256:" + "0f" * 32
VOCAB = 400
LOGITS = torch.tensor(-1.1 * np.log(np.arange(1.0, VOCAB + 1)), dtype=torch.float32)
V2 = "v1/worker/gpu/sample/logits_processor/interface.py"
V1 = "v1/sample/logits_processor/interface.py"


@pytest.fixture(scope="module")
def plugins() -> Iterator[Any]:
    """Return both plug-ins, on the engine's real interface files."""
    try:
        folder = engine_folder("vllm")
    except EngineMissingError as missing:
        pytest.skip(str(missing))
    before = dict(sys.modules)
    for path in (V2, V1):
        parts = ["vllm", *path.removesuffix(".py").split("/")]
        for depth in range(1, len(parts)):
            package: Any = types.ModuleType(".".join(parts[:depth]))
            package.__path__ = []
            sys.modules.setdefault(package.__name__, package)
        root: Any = sys.modules["vllm"]
        root.SamplingParams = VllmParams
        load_file(".".join(parts), folder / path)
    yield types.SimpleNamespace(
        v2=importlib.import_module("watermark.engines.vllm_v2").CopulaLogitsProcessor,
        v1=importlib.import_module("watermark.engines.vllm_v1").CopulaLogitsProcessor,
        interface_v2=sys.modules["vllm." + V2.removesuffix(".py").replace("/", ".")],
        interface_v1=sys.modules["vllm." + V1.removesuffix(".py").replace("/", ".")],
    )
    for name in set(sys.modules) - set(before):
        if name.split(".")[0] == "vllm" or name.startswith("watermark.engines.vllm_v"):
            del sys.modules[name]


@pytest.fixture
def config(tmp_path: Path) -> Any:
    """Return an engine configuration that names a key file."""
    secret = SecretKey("k", np.random.default_rng(0).bytes(32))
    write_key_file(tmp_path / "k.key", secret)
    record = format_record(key_id="k", unit=UNIT, secret="k.key")  # noqa: S106 - a path
    (tmp_path / "KEYS.toml").write_text(KEYS_HEADER + record)
    options = {"output_watermark": {"keys": str(tmp_path / "KEYS.toml")}}
    return types.SimpleNamespace(additional_config=options)


def _on_gpu(tensor: Any) -> Any:
    """Return a buffer of vLLM's, as far as it is read here."""
    return types.SimpleNamespace(gpu=tensor)


class Engine:
    """vLLM's V2 buffers, and a step as its runner makes it."""

    def __init__(self, plugins: Any, config: Any, slots: int = 4, length: int = 400) -> None:
        self.tokens = torch.zeros((slots, length), dtype=torch.int32)
        self.prompt = torch.zeros(slots, dtype=torch.int32)
        self.total = torch.zeros(slots, dtype=torch.int32)
        self.interface = plugins.interface_v2
        state = self.interface.LogitsProcRequestState(
            device=torch.device("cpu"),
            max_num_reqs=slots,
            vocab_size=VOCAB,
            all_token_ids=_on_gpu(self.tokens),
            prompt_len=_on_gpu(self.prompt),
            prefill_len=_on_gpu(self.prompt),
            total_len=_on_gpu(self.total),
        )
        self.plugin = plugins.v2(config, state)

    def add(self, slot: int, prompt: list[int], params: VllmParams) -> bool:
        self.tokens[slot] = -7  # what a slot held before
        self.tokens[slot, : len(prompt)] = torch.tensor(prompt, dtype=torch.int32)
        self.prompt[slot] = self.total[slot] = len(prompt)
        is_marked: bool = self.plugin.add_request(slot, params)
        self.plugin.apply_staged_writes()
        return is_marked

    def apply(self, rows: list[tuple[int, list[int]]]) -> Any:
        """Return the logits of rows, each a slot and the drafts before it in this step."""
        position = [int(self.total[slot]) - 1 + len(drafts) for slot, drafts in rows]
        last = [
            drafts[-1] if drafts else int(self.tokens[slot, int(self.total[slot]) - 1])
            for slot, drafts in rows
        ]
        slots = [slot for slot, _ in rows]
        context = self.interface.LogitsContext(
            expanded_idx_mapping=torch.tensor(slots),
            idx_mapping=torch.tensor(sorted(set(slots))),
            idx_mapping_np=np.array(sorted(set(slots))),
            expanded_local_pos=torch.tensor([len(drafts) for _, drafts in rows]),
            input_ids=torch.tensor(last, dtype=torch.int32),
            pos=torch.tensor(position),
            seq_lens_upper_bound_np=np.array(position) + 1,
        )
        logits: Any = self.plugin.apply(LOGITS.repeat(len(rows), 1), context)
        return logits

    def commit(self, slot: int, token: int) -> None:
        self.tokens[slot, int(self.total[slot])] = token
        self.total[slot] += 1


def sample(logits: Any, generator: Any) -> list[int]:
    chosen: list[int] = torch.multinomial(torch.softmax(logits, -1), 1, generator=generator)[
        :, 0
    ].tolist()
    return chosen


def is_forced(logits: Any) -> list[bool]:
    forced: list[bool] = (torch.isfinite(logits).sum(-1) == 1).tolist()
    return forced


def test_v2_marks_a_batch_and_declines_what_is_never_altered(plugins: Any, config: Any) -> None:
    engine = Engine(plugins, config)
    assert issubclass(plugins.v2, engine.interface.LogitsProcessor)
    plugins.v2.validate_params(VllmParams())
    assert engine.add(2, [5, 6, 7], VllmParams())
    assert not engine.add(0, [5, 6, 7], VllmParams(temperature=0.0))
    assert not engine.add(3, [5, 6, 7], VllmParams(structured_outputs="json"))
    generator = torch.Generator().manual_seed(0)
    for _ in range(150):
        slots = [3, 2, 0] if engine.total[2] % 2 else [0, 2, 3]  # rows change place every step
        logits = engine.apply([(slot, []) for slot in slots])
        assert not is_forced(logits)[slots.index(0)]
        assert not is_forced(logits)[slots.index(3)]
        for slot, token in zip(slots, sample(logits, generator), strict=True):
            engine.commit(slot, token)
    detector = Detector(make_record(0, width=2))
    marked, plain = (engine.tokens[slot, 3:153].tolist() for slot in (2, 0))
    assert detector.detect(marked).log10_pvalue < -20
    assert detector.detect(plain).log10_pvalue > -4


def test_v2_rows_of_drafts_have_the_contexts_of_their_drafts(plugins: Any, config: Any) -> None:
    """Speculative decoding: the winner after drafts is the winner once they are committed."""
    engine = Engine(plugins, config)
    engine.add(1, [9, 9], VllmParams())
    for token in (1, 2):
        engine.commit(1, token)
    drafts = [3, 4, 5]
    together = engine.apply([(1, drafts[:n]) for n in range(4)])
    alone = []
    for token in [*drafts, 0]:
        alone.append(engine.apply([(1, [])])[0])
        engine.commit(1, token)
    assert is_forced(together) == is_forced(torch.stack(alone)) == [True] * 4
    repeated = engine.apply([(1, [3, 4, 5, 3, 4][:n]) for n in range(6)])
    assert is_forced(repeated)[-1] is False  # 3, 4 is a context of these drafts already


def test_v2_does_not_mark_contexts_of_the_prompt_or_of_a_former_request(
    plugins: Any, config: Any
) -> None:
    engine = Engine(plugins, config)
    engine.add(0, [1, 2, 3], VllmParams())
    assert is_forced(engine.apply([(0, [])])) == [False]
    for token in (1, 2):
        engine.commit(0, token)
        assert is_forced(engine.apply([(0, [])])) == [False]  # too short, then in the prompt
    engine.add(0, [8, 8, 8], VllmParams())  # the slot is given to another request
    for token in (1, 2):
        engine.commit(0, token)
    assert is_forced(engine.apply([(0, [])])) == [True]
    engine.add(0, [8, 8, 8], VllmParams(temperature=0.0))
    for token in (1, 2):
        engine.commit(0, token)
    assert is_forced(engine.apply([(0, [])])) == [False]


def test_v2_respects_the_requests_cuts_and_the_grammars_mask(plugins: Any, config: Any) -> None:
    engine = Engine(plugins, config, slots=1)
    chosen = set()
    for token in range(3, 120):
        engine.add(0, [1], VllmParams(top_k=3, temperature=2.0))
        for one in (token, token + 1):
            engine.commit(0, one)
        chosen.add(int(engine.apply([(0, [])])[0].argmax()))
    assert chosen == {0, 1, 2}


def test_v1_follows_a_batch_that_moves(plugins: Any, config: Any) -> None:
    interface = plugins.interface_v1
    plugin = plugins.v1(config, torch.device("cpu"), False)  # noqa: FBT003 - the interface's
    assert isinstance(plugin, interface.LogitsProcessor)
    assert not plugin.is_argmax_invariant()
    update = interface.BatchUpdate
    outputs: dict[str, list[int]] = {name: [] for name in ("one", "two", "greedy", "penalized")}
    places = dict(zip(outputs, range(4), strict=True))
    params = {"greedy": VllmParams(temperature=0.0), "penalized": VllmParams(presence_penalty=0.5)}
    added = [
        (place, params.get(name, VllmParams()), [5, 6], outputs[name])
        for name, place in places.items()
    ]
    plugin.update_state(update(batch_size=4, removed=[], added=added, moved=[]))
    generator = torch.Generator().manual_seed(0)
    swap = interface.MoveDirectionality.SWAP
    for step in range(140):
        plugin.update_state(None)
        if step == 50:
            plugin.update_state(update(batch_size=4, removed=[], added=[], moved=[(0, 3, swap)]))
            places["one"], places["penalized"] = 3, 0
        logits = plugin.apply(LOGITS.repeat(4, 1))
        tokens = sample(logits, generator)
        for name, place in places.items():
            outputs[name].append(tokens[place])
    detector = Detector(make_record(0, width=2))
    for name, output in outputs.items():
        found = detector.detect(output).log10_pvalue
        assert (found < -15) if name in ("one", "two") else (found > -4), name
    one_way = interface.MoveDirectionality.UNIDIRECTIONAL
    plugin.update_state(update(batch_size=3, removed=[1], added=[], moved=[(3, 1, one_way)]))
    assert is_forced(plugin.apply(LOGITS.repeat(3, 1)))[0] is False


def test_v1_leaves_placeholders_alone(plugins: Any, config: Any) -> None:
    interface = plugins.interface_v1
    plugin = plugins.v1(config, torch.device("cpu"), False)  # noqa: FBT003
    output = [1, -1]
    added = [(0, VllmParams(), None, output)]
    plugin.update_state(interface.BatchUpdate(1, [], added, []))
    assert is_forced(plugin.apply(LOGITS.repeat(1, 1))) == [False]
    output[1] = 2
    assert is_forced(plugin.apply(LOGITS.repeat(1, 1))) == [True]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "was given no options"),
        ({"output_watermark": {}}, "malformed"),
        ({"output_watermark": {"keys": "none.toml"}}, "cannot read none.toml"),
        ({"output_watermark": {"keys": "k", "key": 5}}, "malformed"),
    ],
)
def test_wrong_options_stop_the_engine_at_its_start(
    plugins: Any, options: dict[str, Any], says: str
) -> None:
    config = types.SimpleNamespace(additional_config=options)
    with pytest.raises(KeysConfigError, match=says):
        plugins.v1(config, torch.device("cpu"), False)  # noqa: FBT003
    with pytest.raises(KeysConfigError, match=says):
        plugins.v2(config, None)
