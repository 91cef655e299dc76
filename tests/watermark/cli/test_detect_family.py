"""`watermark detect` with --exclude, --decoys and --weights-from."""

from __future__ import annotations

import json
import math
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING, Any

import pytest

from tests.watermark.cli.shell import WITNESS, marked_text, marked_token_ids
from watermark import TokenizerUnit
from watermark.cli.decoys import USUAL_WORK

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from click.testing import Result

    from tests.watermark.cli.shell import Shell


def rows(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_a_quoted_prompt_is_no_evidence(shell: Shell, plain_text: str) -> None:
    text = marked_text(shell.key("k"))
    answer = shell.file("answer.txt", f"{text} {plain_text}")
    prompt = shell.file("prompt.txt", f"{WITNESS} {text}")
    (alone,) = rows(shell("detect", answer, "--keys", shell.keys, "--json"))
    assert alone["log10_pvalue"] < -9
    assert alone["n_excluded"] == 0
    (found,) = rows(shell("detect", answer, "--keys", shell.keys, "--json", "--exclude", prompt))
    assert found["log10_pvalue"] > -3
    assert found["n_excluded"] > 150
    table = shell("detect", answer, "--keys", shell.keys, "--exclude", prompt).stdout
    assert "excluded" in table.splitlines()[0]


def test_ids_are_excluded_as_ids(shell: Shell) -> None:
    shell.key("k")
    file = shell.file("a.json", "[1, 2, 3, 4, 5, 6]")
    prompt = shell.file("p.jsonl", "[2, 3]\n[4, 5]\n")
    (found,) = rows(
        shell("detect", file, "--keys", shell.keys, "--ids", "--json", "--exclude", prompt)
    )
    assert (found["n_scored"], found["n_excluded"]) == (2, 2)


def test_what_cannot_be_excluded_stops_everything(shell: Shell) -> None:
    file = shell.file("a.txt", marked_text(shell.key("k")))
    result = shell("detect", file, "--keys", shell.keys, "--exclude", shell.folder / "none")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "no such file or directory; correct the path" in result.stderr
    result = shell("detect", file, "--keys", shell.keys, "--exclude", file, "--highlight")
    assert result.exit_code == 2
    assert "leave out --exclude" in result.stderr


def test_decoys_stand_beside_the_closed_form(shell: Shell, plain_text: str) -> None:
    marked = shell.file("a.txt", marked_text(shell.key("k")))
    plain = shell.file("b.txt", plain_text)
    command: list[str | Path] = ["detect", marked, plain, "--keys", shell.keys, "--decoys", "999"]
    first, second = rows(shell(*command, "--json"))
    assert first["decoys"] == {
        "n_decoys": 999,
        "n_reached": 0,
        "log10_pvalue": pytest.approx(-3.0),
        "log10_pvalue_family": pytest.approx(-3.0 + math.log10(2)),
        "log10_pvalue_floor": pytest.approx(-3.0),
    }
    closed, ranked = 10 ** second["log10_pvalue"], 10 ** second["decoys"]["log10_pvalue"]
    assert abs(closed - ranked) < 0.1
    table = shell(*command).stdout
    assert "log10 p by decoys" in table.splitlines()[0]
    assert "no rank can fall below 10^-3.00" in table
    assert "CONTRADICT" not in table
    assert rows(shell(*command, "--json")) == [first, second]


def test_the_default_number_follows_the_level(shell: Shell, plain_text: str) -> None:
    shell.key("k")
    file = shell.file("a.txt", plain_text)
    command: list[str | Path] = ["detect", file, "--keys", shell.keys, "--json", "--decoys"]
    (found,) = rows(shell(*command, "auto", "--alpha", "0.01"))
    assert found["decoys"]["n_decoys"] == 300
    assert "decoys" not in rows(shell(*command, "0"))[0]
    usual = rows(shell(*command[:-1]))[0]["decoys"]["n_decoys"]
    assert 99 <= usual <= USUAL_WORK // 600  # fewer than 3 / alpha, at 1e-6
    (few,) = rows(shell(*command[:-1], "--alpha", "0.01"))
    assert few["decoys"]["n_decoys"] == 300
    for bad in ("-1", "few", "1e3", "10000000000", "²"):
        result = shell(*command, bad)
        assert (result.exit_code, result.stdout) == (2, "")
        assert "neither auto nor a number" in result.stderr


def test_weights_come_from_a_server_of_the_tester(shell: Shell, tokenizer_data: bytes) -> None:
    path = shell.file("tokenizer.json", tokenizer_data)
    record = shell.key("tokens", "--tokenizer", path)
    ids = marked_token_ids(record, TokenizerUnit.read(path))
    file = shell.file("a.json", json.dumps(ids))
    command: list[str | Path] = [
        "detect",
        file,
        "--keys",
        shell.keys,
        "--ids",
        "--json",
        "--decoys",
        "499",
    ]
    with even_server() as url:
        (found,) = rows(shell(*command, "--weights-from", url))
    (plain,) = rows(shell(*command))
    assert found["law"] == "hypoexponential"
    assert found["log10_pvalue"] == pytest.approx(plain["log10_pvalue"], rel=1e-9)
    assert found["decoys"]["n_reached"] == plain["decoys"]["n_reached"] == 0
    result = shell(*command, "--weights-from", "http://127.0.0.1:1")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "cannot be reached (ConnectError)" in result.stderr
    assert "curl URL/v1/models" in result.stderr


def test_weights_need_tokens(shell: Shell, plain_text: str) -> None:
    shell.key("k")
    file = shell.file("a.txt", plain_text)
    result = shell("detect", file, "--keys", shell.keys, "--weights-from", "http://x")
    assert result.exit_code == 2
    assert "'k' is in words/v1" in result.stderr


class _Even(BaseHTTPRequestHandler):
    """A model to which two tokens are equally likely everywhere."""

    def do_GET(self) -> None:
        self._answer({"data": [{"id": "m"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        place = {"1": {"logprob": math.log(0.5)}, "2": {"logprob": math.log(0.5)}}
        places = [None, *[place] * (len(body["prompt"][0]) - 1)]
        self._answer({"choices": [{"index": 0, "prompt_logprobs": places}]})

    def _answer(self, value: object) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None: ...


@contextmanager
def even_server() -> Iterator[str]:
    """Serve it while the block runs."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Even) as httpd:
        thread = Thread(target=httpd.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()
        thread.join()


def test_people_see_the_smallest_of_many_and_programs_all(shell: Shell, plain_text: str) -> None:
    shell.key("k")
    words = plain_text.split()
    files = [shell.file(f"{i}.txt", " ".join(words[i % 90 :])) for i in range(210)]
    command: list[str | Path] = ["detect", *files, "--keys", shell.keys]
    shown = shell(*command).stdout.splitlines()
    assert len(shown) == 1 + 200 + 2
    assert "The table holds the 200 smallest p of 210; --json prints all" in shown[-1]
    found = rows(shell(*command, "--json"))
    assert len(found) == 210
    weakest = sorted(found, key=lambda row: row["log_pvalue"])[200:]
    kept = {line.split()[0] for line in shown[1:201]}
    assert not kept & {row["file"] for row in weakest}
