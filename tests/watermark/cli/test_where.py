"""`watermark detect --highlight --html --plot`: the place of a mark, and nothing finer."""

from __future__ import annotations

import importlib.util
import json
import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest

from tests.watermark.cli.shell import marked_text
from watermark.cli import render

if TYPE_CHECKING:
    from pathlib import Path

    from tests.watermark.cli.shell import Shell

WORDS = "stone river lamp cloud paper horn table seven"
HOSTILE = "<script>alert(1)</script> \"' & \x1b[31m \u202e \x00 <img src=x onerror=y>"


@pytest.fixture
def mixed(shell: Shell, plain_text: str) -> Path:
    """Plain text, a marked passage, and what an attacker may put into a file."""
    record = shell.key("2026-11")
    filler = " ".join(f"{word}{i}" for i in range(60) for word in WORDS.split())
    # Between fences, so that both forms have the same units and the text is shown as it came.
    text = f"{filler}\n{marked_text(record)}\n{plain_text}\n```\n{HOSTILE}\n```"
    return shell.file("mixed.txt", text)


class Page(HTMLParser):
    """Collects tags, attributes and the text between."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.shown: list[str] = []
        self.marked: list[str] = []
        self._open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        self._open.append(dict(attrs).get("class") or tag)

    def handle_endtag(self, tag: str) -> None:
        del tag
        self._open.pop()

    def handle_data(self, data: str) -> None:
        if "pre" in self._open:
            self.shown.append(data)
        if self._open and self._open[-1] == "marked":
            self.marked.append(data)


def test_the_page_is_self_contained_and_holds_the_text_as_text(shell: Shell, mixed: Path) -> None:
    out = shell.folder / "report.html"
    result = shell("detect", mixed, "--keys", shell.keys, "--html", out)
    assert (result.exit_code, result.stderr) == (0, "")
    source = out.read_text("utf-8")
    page = Page(re.sub(r"<meta[^>]*>", "", source))
    assert set(page.tags) <= {
        "html", "head", "title", "style", "body", "h1", "h2", "p", "section", "table", "tr", "th",
        "td", "figure", "svg", "rect", "line", "figcaption", "pre", "mark",
    }  # fmt: skip
    assert not any(name in ("src", "href") or name.startswith("on") for name, _ in page.attributes)
    assert "default-src 'none'" in source
    assert "http://" not in source.replace("http-equiv", "")
    assert "https://" not in source
    shown = "".join(page.shown)
    assert "<script>alert(1)</script>" in shown
    assert "\x1b" not in source
    assert "\u202e" not in source
    assert "\\x1b[31m" in shown
    text = mixed.read_text().replace("\x1b", "\\x1b").replace("\u202e", "\\u202e")
    assert shown == text.replace("\x00", "\\x00")
    marked = "".join(page.marked)
    assert len(marked) > 500
    assert "lamp1 " not in marked


def test_what_is_written_follows_from_levels(shell: Shell, mixed: Path) -> None:
    """Two pages of one localization are equal whatever the exact scores were."""
    args = ("detect", mixed, "--keys", shell.keys, "--json", "--html", shell.folder / "a.html")
    (line,) = shell(*args).stdout.splitlines()
    where = json.loads(line)["localization"]
    assert set(where) == {
        "alpha", "n_tests", "n_null", "null", "log10_pvalue_ceiling", "spans", "levels",
    }  # fmt: skip
    assert re.fullmatch("[012]+", where["levels"])
    assert isinstance(where["log10_pvalue_ceiling"], int)
    page = (shell.folder / "a.html").read_text()
    heights = set(re.findall(r'height="(\d+)"/>', page))
    assert len(heights) == 3 or heights <= {"22", "44", "66"}
    again = shell(*args)
    assert json.loads(again.stdout)["localization"] == where
    assert (shell.folder / "a.html").read_text() == page


def test_the_terminal_shows_the_place(shell: Shell, mixed: Path) -> None:
    result = shell("detect", mixed, "--keys", shell.keys, "--highlight")
    assert result.exit_code == 0
    assert "mixed.txt, key 2026-11: marked units" in result.stdout
    (marked,) = re.findall(r"\[\[(.*?)\]\]", result.stdout.split("\n\n", 3)[-1], re.DOTALL)[:1]
    assert len(marked) > 500
    assert "\x1b" not in result.stdout
    assert "\\x1b[31m" in result.stdout


def test_a_terminal_gets_colors(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    monkeypatch.setattr(render, "write_data", written.append)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    pieces = [render.Piece("a\n"), render.Piece("b\x1b[0m", "black on yellow", "[[", "]]")]
    render.write_styled(pieces)
    monkeypatch.setenv("NO_COLOR", "1")
    render.write_styled(pieces)
    colored, plain = written
    assert "\x1b[30;43m" in colored
    assert "\\x1b[0m" in colored
    assert "[[" not in colored
    assert plain == "a\n[[b\\x1b[0m]]\n"


def test_the_canonical_form_is_shown_where_it_spoke(shell: Shell, plain_text: str) -> None:
    record = shell.key("2026-11")
    hidden = marked_text(record).translate(str.maketrans("aeo", "аео"))
    file = shell.file("hidden.txt", f"{plain_text}. {hidden}")
    result = shell("detect", file, "--keys", shell.keys, "--highlight")
    assert "canonical form: marked units" in result.stdout


def test_a_short_text_has_no_place(shell: Shell) -> None:
    shell.key("2026-11")
    file = shell.file("short.txt", "only a few words")
    result = shell(
        "detect", file, "--keys", shell.keys, "--highlight", "--html", shell.folder / "h"
    )
    assert result.exit_code == 0
    assert "no place: 2 distinct pairs" in result.stdout
    assert "only a few words" in (shell.folder / "h").read_text()
    (line,) = shell("detect", file, "--keys", shell.keys, "--highlight", "--json").stdout.split(
        "\n", 1
    )[:1]
    assert json.loads(line)["localization"] is None


@pytest.mark.parametrize("name", ["missing.txt", "empty.txt"])
@pytest.mark.parametrize("view", ["--plot=m.svg", "--html=m.html", "--highlight"])
def test_where_nothing_could_be_tested_nothing_is_written(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, name: str, view: str
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(shell.folder)
    shell.key("k")
    shell.file("empty.txt", "")
    before = sorted(shell.folder.iterdir())
    result = shell("detect", name, "--keys", shell.keys, view)
    assert (result.exit_code, result.stdout) == (1, "")
    assert name in result.stderr
    assert sorted(shell.folder.iterdir()) == before


def test_what_could_be_tested_is_shown_beside_what_could_not(shell: Shell, mixed: Path) -> None:
    out = shell.folder / "m.html"
    empty = shell.file("empty.txt", "")
    result = shell("detect", empty, mixed, "--keys", shell.keys, "--html", out)
    assert result.exit_code == 1
    assert "empty.txt: the file is empty" in result.stderr
    assert "mixed.txt" in out.read_text()


def test_every_look_counts(shell: Shell, mixed: Path, plain_text: str) -> None:
    shell.key("other", state="detect")
    plain = shell.file("plain.txt", plain_text)
    args = ("detect", mixed, plain, "--keys", shell.keys, "--json", "--html", shell.folder / "h")
    found = [json.loads(line) for line in shell(*args).stdout.splitlines()]
    looks = sum(row["n_forms"] for row in found)
    assert {row["localization"]["n_tests"] for row in found} == {looks}
    assert [bool(row["localization"]["spans"]) for row in found] == [True, False, False, False]


@pytest.mark.parametrize("name", ["where.png", "where.svg"])
def test_pictures_are_the_same_every_time(shell: Shell, mixed: Path, name: str) -> None:
    pytest.importorskip("matplotlib")
    out = shell.folder / name
    args = ("detect", mixed, "--keys", shell.keys, "--plot", out)
    assert shell(*args).exit_code == 0
    first = out.read_bytes()
    assert first.startswith(b"\x89PNG" if name.endswith("png") else b"<?xml")
    assert shell(*args).exit_code == 0
    assert out.read_bytes() == first


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--highlight", "--pooled"), "leave out --pooled and --ids"),
        (("--html", "x.html", "--ids"), "leave out --pooled and --ids"),
        (("--plot", "x.gif"), "draws .png, .svg"),
    ],
)
def test_what_does_not_go_together(
    shell: Shell, mixed: Path, args: tuple[str, ...], message: str
) -> None:
    result = shell("detect", mixed, "--keys", shell.keys, *args)
    assert result.exit_code == 2
    assert message in result.stderr


def test_matplotlib_is_asked_for(
    shell: Shell, mixed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    result = shell("detect", mixed, "--keys", shell.keys, "--plot", "x.png")
    assert result.exit_code == 2
    assert "output-watermark[plots]" in result.stderr


def test_a_page_that_cannot_be_written_is_said(shell: Shell, mixed: Path) -> None:
    result = shell("detect", mixed, "--keys", shell.keys, "--html", shell.folder / "no" / "r.html")
    assert result.exit_code == 1
    assert "cannot write" in result.stderr
    assert "log10 p" in result.stdout
