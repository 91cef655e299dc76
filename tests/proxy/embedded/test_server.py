"""Answers over HTTP: what is in them, and that streams say the same."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.proxy.embedded.driver import Exchange, ScriptedModel, Served, serve, until

if TYPE_CHECKING:
    from proxy.embedded.builtin import BuiltinModel


def test_completion_has_what_the_api_promises(builtin: BuiltinModel) -> None:
    async def scenario(served: Served) -> None:
        body = await served.complete("Return the", max_tokens=5, seed=1, return_token_ids=True)
        (choice,) = body["choices"]
        assert body["object"] == "text_completion"
        assert body["created"] == 1_800_000_000
        assert body["model"] == "builtin"
        assert choice["prompt_token_ids"] == builtin.encode("Return the", add_special_tokens=True)
        assert builtin.tokenizer.decode(choice["token_ids"]) == choice["text"]
        assert choice["finish_reason"] == "length"
        usage = body["usage"]
        assert usage["prompt_tokens"] == len(choice["prompt_token_ids"])
        assert usage["completion_tokens"] == 5
        assert usage["total_tokens"] == usage["prompt_tokens"] + 5
        ids = choice["prompt_token_ids"]
        again = await served.complete(ids, max_tokens=5, seed=1, model="builtin", user="u")
        assert again["choices"][0]["text"] == choice["text"]
        assert "token_ids" not in again["choices"][0]

    serve(builtin, scenario)


def test_one_seed_gives_one_answer_whatever_else_runs(builtin: BuiltinModel) -> None:
    async def scenario(served: Served) -> None:
        wanted = {"max_tokens": 30, "seed": 5, "n": 2, "temperature": 0.9, "top_p": 0.95}
        alone = await served.complete("Return", **wanted)
        others = [served.complete("The", max_tokens=40) for _ in range(5)]
        crowded, *_rest = await asyncio.gather(served.complete("Return", **wanted), *others)
        assert alone["choices"] == crowded["choices"]
        first, second = alone["choices"]
        assert first["text"] != second["text"]

    serve(builtin, scenario)


def test_prompts_in_every_form_make_choices_prompt_by_prompt(builtin: BuiltinModel) -> None:
    async def scenario(served: Served) -> None:
        options = {"max_tokens": 1, "temperature": 0, "n": 2, "return_token_ids": True}
        texts = await served.complete(["Return", "The"], **options)
        ids = [builtin.encode(text, add_special_tokens=True) for text in ("Return", "The")]
        arrays = await served.complete(ids, **options)
        assert texts["choices"] == arrays["choices"]
        assert [choice["index"] for choice in texts["choices"]] == [0, 1, 2, 3]
        prompts = [choice["prompt_token_ids"] for choice in texts["choices"]]
        assert prompts == [ids[0], ids[0], ids[1], ids[1]]
        assert texts["usage"]["prompt_tokens"] == sum(map(len, ids))

    serve(builtin, scenario)


STREAMS = [
    {"seed": 3, "max_tokens": 40},
    {"seed": 4, "max_tokens": 40, "n": 3, "logprobs": 3, "return_token_ids": True},
    {"seed": 5, "max_tokens": 60, "stop": ["th", " a"], "n": 2},
    {"seed": 6, "prompt": ["Return", "If"], "max_tokens": 9, "logprobs": 0},
]


@pytest.mark.parametrize("body", STREAMS, ids=str)
def test_streamed_completions_say_the_same(builtin: BuiltinModel, body: dict[str, Any]) -> None:
    async def scenario(served: Served) -> None:
        request = {"prompt": "Return the"} | body
        whole = await served.post("/v1/completions", **request)
        usage = {"stream_options": {"include_usage": True}}
        *chunks, last = await served.stream("/v1/completions", **request, **usage)
        assert last["choices"] == []
        assert last["usage"] == whole["usage"]
        assert all(chunk["usage"] is None for chunk in chunks)
        for choice in whole["choices"]:
            mine = [
                c for chunk in chunks for c in chunk["choices"] if c["index"] == choice["index"]
            ]
            assert "".join(c["text"] for c in mine) == choice["text"]
            assert [c["finish_reason"] for c in mine[:-1]] == [None] * (len(mine) - 1)
            assert mine[-1]["finish_reason"] == choice["finish_reason"]
            for key in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
                if choice["logprobs"]:
                    joined = [entry for c in mine for entry in c["logprobs"][key]]
                    assert joined == choice["logprobs"][key]
            if "return_token_ids" in body:
                assert [i for c in mine for i in c["token_ids"]] == choice["token_ids"]
                assert mine[0]["prompt_token_ids"] == choice["prompt_token_ids"]
                assert all("prompt_token_ids" not in c for c in mine[1:])

    serve(builtin, scenario)


def test_chat_whole_and_streamed(builtin: BuiltinModel) -> None:
    async def scenario(served: Served) -> None:
        request = {
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": [{"type": "text", "text": "What is a list?"}]},
            ],
            "max_completion_tokens": 12,
            "seed": 2,
            "n": 2,
            "logprobs": True,
            "top_logprobs": 2,
            "return_token_ids": True,
        }
        whole = await served.post("/v1/chat/completions", **request)
        assert whole["object"] == "chat.completion"
        text = "Be brief.\n\nWhat is a list?\n\n"
        prompt = builtin.encode(text, add_special_tokens=True)
        assert whole["prompt_token_ids"] == prompt
        first, *chunks = await served.stream("/v1/chat/completions", **request)
        assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
        assert first["prompt_token_ids"] == prompt
        for choice in whole["choices"]:
            assert choice["message"]["role"] == "assistant"
            mine = [
                c for chunk in chunks for c in chunk["choices"] if c["index"] == choice["index"]
            ]
            content = "".join(c["delta"]["content"] for c in mine)
            assert content == choice["message"]["content"]
            reports = [e for c in mine if c["logprobs"] for e in c["logprobs"]["content"]]
            assert reports == choice["logprobs"]["content"]
            spelled = b"".join(bytes(e["bytes"] or []) for e in reports)
            assert spelled.decode() == content
            assert all(len(e["top_logprobs"]) == 2 for e in reports)
            assert mine[-1]["finish_reason"] == choice["finish_reason"]

    serve(builtin, scenario)


def test_a_continued_message_stays_open(builtin: BuiltinModel) -> None:
    async def scenario(served: Served) -> None:
        messages = [
            {"role": "user", "content": "What is a list?"},
            {"role": "assistant", "content": "A list is"},
        ]
        flags = {"continue_final_message": True, "add_generation_prompt": False}
        ids = (await served.post("/tokenize", messages=messages, **flags))["tokens"]
        assert builtin.tokenizer.decode(ids) == "What is a list?\n\nA list is"
        body = await served.post(
            "/v1/chat/completions",
            messages=messages,
            max_tokens=4,
            seed=1,
            return_token_ids=True,
            **flags,
        )
        assert body["prompt_token_ids"] == ids
        text = (await served.complete(ids, max_tokens=4, seed=1))["choices"][0]["text"]
        assert body["choices"][0]["message"]["content"] == text

    serve(builtin, scenario)


@pytest.mark.parametrize(
    ("stop", "text"),
    [
        ("lo w", "hel"),
        (["xyz", "world"], "hello "),
        (["d!", "rld"], "hello wo"),
        ("nothing", "hello world!"),
        ("!!", "hello world!"),
    ],
)
def test_stop_strings_across_tokens(stop: Any, text: str) -> None:
    async def scenario(served: Served) -> None:
        request = {"prompt": "x", "max_tokens": 40, "stop": stop, "return_token_ids": True}
        body = await served.post("/v1/completions", **request)
        choice = body["choices"][0]
        assert (choice["text"], choice["finish_reason"]) == (text, "stop")
        assert len(choice["token_ids"]) == body["usage"]["completion_tokens"]
        chunks = await served.stream("/v1/completions", **request)
        assert "".join(c["choices"][0]["text"] for c in chunks) == text

    serve(ScriptedModel.saying("hello world!"), scenario)


def test_characters_are_never_split_in_a_stream() -> None:
    said = "na\u00efve \u20ac 5 \U0001f600".encode() + b"\xe2\x82"
    expected = "na\u00efve \u20ac 5 \U0001f600\ufffd"

    async def scenario(served: Served) -> None:
        chunks = await served.stream("/v1/completions", prompt="x", max_tokens=40)
        texts = [chunk["choices"][0]["text"] for chunk in chunks]
        assert "".join(texts) == expected
        assert not any("\ufffd" in text for text in texts[:-1])
        whole = await served.complete("x", max_tokens=40)
        assert whole["choices"][0]["text"] == expected

    serve(ScriptedModel.saying(said), scenario)


def test_the_end_token_counts_and_is_not_text() -> None:
    async def scenario(served: Served) -> None:
        options = {"max_tokens": 9, "logprobs": 1, "return_token_ids": True}
        body = await served.complete("x", **options)
        choice = body["choices"][0]
        assert (choice["text"], choice["finish_reason"]) == ("ab", "stop")
        assert choice["token_ids"][-1] == 0
        assert choice["logprobs"]["tokens"] == ["a", "b", "<|endoftext|>"]
        assert body["usage"]["completion_tokens"] == 3
        on = (await served.complete("x", ignore_eos=True, **options))["choices"][0]
        assert (on["text"], on["finish_reason"]) == ("ab", "length")
        assert on["token_ids"][2:] == [0] * 7
        chat = await served.post(
            "/v1/chat/completions", messages=[{"role": "user", "content": "x"}], logprobs=True
        )
        last = chat["choices"][0]["logprobs"]["content"][-1]
        assert (last["token"], last["bytes"]) == ("<|endoftext|>", None)

    serve(ScriptedModel.saying("ab"), scenario)


def test_the_context_limit_ends_the_reply_or_refuses_the_prompt() -> None:
    async def scenario(served: Served) -> None:
        body = await served.complete([5] * 60, max_tokens=50)
        assert body["usage"]["completion_tokens"] == 4
        assert body["choices"][0]["finish_reason"] == "length"
        error = await served.refused("/v1/completions", {"prompt": [5] * 64})
        assert error["param"] == "prompt"
        assert "64" in error["message"]
        chat = await served.post(
            "/v1/chat/completions", messages=[{"role": "user", "content": "x" * 10}]
        )
        assert chat["usage"]["total_tokens"] == 64

    serve(ScriptedModel.saying("z" * 100), scenario)


def test_every_logprob_of_the_vocabulary(builtin: BuiltinModel) -> None:
    async def scenario(served: Served) -> None:
        options = {"max_tokens": 3, "return_tokens_as_token_ids": True, "temperature": 0.7}
        began = time.perf_counter()
        body = await served.complete("Return", logprobs=4096, seed=1, **options)
        assert time.perf_counter() - began < 2
        reports = body["choices"][0]["logprobs"]
        for token, logprob, top in zip(
            reports["tokens"], reports["token_logprobs"], reports["top_logprobs"], strict=True
        ):
            assert len(top) == 4096
            assert top[token] == logprob
            assert sum(map(pow, [2.718281828459045] * 4096, top.values())) == pytest.approx(1)
        few = await served.complete("Return", logprobs=2, seed=1, **options)
        for token, top in zip(
            few["choices"][0]["logprobs"]["tokens"],
            few["choices"][0]["logprobs"]["top_logprobs"],
            strict=True,
        ):
            assert token in top
            assert len(top) in {2, 3}
            assert next(iter(top)).startswith("token_id:")

    serve(builtin, scenario)


def test_tokens_that_look_alike_keep_the_best_report() -> None:
    async def scenario(served: Served) -> None:
        body = await served.complete("x", max_tokens=1, logprobs=257)
        top = body["choices"][0]["logprobs"]["top_logprobs"][0]
        assert len(top) < 257
        assert top["\ufffd"] == pytest.approx(0, abs=1e-9)
        assert next(iter(top)) == "\ufffd"

    serve(ScriptedModel.saying(b"\xe2\x82\xac"), scenario)


def test_raw_mode_reports_the_model_itself(builtin: BuiltinModel) -> None:
    options = {"logprobs": 5, "max_tokens": 3, "seed": 1, "return_tokens_as_token_ids": True}
    seen: list[Any] = []

    async def raw(served: Served) -> None:
        for fields in ({"temperature": 0.3, "top_k": 1}, {"temperature": 0}):
            body = await served.complete("Return", **options, **fields)
            seen.append(body["choices"][0]["logprobs"])

    async def tempered(served: Served) -> None:
        body = await served.complete("Return", **options, temperature=0)
        seen.append(body["choices"][0]["logprobs"])

    serve(builtin, raw, logprobs_mode="raw")
    serve(builtin, tempered)
    assert seen[0] == seen[1] == seen[2]  # At temperature 0 the two modes agree.


def test_models_tokenize_detokenize_health(builtin: BuiltinModel) -> None:
    async def scenario(served: Served) -> None:
        entry = (await served.client.get("/v1/models")).json()["data"][0]
        assert (entry["id"], entry["max_model_len"]) == ("builtin", builtin.context_limit)
        assert (await served.client.get("/health")).status_code == 200
        text = "Return the na\u00efve list"
        bare = await served.post("/tokenize", prompt=text, add_special_tokens=False)
        assert bare["count"] == len(bare["tokens"])
        full = await served.post("/tokenize", prompt=text, return_token_strs=True)
        assert full["tokens"] == [0, *bare["tokens"]]
        assert full["token_strs"][:2] == ["<|endoftext|>", "Return"]
        back = await served.post("/detokenize", tokens=full["tokens"])
        assert back == {"prompt": text}
        assert (await served.post("/detokenize", tokens=[])) == {"prompt": ""}

    serve(builtin, scenario)


def test_a_client_that_leaves_takes_its_rows_along(builtin: BuiltinModel) -> None:
    async def scenario(served: Served) -> None:
        engine = served.app.state.engine
        for is_streamed in (True, False):
            body = {"prompt": "The", "n": 4, "max_tokens": 8000, "ignore_eos": True}
            exchange = Exchange(served.app, "/v1/completions", body | {"stream": is_streamed})
            if is_streamed:
                first = await anext(exchange.body_parts())
                assert first.startswith(b"data: ")
            await until(lambda: engine.active_rows == 4)
            exchange.leave()
            await exchange.task
            other = await served.complete("The", max_tokens=2, ignore_eos=True)
            assert other["usage"]["completion_tokens"] == 2
            await until(lambda: engine.active_rows == 0)

    serve(builtin, scenario)


def test_events_are_utf8_json_lines(builtin: BuiltinModel) -> None:
    async def scenario(served: Served) -> None:
        exchange = Exchange(
            served.app, "/v1/completions", {"prompt": "The", "max_tokens": 3, "stream": True}
        )
        content = b"".join([part async for part in exchange.body_parts()])
        for event in content.removesuffix(b"data: [DONE]\n\n").split(b"\n\n")[:-1]:
            json.loads(event.removeprefix(b"data: "))

    serve(builtin, scenario)
