"""A model that reasons, through the proxy: where its reasoning goes, and what of it is marked."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anthropic.types
import httpx2
import numpy as np
import openai.types.chat
import pytest
from openai.types.responses import ResponseOutputMessage, ResponseReasoningItem
from tokenizers import AddedToken, Tokenizer

from proxy.accounts.book import AccountHolder
from proxy.app import create_app, serve_model
from proxy.cli.servers import running
from proxy.config import Capabilities, ReasoningConfig, SelftestConfig, SpliceConfig
from proxy.errors import ConfigError
from tests.support.accounts import account, book
from tests.support.fake_upstream import PROMPT_IDS, FakeUpstream, Turn
from tests.support.servers import byte_tokenizer, key_record, model_config, proxy_config
from watermark.detection import Detector
from watermark.keys import KeyRing
from watermark.text import TokenizerUnit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from watermark.keys import KeyRecord

CHAT_URL = "/v1/chat/completions"
CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "?"}]}
BODIES = {
    CHAT_URL: CHAT,
    "/v1/completions": {"model": "m", "prompt": "?", "max_tokens": 500},
    "/v1/responses": {"model": "m", "input": "?"},
    "/v1/messages": CHAT | {"max_tokens": 500},
}
START, STOP = 257, 258
LETTERS = np.arange(66, 92)
THINKING, ANSWER = 100, 110  # letters
ABLE = Capabilities(max_n=16, logprobs=27, logprobs_mode="processed", logit_bias=True)


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = byte_tokenizer(tmp_path_factory.mktemp("reasoning"))
    read = Tokenizer.from_file(str(path))
    read.add_tokens([AddedToken("<think>"), AddedToken("</think>")])
    read.save(str(path))
    return path


class Thinker:
    """Reasons in letters, then answers in letters, as many as it says."""

    def __init__(self, *, is_open: bool) -> None:
        self.is_open = is_open
        self.rng = np.random.default_rng(0)

    def _at(self, place: int) -> list[int]:
        """What can come at a place of the reply."""
        place += self.is_open
        marks = {0: START, THINKING + 1: STOP, THINKING + ANSWER + 2: 0}
        return [marks[place]] if place in marks else LETTERS.tolist()

    def _draw(self, place: int, length: int) -> tuple[list[int], list[Any]]:
        tokens: list[int] = []
        lists: list[Any] = []
        while len(tokens) < length and tokens[-1:] != [0]:
            able = self._at(place + len(tokens))
            tokens.append(int(self.rng.choice(able)))
            lists.append({f"token_id:{token}": -math.log(len(able)) for token in able})
        return tokens, lists

    async def behave(self, turn: Turn) -> None:
        if turn.request.target == b"/v1/models":
            await turn.answer({"data": [{"id": "m", "max_model_len": 4096}]})
            return
        if turn.request.target == b"/tokenize":
            await turn.answer({"tokens": [*PROMPT_IDS, *([START] if self.is_open else [])]})
            return
        asked = turn.request.json()
        if "n" not in asked or "return_token_ids" not in asked:  # it passes as the client wrote it
            await turn.answer({"choices": []})
            return
        place = len(asked["prompt"]) - len(PROMPT_IDS) - self.is_open
        choices = []
        for index in range(asked["n"]):
            tokens, lists = self._draw(place, asked["max_tokens"])
            choice: dict[str, Any] = {"index": index, "token_ids": tokens}
            choice["finish_reason"] = "stop" if tokens[-1] == 0 else "length"
            if "logprobs" in asked:
                choice["logprobs"] = {"top_logprobs": lists}
            choices.append(choice)
        await turn.answer({"choices": choices})


@dataclass(frozen=True)
class On:
    client: httpx2.AsyncClient
    upstream: FakeUpstream
    unit: TokenizerUnit
    record: KeyRecord

    async def post(self, url: str = CHAT_URL, **fields: Any) -> httpx2.Response:
        headers = {"authorization": "Bearer sk-a"}
        answer = await self.client.post(url, json=BODIES[url] | fields, headers=headers)
        assert answer.status_code == 200, answer.text
        return answer

    def log_pvalue(self, text: str) -> float:
        return Detector(self.record, self.unit).detect(text).log_pvalue


@contextlib.asynccontextmanager
async def serving(
    tokenizer: Path,
    *,
    reasoning: ReasoningConfig | None = ReasoningConfig(),  # noqa: B008 - frozen
    is_open: bool = False,
    splices: bool = False,
    able: Capabilities = ABLE,
    **accounts: Any,
) -> AsyncIterator[On]:
    unit = TokenizerUnit.read(tokenizer)
    record = key_record(unit.unit_id)
    model = model_config(
        "m",
        tokenizer,
        capabilities=able,
        reasoning=reasoning,
        splice=SpliceConfig(enabled=splices, logprobs=27),
    )
    rng = np.random.default_rng(1)
    entropy = lambda: int(rng.integers(1 << 62))
    async with FakeUpstream(Thinker(is_open=is_open).behave).serving() as upstream:
        checked = SelftestConfig(share=1.0)
        state = str(tokenizer.parent)
        config = proxy_config(upstream.url, model, selftest=checked, state=state)
        async with (
            running(create_app(config, KeyRing((record,)), entropy=entropy, **accounts)) as url,
            httpx2.AsyncClient(base_url=url, timeout=60, trust_env=False) as client,
        ):
            yield On(client, upstream, unit, record)


FOUND, LOST = math.log(1e-3), math.log(0.01)


@pytest.mark.parametrize("is_open", [False, True])
@pytest.mark.parametrize("splices", [False, True])
@pytest.mark.parametrize("is_marked", [False, True])
def test_the_answer_is_marked_and_the_reasoning_where_the_config_says_so(
    tokenizer: Path, is_open: bool, splices: bool, is_marked: bool
) -> None:
    async def work() -> None:
        reasoning = ReasoningConfig(marked=is_marked)
        async with serving(tokenizer, reasoning=reasoning, is_open=is_open, splices=splices) as on:
            answer = await on.post()
            assert answer.headers["x-watermark"].startswith("marked")
            said = openai.types.chat.ChatCompletion.model_validate_json(answer.content)
            message = said.choices[0].message
            thought = answer.json()["choices"][0]["message"]["reasoning_content"]
            assert len(thought) == THINKING
            assert len(message.content or "") == ANSWER
            assert said.choices[0].finish_reason == "stop"
            details = said.usage and said.usage.completion_tokens_details
            assert details
            assert details.reasoning_tokens == THINKING + 2 - is_open
            assert on.log_pvalue(message.content or "") < FOUND
            assert (on.log_pvalue(thought) < FOUND) == is_marked
            assert is_marked or on.log_pvalue(thought) > LOST

    asyncio.run(work())


def events_of(answer: httpx2.Response) -> list[dict[str, Any]]:
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if "data: " in line]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def test_a_stream_tells_the_reasoning_first_in_the_field_that_is_asked_for(
    tokenizer: Path,
) -> None:
    async def work() -> None:
        async with serving(tokenizer, reasoning=ReasoningConfig(field="reasoning")) as on:
            events = events_of(await on.post(stream=True))
            deltas = [event["choices"][0]["delta"] for event in events]
            thought = "".join(delta.get("reasoning", "") for delta in deltas)
            text = "".join(delta.get("content", "") for delta in deltas)
            assert (len(thought), len(text)) == (THINKING, ANSWER)
            kinds = [
                name for delta in deltas for name in ("reasoning", "content") if delta.get(name)
            ]
            assert kinds == sorted(kinds, reverse=True)
            assert on.log_pvalue(text) < FOUND

    asyncio.run(work())


def test_a_response_has_an_item_of_reasoning(tokenizer: Path) -> None:
    async def work() -> None:
        async with serving(tokenizer) as on:
            said = (await on.post("/v1/responses")).json()
            assert [len(item["content"][0]["text"]) for item in said["output"]] == [
                THINKING,
                ANSWER,
            ]
            thought, text = said["output"]
            assert ResponseReasoningItem.model_validate(thought).type == "reasoning"
            assert ResponseOutputMessage.model_validate(text).type == "message"
            assert said["usage"]["output_tokens_details"]["reasoning_tokens"] == THINKING + 2
            events = events_of(await on.post("/v1/responses", stream=True))
            assert [event["sequence_number"] for event in events] == list(range(len(events)))
            kinds = list(dict.fromkeys(event["type"] for event in events))
            added = [e["item"]["type"] for e in events if e["type"].endswith("output_item.added")]
            assert added == ["reasoning", "message"]
            assert kinds.index("response.reasoning_text.done") < kinds.index(
                "response.output_text.delta"
            )
            output = events[-1]["response"]["output"]
            done = [e["item"] for e in events if e["type"] == "response.output_item.done"]
            assert output == done
            assert [len(item["content"][0]["text"]) for item in output] == [THINKING, ANSWER]
            assert {e["output_index"] for e in events if "text.delta" in e["type"]} == {0, 1}

    asyncio.run(work())


def test_a_message_has_a_block_of_thinking(tokenizer: Path) -> None:
    async def work() -> None:
        async with serving(tokenizer) as on:
            said = anthropic.types.Message.model_validate_json(
                (await on.post("/v1/messages")).content
            )
            assert [block.type for block in said.content] == ["thinking", "text"]
            events = events_of(await on.post("/v1/messages", stream=True))
            deltas = [e for e in events if e["type"] == "content_block_delta"]
            thought = "".join(e["delta"].get("thinking", "") for e in deltas)
            text = "".join(e["delta"].get("text", "") for e in deltas)
            assert (len(thought), len(text)) == (THINKING, ANSWER)
            blocks = [e["index"] for e in events if e["type"].startswith("content_block_st")]
            assert blocks == [0, 0, 1, 1]

    asyncio.run(work())


def test_a_completion_is_one_text_of_which_the_answer_is_marked(tokenizer: Path) -> None:
    async def work() -> None:
        async with serving(tokenizer) as on:
            text = (await on.post("/v1/completions")).json()["choices"][0]["text"]
            thought, answer = text.removeprefix("<think>").split("</think>")
            assert (len(thought), len(answer)) == (THINKING, ANSWER)
            assert on.log_pvalue(answer) < FOUND
            assert on.log_pvalue(thought) > LOST

    asyncio.run(work())


def said_in(url: str, body: dict[str, Any]) -> tuple[str, Any]:
    """Return the text of an answer, or of an event, and all that else tells its tokens."""
    choices = body.get("choices", [])
    said = [one.get("message") or one.get("delta") or one for one in choices]
    assert all(one.keys() <= {"role", "content", "index", "text", *TOLD} for one in said)
    text = "".join(one.get("content") or one.get("text") or "" for one in said)
    tokens = [one.get(name) for one in choices for name in ("logprobs", "token_ids")]
    tokens += [part.get("logprobs") for part in body.get("content", [])]
    if url == "/v1/responses" and "output" in body:
        (item,) = body["output"]
        (part,) = item["content"]
        return part["text"], part["logprobs"]
    if url == "/v1/messages" and "content" in body:
        (block,) = body["content"]
        return block["text"], None
    if body.get("type") in ("response.output_text.delta", "content_block_delta"):
        delta = body["delta"]
        return delta if isinstance(delta, str) else delta["text"], body.get("logprobs")
    return text, any(tokens)


TOLD = ("logprobs", "token_ids", "finish_reason", "prompt_token_ids")
LISTING: dict[str, dict[str, Any]] = {
    CHAT_URL: {"logprobs": True, "return_token_ids": True},
    "/v1/completions": {"logprobs": 1, "return_token_ids": True},
    "/v1/responses": {"include": ["message.output_text.logprobs"]},
    "/v1/messages": {},
}


@pytest.mark.parametrize("is_open", [False, True])
@pytest.mark.parametrize("is_streamed", [False, True])
@pytest.mark.parametrize("url", BODIES)
def test_an_account_without_reasoning_gets_the_answer_alone(
    tokenizer: Path, url: str, is_streamed: bool, is_open: bool
) -> None:
    async def work() -> None:
        holder = AccountHolder(book(account("a", "sk-a", reasoning=False)))
        async with serving(tokenizer, is_open=is_open, accounts=holder) as on:
            answer = await on.post(url, stream=is_streamed, **LISTING[url])
            assert answer.headers["x-watermark"].startswith("marked")
            bodies = events_of(answer) if is_streamed else [answer.json()]
            found = [said_in(url, body) for body in bodies]
            text = "".join(text for text, _ in found)
            assert len(text) == ANSWER
            assert not any(tokens for _, tokens in found)
            assert on.log_pvalue(text) < FOUND
            assert b"think" not in answer.content
            assert answer.content.count(b"reasoning_") == answer.content.count(b"reasoning_tokens")

    asyncio.run(work())


def test_a_reply_that_ends_while_it_reasons_has_no_answer(tokenizer: Path) -> None:
    async def work() -> None:
        async with serving(tokenizer) as on:
            (choice,) = (await on.post(max_tokens=30)).json()["choices"]
            assert choice["finish_reason"] == "length"
            assert choice["message"]["content"] == ""
            assert len(choice["message"]["reasoning_content"]) == 29
            said = (await on.post("/v1/responses", max_output_tokens=30)).json()
            assert [item["type"] for item in said["output"]] == ["reasoning"]

    asyncio.run(work())


@pytest.mark.parametrize(
    ("fields", "decision"),
    [
        ({"chat_template_kwargs": {"enable_thinking": True}}, "marked; path=select; key=test"),
        ({"reasoning_effort": "high"}, "unmarked; reason=reasoning"),
        (
            {"chat_template_kwargs": {"thinking": True}, "thinking_budget": 9},
            "unmarked; reason=reasoning",
        ),
    ],
)
def test_how_reasoning_is_asked_for_goes_to_the_template_or_upstream(
    tokenizer: Path, fields: dict[str, Any], decision: str
) -> None:
    async def work() -> None:
        async with serving(tokenizer) as on:
            answer = await on.client.post(CHAT_URL, json=CHAT | fields)
            assert answer.headers["x-watermark"] == decision
            if decision.startswith("marked"):
                (asked,) = on.upstream.asked(b"/tokenize")
                assert asked.json().items() >= fields.items()

    asyncio.run(work())


def test_without_the_section_asking_for_reasoning_passes_unmarked(tokenizer: Path) -> None:
    async def work() -> None:
        async with serving(tokenizer, reasoning=None) as on:
            asked = CHAT | {"chat_template_kwargs": {"enable_thinking": True}}
            answer = await on.client.post(CHAT_URL, json=asked)
            assert answer.headers["x-watermark"] == "unmarked; reason=reasoning"

    asyncio.run(work())


def test_text_that_is_continued_is_not_told_apart(tokenizer: Path) -> None:
    async def work() -> None:
        able = Capabilities(continuation="text", max_n=1)
        async with serving(tokenizer, able=able) as on:
            answer = await on.client.post("/v1/completions", json=BODIES["/v1/completions"])
            assert answer.headers["x-watermark"] == "unmarked; reason=reasoning"

    asyncio.run(work())


def test_tags_that_are_no_tokens_are_refused(tokenizer: Path) -> None:
    with pytest.raises(ConfigError, match="leave the section reasoning out"):
        serve_model(
            model_config(
                "m", tokenizer, capabilities=ABLE, reasoning=ReasoningConfig(end="</thought>")
            )
        )
