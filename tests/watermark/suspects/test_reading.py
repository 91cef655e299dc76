"""A suspect's next tokens in units of a key: over HTTP, from a folder, from GGUF."""

from __future__ import annotations

import asyncio
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import numpy as np
import pytest

from tests.watermark.suspects.audits import NOW, key, plain_text, wishes
from watermark.errors import AuditDesignError, SuspectError
from watermark.radioactivity import Access, PromptSource, View
from watermark.suspects import (
    ApiSettings,
    Audit,
    AuditFolder,
    HttpReader,
    Outcome,
    Prompt,
    ReadText,
    Sampling,
    begin,
    write_plan,
)
from watermark.suspects.gguf import GgufSuspect, load_gguf
from watermark.suspects.http_reading import told_apart
from watermark.suspects.huggingface import FolderSuspect
from watermark.suspects.reading import UnitMap, cut, pieces, read_passage
from watermark.text import TokenizerUnit, WordsUnit

if TYPE_CHECKING:
    from watermark.suspects import Attempt

UNIT = WordsUnit()
READ = ReadText(id="r", text="the cat sat on the mat", path="splice", before=("Tell me",))


def test_only_units_of_the_key_count_and_little_ones_are_left_to_chance() -> None:
    units = UnitMap(UNIT)
    cat, dog = (int(UNIT.encode(word)[0]) for word in ("cat", "dog"))
    said = [(" cat", 0.5), ("cat", 0.2), (" dog", 0.1), ("two words", 0.1), ("\ufffd", 0.05),
            ("", 0.01), (" ant", 0.001)]  # fmt: skip
    assert units.choices(said) == {cat: 0.7, dog: 0.1}


def server(handler: Any, **fields: Any) -> HttpReader:
    settings = ApiSettings(url="http://s", model="m", **{"first_wait_s": 0.0} | fields)
    return HttpReader(settings, httpx2.MockTransport(handler))


WORDS = ["<s>", "Tell", " me", "\n", "the", " cat", " sat", " on", " the", " mat"]
TEXT = "Tell me\nthe cat sat on the mat"
LIKELY = {f" w{i}": -0.1 * i - 1 for i in range(20)}


def echo(body: dict[str, Any], *, has_bos: bool = True) -> dict[str, Any]:
    """Answer as vLLM does: the text's own token is added to the list of the others."""
    tokens = [*WORDS[not has_bos :], " more"]
    offsets = [sum(map(len, tokens[:i])) for i in range(len(tokens))]
    tops = [None, *(LIKELY | {token: -3.5} for token in tokens[1:])]
    assert body["echo"]
    logprobs = {"tokens": tokens, "text_offset": offsets, "top_logprobs": tops}
    usage = {"prompt_tokens": len(tokens) - 1, "completion_tokens": 1}
    return {"model": "m-1", "choices": [{"logprobs": logprobs}], "usage": usage}


def prompt_logprobs(body: dict[str, Any]) -> dict[str, Any]:
    """Answer as vLLM does to its own parameter."""
    assert body["prompt_logprobs"] == 20
    rows: list[Any] = [None]
    for number, token in enumerate(WORDS[1:]):
        own = {str(number): {"logprob": -3.5, "rank": 40, "decoded_token": token}}
        others = {
            str(100 + i): {"logprob": value, "decoded_token": text}
            for i, (text, value) in enumerate(LIKELY.items())
        }
        rows.append(own | others)
    return {"model": "m-1", "choices": [{"prompt_logprobs": rows}]}


def read_with(reader: HttpReader) -> Any:
    return reader.next_tokens(TEXT, [TEXT.index(word) for word in ("the", "cat", "mat")])


