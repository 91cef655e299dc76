"""What an upstream is asked and says, drawn from a seed: written in every odd way there is."""

from __future__ import annotations

import gzip
import itertools
import json
import zlib
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

ODD_TEXT: Final = ("é", "\u2028", "\u0085", "日本", "🙂", '"', "\\", "\x00", ": ", "data: ", "\r\n")
TOOL: Final = {"type": "function", "name": "f", "function": {"name": "f", "parameters": {}}}
PATHS: Final = {
    "chat": "/v1/chat/completions",
    "completions": "/v1/completions",
    "responses": "/v1/responses",
    "messages": "/v1/messages",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One request, and the reply that the upstream gives.

    Attributes:
        kind: What it is counted as.
        method: The request's method.
        path: Its path.
        body: Its body.
        label: Its content type.
        status: The reply's status.
        headers: The reply's headers.
        chunks: The reply's body, as it is cut.
        has_length: Whether its length is told rather than its chunks.
    """

    kind: str
    method: str
    path: str
    body: bytes
    label: str
    status: int
    headers: tuple[tuple[str, str], ...]
    chunks: tuple[bytes, ...]
    has_length: bool

    @property
    def reply(self) -> bytes:
        """The reply's whole body."""
        return b"".join(self.chunks)


class Draw:
    """Draws one exchange from a generator."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def one_of(self, options: Any) -> Any:
        """Return one of some options."""
        return options[int(self._rng.integers(len(options)))]

    def chance(self, share: float) -> bool:
        """Return whether something happens that does in such a share of cases."""
        return bool(self._rng.random() < share)

    def text(self) -> str:
        """Return a text of awkward characters."""
        parts = [self.one_of((*ODD_TEXT, "word ", "{", "x")) for _ in range(self.count(12))]
        return "".join(parts)

    def count(self, most: int) -> int:
        """Return a number from nothing to the most."""
        return int(self._rng.integers(most + 1))

    def value(self, depth: int = 2) -> Any:
        """Return any JSON value."""
        plain = [
            self.text(),
            self.count(2**62) * self.count(2**40),
            float(self._rng.normal()) * 10.0 ** self.count(20),
            self.one_of((None, True, False)),
            -self.count(9),
        ]
        place = self.count(len(plain) + 1 if depth else len(plain) - 1)
        if place < len(plain):
            return plain[place]
        inner = [self.value(depth - 1) for _ in range(self.count(3))]
        return inner if place == len(plain) else {self.text(): one for one in inner}

    def odd_fields(self) -> dict[str, Any]:
        """Return fields that nobody knows."""
        return {f"odd_{place}": self.value() for place in range(self.count(2))}

    def json(self, body: dict[str, Any]) -> bytes:
        """Return an object in one of the many ways to write it."""
        items = list(body.items())
        self._rng.shuffle(items)
        separators = self.one_of(((",", ":"), (", ", ": "), (" , ", " :  ")))
        written = json.dumps(
            dict(items), ensure_ascii=self.chance(0.5), separators=separators, indent=None
        )
        return written.encode("utf-8", "surrogatepass")

    def cut(self, data: bytes) -> tuple[bytes, ...]:
        """Return bytes in a few pieces, cut anywhere."""
        if not data:
            return ()
        places = sorted({0, len(data), *(self.count(len(data)) for _ in range(self.count(5)))})
        return tuple(data[a:b] for a, b in itertools.pairwise(places))

    def packed(self, data: bytes) -> tuple[bytes, tuple[tuple[str, str], ...]]:
        """Return a body in some coding, and the header that tells it, rightly or not."""
        how = self.count(9)
        if how == 0:
            return gzip.compress(data, mtime=0), (("content-encoding", "gzip"),)
        if how == 1:
            return zlib.compress(data), (("content-encoding", "deflate"),)
        if how == 2:
            return data, (("content-encoding", self.one_of(("gzip", "br", "zstd"))),)
        return data, ()

    # -- replies that hold calls or structure -------------------------------------------------

    def structured(self) -> Exchange:
        """Return a request for tools or structured output, and its reply."""
        dialect = self.one_of(("chat", "completions", "responses", "messages"))
        is_streamed = self.chance(0.5)
        is_tool = dialect != "completions" and self.chance(0.6)
        asked = getattr(self, f"_ask_{dialect}")(is_tool=is_tool)
        asked |= {"stream": is_streamed} | ({"odd": self.value()} if self.chance(0.2) else {})
        events = getattr(self, f"_{dialect}")(is_tool=is_tool)
        data = self._stream(dialect, events) if is_streamed else self.json(events[-1])
        kind = (
            f"{dialect}, {'tools' if is_tool else 'schema'}, {'stream' if is_streamed else 'whole'}"
        )
        return self._exchange(
            kind, ("POST", PATHS[dialect]), self.json(asked), data, is_streamed=is_streamed
        )

    def _exchange(
        self, kind: str, target: tuple[str, str], body: bytes, data: bytes, *, is_streamed: bool
    ) -> Exchange:
        packed, coding = self.packed(data)
        label = "text/event-stream" if is_streamed else "application/json"
        if self.chance(0.05):
            label = self.one_of(("text/plain", "application/octet-stream", "text/event-stream"))
        return Exchange(
            kind=kind,
            method=target[0],
            path=target[1],
            body=body,
            label="application/json",
            status=200 if self.chance(0.9) else self.one_of((400, 404, 429, 500, 529)),
            headers=(
                ("content-type", label),
                ("x-request-id", f"r-{self.count(10**9)}"),
                *coding,
            ),
            chunks=self.cut(packed),
            has_length=not is_streamed and self.chance(0.5),
        )

    def _ask_chat(self, *, is_tool: bool) -> dict[str, Any]:
        what = {"tools": [TOOL]} if is_tool else {"response_format": {"type": "json_object"}}
        return {"model": "m", "messages": [{"role": "user", "content": self.text()}]} | what

    def _ask_completions(self, *, is_tool: bool) -> dict[str, Any]:  # noqa: ARG002
        return {"model": "m", "prompt": self.text(), "guided_json": {"type": "object"}}

    def _ask_responses(self, *, is_tool: bool) -> dict[str, Any]:
        form = {"type": "json_schema", "name": "n", "schema": {}}
        what = {"tools": [TOOL]} if is_tool else {"text": {"format": form}}
        return {"model": "m", "input": self.text()} | what

    def _ask_messages(self, *, is_tool: bool) -> dict[str, Any]:
        form = {"format": {"type": "json_schema", "schema": {}}}
        what = {"tools": [TOOL]} if is_tool else {"output_config": form}
        return (
            {"messages": [{"role": "user", "content": self.text()}], "max_tokens": 9}
            | {"model": "m"}
            | what
        )

    def _chat(self, *, is_tool: bool) -> list[dict[str, Any]]:
        calls = [{"index": 0, "function": {"name": "f", "arguments": json.dumps(self.value())}}]
        message: dict[str, Any] = {"tool_calls": calls} if is_tool else {"content": self.text()}
        finish = "tool_calls" if is_tool else "stop"
        parts = [{"role": "assistant"}, message, self.odd_fields(), {"refusal": self.text()}]
        events = [{"id": "c", "choices": [{"index": 0, "delta": one}]} for one in parts]
        usage = {"id": "c", "choices": [], "usage": {"prompt_tokens": self.count(9)}}
        last = {"index": 0, "message": message, "finish_reason": finish}
        return [*events, usage, {"id": "c", "choices": [last]} | self.odd_fields()]

    def _completions(self, *, is_tool: bool) -> list[dict[str, Any]]:  # noqa: ARG002
        said = [{"choices": [{"index": 0, "text": self.text()}]} for _ in range(self.count(5))]
        return [*said, {"id": "t", "choices": [{"text": json.dumps(self.value())}]}]

    def _responses(self, *, is_tool: bool) -> list[dict[str, Any]]:
        word = "function_call_arguments" if is_tool else "output_text"
        kinds = ["created", *[f"{word}.delta"] * self.count(4), "odd", "completed"]
        return [
            {"type": f"response.{kind}", "sequence_number": place, "delta": self.text()}
            | self.odd_fields()
            for place, kind in enumerate(kinds)
        ]

    def _messages(self, *, is_tool: bool) -> list[dict[str, Any]]:
        word = "input_json_delta" if is_tool else "text_delta"
        deltas = [
            {"type": "content_block_delta", "delta": {"type": word, "text": self.text()}}
            for _ in range(self.count(4))
        ]
        stop = {"type": "message_delta", "delta": {"stop_reason": "tool_use"}} | self.odd_fields()
        return [
            {"type": "message_start"},
            {"type": "ping"},
            *deltas,
            stop,
            {"type": "message_stop"},
        ]

    def _stream(self, dialect: str, events: list[dict[str, Any]]) -> bytes:
        end = self.one_of((b"\n", b"\r\n", b"\r"))
        space = self.one_of((b"", b" "))
        lines = []
        for event in events:
            name = event.get("type")
            lines += [] if name is None else [b"event:" + space + str(name).encode()]
            lines += [b"data:" + space + self.json(event), b""]
            lines += [b": comment", b""] if self.chance(0.1) else []
        if dialect in {"chat", "completions"}:
            lines += [b"data: [DONE]", b""]
        return b"".join(line + end for line in lines)

    # -- everything else ----------------------------------------------------------------------

    def other(self) -> Exchange:
        """Return a request to any other path, and its reply."""
        method = self.one_of(("POST", "PUT", "PATCH", "DELETE", "GET"))
        path = self.one_of(
            ("/v1/embeddings", "/v1/files/a%2Fb?x=1&x=2", "/generate", "/v1/audio/x")
        )
        body = b"" if method == "GET" else self._any_body()
        is_streamed = self.chance(0.2)
        data = self._stream("chat", self._chat(is_tool=False)) if is_streamed else self._any_body()
        kind = f"other paths, {'stream' if is_streamed else 'whole'}"
        return self._exchange(kind, (method, path), body, data, is_streamed=is_streamed)

    def _any_body(self) -> bytes:
        match self.count(3):
            case 0:
                return self._rng.bytes(self.count(20_000))
            case 1:
                return self.json({"input": self.value()} | self.odd_fields())
            case 2:
                return (self.text() * 50).encode("utf-16")[2:]
            case _:
                return b"--b\r\n" + self._rng.bytes(200) + b"\r\n--b--"


def exchange_of(seed: int, number: int, n_structured: int) -> Exchange:
    """Return one exchange of a run: the structured replies come first."""
    draw = Draw(np.random.default_rng([seed, number]))
    return draw.structured() if number < n_structured else draw.other()
