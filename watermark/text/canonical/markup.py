"""Markdown and HTML taken out of prose; fenced code kept apart.

Rule 1: a fence that is closed holds code; it keeps its lines, and is written with backticks. One
that is never closed is text: else three backticks at the start would hide a whole document.
Rule 2: prose is what a CommonMark parser with tables and strikethrough shows of it: blocks become
paragraphs, list bullets, rules and quotation marks of blocks go, the numbers of lists stay, links
and pictures leave their words, tags go and what a page does not show goes with them. Indentation
means nothing.
Rule 3: white space within a paragraph is one space, between paragraphs one empty line.
Rule 4: the parser never gets more than `LONGEST_PIECE` characters at once: some of its rules look
ahead as far as they can, and bounded pieces make that linear.

Source: CommonMark 0.31; the parser is markdown-it-py.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final

from markdown_it import MarkdownIt
from markdown_it.common.html_blocks import block_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from markdown_it.token import Token

LONGEST_PIECE: Final = 1 << 14
PARAGRAPH: Final = "\n\n"
_FENCE: Final = re.compile(r"[ \t]*(?P<fence>`{3,}(?=[^`]*\Z)|~{3,})[ \t]*(?P<info>.*)")
_SPACE: Final = re.compile(r"\s+")
_EMPTY_LINES: Final = re.compile(r"\n[ \t]*(?:\n[ \t]*)+")
_TAG: Final = re.compile(r"</?([A-Za-z][A-Za-z0-9-]*)[^<>]*>|<![^<>]*>|<\?[^<>]*>")
_UNSHOWN: Final = re.compile(
    r"<!--.*?(?:-->|\Z)|<(script|style|template)\b.*?(?:</\1\s*>|\Z)", re.DOTALL | re.IGNORECASE
)
# What the parser could read as more than words: without any of it, lines are paragraphs.
_MEANING: Final = re.compile(r"[*_`#~<>\[\]\\&|]|^\s*(?:[-+=:]|\d+[.)])", re.MULTILINE)
_BLOCK_TAGS: Final = frozenset(block_names)


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of text.

    Attributes:
        text: What is shown, or the lines of code.
        is_code: Whether it stood between fences.
        info: What stood behind the opening fence.
    """

    text: str
    is_code: bool = False
    info: str = ""


@cache
def _parser() -> MarkdownIt:
    # Fences are found beforehand; indentation is no code, and no definition makes text vanish.
    parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    return parser.disable(["code", "fence", "reference"])


def split_code(text: str) -> list[Part]:
    """Return prose and fenced code in their order (rule 1), in linear time."""
    lines = text.split("\n")
    closings = _closings(lines)
    parts: list[Part] = []
    prose: list[str] = []
    place = 0
    while place < len(lines):
        end = closings.get(place)
        if end is None:
            prose.append(lines[place])
            place += 1
            continue
        parts += [Part("\n".join(prose)), _code(lines[place], lines[place + 1 : end])]
        prose = []
        place = end + 1
    return [*parts, Part("\n".join(prose))]


def _closings(lines: Sequence[str]) -> dict[int, int]:
    """Return, for every line that opens a fence if none is open, the line that closes it."""
    opens: dict[int, tuple[str, int]] = {}
    closings: dict[int, int] = {}
    # From the end up, the nearest closing line for every length of fence that is shorter.
    nearest: dict[str, list[tuple[int, int]]] = {"`": [], "~": []}
    for place in range(len(lines) - 1, -1, -1):
        found = _FENCE.fullmatch(lines[place])
        if found is None:
            continue
        fence, info = found["fence"], found["info"]
        opens[place] = (fence[0], len(fence))
        stack = nearest[fence[0]]
        at = next((line for length, line in reversed(stack) if length >= len(fence)), None)
        if at is not None:
            closings[place] = at
        if not info:
            while stack and stack[-1][0] <= len(fence):
                stack.pop()
            stack.append((len(fence), place))
    return closings


def _code(opening: str, lines: Sequence[str]) -> Part:
    indent = len(opening) - len(opening.lstrip(" \t"))
    kept = (line[min(indent, len(line) - len(line.lstrip(" \t"))) :].rstrip() for line in lines)
    found = _FENCE.fullmatch(opening)
    info = _SPACE.sub(" ", found["info"]).strip() if found else ""
    return Part("\n".join(kept), is_code=True, info=info.replace("`", ""))


def shown_prose(text: str) -> str:
    """Return what a reader of prose sees (rules 2 to 4), in linear time."""
    blocks = (block for piece in _pieces(text) for block in _blocks(piece))
    return PARAGRAPH.join(filter(None, blocks))


def _pieces(text: str) -> Iterator[str]:
    """Yield the text in pieces that the parser can take, cut between paragraphs where possible."""
    waiting = ""
    for paragraph in _EMPTY_LINES.split(text):
        if len(waiting) + len(paragraph) > LONGEST_PIECE and waiting:
            yield waiting
            waiting = ""
        *long, rest = _cut(paragraph)
        yield from long
        waiting = f"{waiting}{PARAGRAPH}{rest}" if waiting else rest
    yield waiting


def _cut(paragraph: str) -> Iterator[str]:
    """Yield a paragraph in pieces of bounded length, cut at white space where there is any."""
    start = 0
    while len(paragraph) - start > LONGEST_PIECE:
        window = paragraph[start : start + LONGEST_PIECE]
        space = max(window.rfind(" "), window.rfind("\n"))
        end = start + (space if space > 0 else LONGEST_PIECE)
        yield paragraph[start:end]
        start = end
    yield paragraph[start:]


def _blocks(piece: str) -> Iterator[str]:
    """Yield the paragraphs of a piece."""
    if _MEANING.search(piece) is None:
        yield from _paragraphs(piece)
    else:
        yield from _parsed_blocks(piece)


def _parsed_blocks(piece: str) -> Iterator[str]:
    """Yield the paragraphs of a piece as the parser reads them."""
    number = ""
    row: list[str] | None = None
    for token in _parser().parse(piece):
        match token.type:
            case "list_item_open":
                number = f"{token.info}{token.markup} " if token.info else ""
            case "inline":
                text = number + _inline(token.children or [])
                number = ""
                if row is None:
                    yield from _paragraphs(text)
                else:
                    row.append(text)
            case "html_block":
                yield from _paragraphs(_html(token.content))
            case "tr_open":
                row = []
            case "tr_close":
                yield from _paragraphs(" ".join(row or ()))
                row = None
            case _:
                pass


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in _EMPTY_LINES.split(text):
        yield _SPACE.sub(" ", paragraph).strip()


def _inline(tokens: Iterable[Token]) -> str:
    """Return the words of a paragraph."""
    pieces: list[str] = []
    for token in tokens:
        match token.type:
            case "text" | "text_special" | "code_inline":
                pieces.append(token.content)
            case "softbreak" | "hardbreak":
                pieces.append(" ")
            case "image":
                pieces.append(_inline(token.children or []))
            case "html_inline":
                pieces.append(_tag(token.content))
            case _:
                pass
    return "".join(pieces)


def _tag(content: str) -> str:
    """Return what a tag leaves: nothing, a space, or a new paragraph."""
    found = _TAG.fullmatch(content)
    name = (found[1] or "").lower() if found else ""
    if name in _BLOCK_TAGS:
        return PARAGRAPH
    return " " if name == "br" else ""


def _html(content: str) -> str:
    """Return the words of a block of HTML."""
    shown = _UNSHOWN.sub("", content)
    return html.unescape(_TAG.sub(lambda found: _tag(found[0]), shown))