@pytest.mark.parametrize("way", ["echo", "echo-without-bos", "prompt_logprobs"])
def test_a_server_that_reads_is_asked_once_and_the_texts_own_token_is_dropped(way: str) -> None:
    bodies: list[dict[str, Any]] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        body = json.loads(request.content)
        bodies.append(body)
        if way == "prompt_logprobs":
            if "echo" in body:
                return httpx2.Response(400)
            return httpx2.Response(200, json=prompt_logprobs(body))
        return httpx2.Response(200, json=echo(body, has_bos=way == "echo"))

    reader = server(handler)
    expected = {text: math.exp(value) for text, value in list(LIKELY.items())[:19]}
    for found in (read_with(reader), read_with(reader)):
        assert [dict(one) for one in found] == [pytest.approx(expected)] * 3
    assert reader.model == "m-1"
    assert len(bodies) == 2 + (way == "prompt_logprobs")  # what is refused is not asked again
    if way == "prompt_logprobs":  # which says nothing of it: a token for every two bytes
        assert reader.billed == (2 * -(-len(TEXT) // 2), 2)
        assert reader.is_estimated
    else:
        assert reader.billed == (2 * (10 - (way != "echo")), 2)
        assert not reader.is_estimated


def test_a_token_is_kept_by_the_distribution_alone() -> None:
    """Whatever stands in the text, the same candidates are left: the rule that keeps p valid."""
    for own in (" w3", " w19", " new"):
        ((_, found),) = told_apart([(0, LIKELY | {own: LIKELY.get(own, -3.0)})], 20) or []
        assert set(found) == set(list(LIKELY)[:19])
    capped = [(0, dict(list(LIKELY.items())[:5])), (1, dict(list(LIKELY.items())[:5]) | {" x": -9})]
    assert [len(one) for _, one in told_apart(capped, 20) or []] == [4, 4]
    assert told_apart([], 20) is None


def test_an_echo_that_is_no_echo_falls_back_to_prefixes() -> None:
    def handler(request: httpx2.Request) -> httpx2.Response:
        body = json.loads(request.content)
        prompts = body["prompt"] if isinstance(body["prompt"], list) else [body["prompt"]]
        top = {"tokens": [" x"], "text_offset": [0], "top_logprobs": [{" x": -0.5}]}
        return httpx2.Response(
            200, json={"choices": [{"index": i, "logprobs": top} for i in range(len(prompts))]}
        )

    assert read_with(server(handler)) == [[(" x", math.exp(-0.5))]] * 3


def test_lists_of_five_are_taken_where_a_server_gives_no_longer_ones() -> None:
    def handler(request: httpx2.Request) -> httpx2.Response:
        body = json.loads(request.content)
        if body.get("logprobs", 20) > 5:
            return httpx2.Response(400)
        answer = echo(body)
        for one in answer["choices"][0]["logprobs"]["top_logprobs"][1:]:
            for text in list(LIKELY)[5:]:
                del one[text]
        return httpx2.Response(200, json=answer)

    assert [len(one) for one in read_with(server(handler))] == [
        4,
        4,
        4,
    ]  # the last might be there for the text


def test_texts_are_read_together_in_the_rate_and_tried_again() -> None:
    now = most = calls = 0

    async def handler(request: httpx2.Request) -> httpx2.Response:
        nonlocal now, most, calls
        calls += 1
        if calls == 3:
            return httpx2.Response(429, headers={"retry-after": "0"})
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.01)
        now -= 1
        return httpx2.Response(200, json=echo(json.loads(request.content)))

    reader = server(handler, concurrency=3)
    found = reader.next_tokens_of([(TEXT, [TEXT.index("cat")])] * 7)
    assert [len(one) for one in found if isinstance(one, list)] == [1] * 7
    assert (most, calls) == (3, 8)
    (only,) = server(lambda _: httpx2.Response(401)).next_tokens_of([(TEXT, [5])] * 3)
    assert "status 401" in str(only)


def test_prefixes_are_asked_and_the_text_at_the_place_is_never_sent() -> None:
    asked: list[str] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        prompts = json.loads(request.content)["prompt"]
        if isinstance(prompts, str):
            return httpx2.Response(400)
        asked.extend(prompts)
        top = {" cat": math.log(0.5), " dog": math.log(0.25)}
        choices = [{"index": i, "logprobs": {"top_logprobs": [top]}} for i in range(len(prompts))]
        return httpx2.Response(200, json={"choices": choices[::-1]})

    cut_text = cut(READ, UNIT)
    places = View(2).read(cut_text.passage).tolist()
    reading = read_passage(server(handler), READ, cut_text, places, UnitMap(UNIT))
    assert reading.places == (2, 3, 4, 5)
    assert asked[0] == "Tell me\nthe cat"
    assert asked[-1] == "Tell me\nthe cat sat on the"
    assert reading.probabilities[0] == (0.5, 0.25)
    choices = reading.choices(6)
    assert choices[0] is None
    assert choices[2] is not None
    with pytest.raises(AuditDesignError, match="no position 4"):
        reading.choices(4)


def echo_words(request: httpx2.Request, *, longest: int = 100) -> httpx2.Response:
    """Answer as a server of short context that has a word a token."""
    body = json.loads(request.content)
    text = body["prompt"]
    if isinstance(text, list) or len(text) > longest or "echo" not in body:
        return httpx2.Response(400)
    tokens = [one.group() for one in re.finditer(r"\s*\S+", text)]
    offsets = [sum(map(len, tokens[:i])) for i in range(len(tokens))]
    tops = [None, *[{" cat": -0.5, " dog": -1.5}] * (len(tokens) - 1)]
    logprobs = {"tokens": tokens, "text_offset": offsets, "top_logprobs": tops}
    return httpx2.Response(200, json={"model": "m", "choices": [{"logprobs": logprobs}]})


def open_folder(path: Path, n_words: list[int]) -> Audit:
    """Return an open audit of passages so long, in words."""
    rows = [
        ReadText(id=f"r{i}", text=plain_text(i, n), path="splice") for i, n in enumerate(n_words)
    ]
    asked = wishes(access=Access.ARGMAX, prompt_source=PromptSource.PASSAGES, effect=3.0)
    write_plan(path, asked, [key()], rows=rows, traffic=(), unit=UNIT, now=NOW)
    begin(AuditFolder(path), None, "http://s", is_exploratory=True)
    return Audit(AuditFolder(path), [key()], UNIT)


@pytest.mark.parametrize("long", [0, 2, 5, 11])
def test_a_passage_that_the_server_never_takes_is_left_out_and_told(
    tmp_path: Path, long: int
) -> None:
    audit = open_folder(tmp_path, [90 if i == long else 8 for i in range(12)])
    audit.read(server(echo_words, concurrency=3))
    findings = audit.findings()
    assert findings.is_complete
    assert findings.kinds == {"read": 11, "tokens-estimated": 12, "unanswerable": 1}


def test_what_was_read_before_a_failure_is_kept_in_the_plans_order(tmp_path: Path) -> None:
    audit = open_folder(tmp_path, [8] * 12)
    is_down, third = True, audit.folder.passages()[2].text

    def handler(request: httpx2.Request) -> httpx2.Response:
        if is_down and json.loads(request.content)["prompt"] == third:
            return httpx2.Response(500)
        return echo_words(request)

    with pytest.raises(SuspectError, match="status 500"):
        audit.read(server(handler, concurrency=6, tries=1))
    assert audit.findings().kinds["read"] == 2
    is_down = False
    audit.read(server(handler, concurrency=6, tries=1))
    assert audit.findings().kinds == {"read": 12, "tokens-estimated": 12}


@pytest.mark.parametrize(
    "answer",
    [
        httpx2.Response(500),
        httpx2.Response(200, content=b"{"),
        httpx2.Response(200, json={"choices": []}),
    ],
)
def test_a_server_without_distributions_is_refused(answer: httpx2.Response) -> None:
    with pytest.raises(SuspectError):
        server(lambda _: answer).next_tokens("a b", [1])


def test_a_choice_without_a_list_is_left_out_and_a_server_without_any_is_refused() -> None:
    has_list = True

    def handler(request: httpx2.Request) -> httpx2.Response:
        prompts = json.loads(request.content)["prompt"]
        if isinstance(prompts, str):
            return httpx2.Response(400)
        top = {"top_logprobs": [{" b": -0.5}]} if has_list else None
        choices = [{"index": i, "logprobs": top if i else None} for i in range(len(prompts))]
        return httpx2.Response(200, json={"choices": choices})

    assert server(handler).next_tokens("a b", [0, 1]) == [None, [(" b", math.exp(-0.5))]]
    has_list = False
    with pytest.raises(SuspectError, match="no distributions"):
        server(handler).next_tokens("a b", [0, 1])


def test_a_path_that_nobody_knows_is_refused() -> None:
    with pytest.raises(AuditDesignError, match="'magic'"):
        cut(ReadText(id="r", text="a b", path="magic"), UNIT)


def test_ends_of_chunks_become_units() -> None:
    found = cut(ReadText(id="r", text="the cat sat on", path="select", chunk_ends=(7, 9)), UNIT)
    assert found.passage.chunk_ends == (2,)  # the other one falls inside a word


class FakeLlama:
    """As llama-cpp-python has it: a byte a token, and the next letter is always likeliest."""

    def __init__(self) -> None:
        self.scores = np.zeros((64, 128), np.float32)

    def tokenize(self, data: bytes, *, add_bos: bool, special: bool) -> list[int]:
        assert not special
        return [1] * add_bos + list(data)

    def detokenize(self, tokens: list[int]) -> bytes:
        return bytes(one for one in tokens if one > 1)

    def n_ctx(self) -> int:
        return 64

    def reset(self) -> None:
        self.scores[:] = 0

    def eval(self, tokens: list[int]) -> None:
        for place, one in enumerate(tokens):
            self.scores[place, (one + 1) % 128] = 9.0

    def create_completion(self, prompt: str, **_options: Any) -> dict[str, Any]:
        if len(prompt) > 40:
            raise ValueError("too long")
        if len(prompt) > 30:
            raise RuntimeError("llama_decode returned -3")
        return {
            "choices": [{"text": "Once"}],
            "usage": {"prompt_tokens": len(prompt), "completion_tokens": 4},
        }


def test_a_gguf_file_is_read_and_asked() -> None:
    suspect = GgufSuspect(FakeLlama(), Sampling(system="Hi"))
    (first, second) = suspect.next_tokens("abc", [1, 2])
    assert first is not None
    assert second is not None
    assert (first[0][0], second[0][0]) == ("b", "c")
    kept: list[Attempt] = []
    suspect.ask([Prompt(id="p", prompt="x")], kept.append)
    assert (kept[0].text, kept[0].completion_tokens) == ("Once", 4)
    suspect.ask([Prompt(id="q", prompt="x" * 50)], kept.append)
    assert kept[1].outcome is Outcome.UNANSWERABLE
    with pytest.raises(SuspectError, match=r"\(RuntimeError\); where memory ran out"):
        suspect.ask([Prompt(id="p", prompt="x" * 30)], kept.append)
    with pytest.raises(SuspectError, match="shorter prompts"):
        GgufSuspect(FakeLlama(), Sampling()).ask([Prompt(id="p", prompt="x" * 50)], kept.append)


def test_a_long_text_is_read_in_pieces_that_overlap() -> None:
    text = "".join(chr(97 + i % 26) for i in range(200))  # of 63 that have room
    found = GgufSuspect(FakeLlama(), Sampling()).next_tokens(text, list(range(1, 200)))
    assert [one and one[0][0] for one in found] == [chr(ord(one) + 1) for one in text[:-1]]
    assert list(pieces({0, 5, 9, 12}, 13, 6)) == [(0, [0, 5]), (6, [9]), (9, [12])]


def test_a_gguf_file_with_a_chat_template_is_asked_as_a_chat() -> None:
    class Chat(FakeLlama):
        metadata = {"tokenizer.chat_template": "..."}  # noqa: RUF012 - as the package has it

        def create_chat_completion(
            self, messages: list[dict[str, str]], **_options: Any
        ) -> dict[str, Any]:
            assert messages == [
                {"role": "system", "content": "Hi"}, {"role": "user", "content": "x"}
            ]  # fmt: skip
            said = {"choices": [{"message": {"content": "In a chat"}}]}
            return said | {"usage": {"prompt_tokens": 2, "completion_tokens": 3}}

    kept: list[Attempt] = []
    GgufSuspect(Chat(), Sampling(system="Hi")).ask([Prompt(id="p", prompt="x")], kept.append)
    assert (kept[0].text, kept[0].completion_tokens) == ("In a chat", 3)


@pytest.mark.shared
def test_a_real_gguf_file_is_read_and_asked(tmp_path: Path) -> None:
    shared = os.environ.get("OUTPUT_WATERMARK_SHARED")
    if not shared:
        pytest.skip("OUTPUT_WATERMARK_SHARED is not set")
    for package in ("llama_cpp", "gguf", "safetensors"):
        pytest.importorskip(package, reason=f"{package} makes or runs the file")
    folder, file = Path(shared) / "models/stories260K", tmp_path / "story.gguf"
    converter = Path(__file__).parents[2] / "support/story_gguf.py"
    subprocess.run([sys.executable, converter, folder, file], check=True, timeout=60)
    asked = load_gguf(file, Sampling(max_tokens=12), longest=20)
    kept: list[Attempt] = []
    asked.ask([Prompt(id="p", prompt="Once upon a time")], kept.append)
    asked.ask([Prompt(id="q", prompt="Once upon a time " * 400)], kept.append)
    assert [one.outcome for one in kept] == [Outcome.ANSWER, Outcome.UNANSWERABLE]
    assert 0 < kept[0].completion_tokens <= 12
    text = "Once upon a time, there was a little girl named Lily. She loved to play outside."
    text = " ".join([text] * 30)  # longer than the model's 512 tokens
    read, unit = (
        ReadText(id="r", text=text, path="splice"),
        TokenizerUnit.read(folder / "tokenizer.json"),
    )
    cut_text = cut(read, unit)
    places = range(2, len(cut_text.starts))
    reading = read_passage(
        load_gguf(file, Sampling(), longest=len(text), is_read=True),
        read, cut_text, places, UnitMap(unit),
    )  # fmt: skip
    assert len(reading.places) > len(places) // 2
    hits = [
        int(cut_text.passage.ids[place]) == ids[int(np.argmax(p))]
        for place, ids, p in zip(reading.places, reading.tokens, reading.probabilities, strict=True)
    ]
    assert sum(hits) > len(hits) // 2  # what was said before stays in view


@pytest.mark.slow  # torch takes seconds to come up
def test_weights_that_are_none_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    with pytest.raises(SuspectError, match="cannot be loaded"):
        FolderSuspect(tmp_path, Sampling())


def test_a_file_that_is_no_gguf_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Package:
        @staticmethod
        def llama_supports_gpu_offload() -> bool:
            return False

        @staticmethod
        def Llama(**_options: object) -> None:  # noqa: N802 - the package's name
            raise ValueError("failed to load model")

    monkeypatch.setattr("watermark.suspects.gguf.load_extra", lambda *_: Package)
    with pytest.raises(SuspectError, match="cannot be loaded"):
        load_gguf(tmp_path / "x.gguf", Sampling(), longest=9)


@pytest.mark.parametrize("has_gpu", [True, False])
def test_a_gguf_file_goes_to_a_gpu_where_the_package_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, has_gpu: bool
) -> None:
    seen: dict[str, object] = {}

    class Package:
        @staticmethod
        def llama_supports_gpu_offload() -> bool:
            return has_gpu

        @staticmethod
        def Llama(**options: object) -> FakeLlama:  # noqa: N802 - the package's name
            seen.update(options)
            return FakeLlama()

    monkeypatch.setattr("watermark.suspects.gguf.load_extra", lambda *_: Package)
    suspect = load_gguf(tmp_path / "x.gguf", Sampling(), longest=9)
    assert seen["n_gpu_layers"] == (-1 if has_gpu else 0)
    assert (seen["logits_all"], seen["n_ctx"]) == (False, 9 + 256 + 400)
    load_gguf(tmp_path / "x.gguf", Sampling(), longest=10**6, is_read=True)
    assert (seen["logits_all"], seen["n_ctx"]) == (True, 2048)
    assert suspect.device == ("gpu" if has_gpu else "cpu")


