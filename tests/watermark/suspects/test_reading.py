"""A suspect's next tokens in units of a key: over HTTP, from a folder, from GGUF."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import numpy as np
import pytest

from watermark.errors import AuditDesignError, SuspectError
from watermark.radioactivity import View
from watermark.suspects import HttpReader, Prompt, ReadText, Sampling
from watermark.suspects.gguf import GgufSuspect, load_gguf
from watermark.suspects.huggingface import FolderSuspect
from watermark.suspects.reading import UnitMap, cut, read_passage
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
    return HttpReader("http://s", "m", transport=httpx2.MockTransport(handler), **fields)


def test_prefixes_are_asked_and_the_text_at_the_place_is_never_sent() -> None:
    asked: list[str] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        prompts = json.loads(request.content)["prompt"]
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


def test_a_choice_without_a_list_is_left_out() -> None:
    reader = server(lambda _: httpx2.Response(200, json={"choices": [{"index": 0}]}))
    assert reader.next_tokens("a b", [1]) == [None]
    reader.close()


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
    with pytest.raises(SuspectError, match="no room"):
        suspect.ask([Prompt(id="p", prompt="x" * 50)], kept.append)


@pytest.mark.slow  # torch takes seconds to come up
def test_weights_that_are_none_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    with pytest.raises(SuspectError, match="cannot be loaded"):
        FolderSuspect(tmp_path, Sampling())


def test_a_file_that_is_no_gguf_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Package:
        @staticmethod
        def Llama(**_options: object) -> None:  # noqa: N802 - the package's name
            raise ValueError("failed to load model")

    monkeypatch.setattr("watermark.suspects.gguf.load_extra", lambda *_: Package)
    with pytest.raises(SuspectError, match="cannot be loaded"):
        load_gguf(tmp_path / "x.gguf", Sampling())


@pytest.mark.shared
def test_a_folder_of_weights_is_read_and_asked() -> None:
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


def test_a_distribution_that_is_none_is_left_out() -> None:
    class Liar:
        def next_tokens(self, _text: str, places: Any) -> list[list[tuple[str, float]] | None]:
            return [[(" cat", 0.9), (" dog", 0.9)] for _ in places]

    assert read_passage(Liar(), READ, cut(READ, UNIT), [2, 3], UnitMap(UNIT)).places == ()