@pytest.mark.shared
def test_a_folder_of_weights_is_read_and_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = os.environ.get("OUTPUT_WATERMARK_SHARED")
    if not shared:
        pytest.skip("OUTPUT_WATERMARK_SHARED is not set")
    pytest.importorskip("transformers")
    folder = Path(shared) / "models/stories260K"
    suspect = FolderSuspect(folder, Sampling(max_tokens=12))
    unit = TokenizerUnit.read(folder / "tokenizer.json")
    text = "Once upon a time, there was a little girl named Lily. She loved to play outside."
    read = ReadText(id="r", text=text, path="splice")
    cut_text = cut(read, unit)
    places = View(2).read(cut_text.passage).tolist()
    reading = read_passage(suspect, read, cut_text, places, UnitMap(unit))
    assert len(reading.places) > len(places) // 2
    by_words = cut(read, UNIT)
    words = read_passage(
        suspect, read, by_words, View(2).read(by_words.passage).tolist(), UnitMap(UNIT)
    )
    hits = sum(
        int(by_words.passage.ids[place]) == ids[int(np.argmax(p))]
        for place, ids, p in zip(words.places, words.tokens, words.probabilities, strict=True)
    )
    assert hits >= len(words.places) // 3  # it knows how stories begin
    kept: list[Attempt] = []
    suspect.ask([Prompt(id="p", prompt="Once upon a time")], kept.append)
    assert kept[0].counts
    assert kept[0].completion_tokens <= 12

    def run_out(*_: object, **__: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr("transformers.LlamaForCausalLM.generate", run_out)
    monkeypatch.setattr("transformers.LlamaForCausalLM.forward", run_out)
    with pytest.raises(SuspectError, match="memory ran out"):
        suspect.ask([Prompt(id="q", prompt="Once upon a time")], kept.append)
    with pytest.raises(SuspectError, match="memory ran out"):
        suspect.next_tokens(text, [4])


def test_a_distribution_that_is_none_is_left_out() -> None:
    class Liar:
        def next_tokens(self, _text: str, places: Any) -> list[list[tuple[str, float]] | None]:
            return [[(" cat", 0.9), (" dog", 0.9)] for _ in places]

    assert read_passage(Liar(), READ, cut(READ, UNIT), [2, 3], UnitMap(UNIT)).places == ()
