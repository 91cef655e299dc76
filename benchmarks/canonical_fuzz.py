"""Does the canonical form stand any text: no error, a fixed point, and in linear time?

    python -m benchmarks.canonical_fuzz [--count 1000000] [--seed 0]

Strings of 0 to 56 pieces from several alphabets: any code point, look-alikes and marks, the
signs of Markdown and HTML, fences, entities, words. Then texts made to be slow, in doubling
lengths.
"""

from __future__ import annotations

import argparse
import sys
import time
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.story import print_table
from watermark.text.canonical import canonical, canonical_digest
from watermark.text.canonical.tables import lookalikes

if TYPE_CHECKING:
    from collections.abc import Sequence

MARKUP = [
    *"*_`~#>|<&;[](){}!\\-+=:.1\"'/ \n\t",
    *("```", "~~~", "\n```\n", "````", "\n~~~\n", "\n\n", "**", "__", "~~", "---", "- ", "1. "),
    *("&lt;", "&amp;", "&#x200b;", "&#42;", "<b>", "</b>", "<p>", "<!--", "-->", "<script>"),
    *("</script>", "<div>", "<td>", "<br>", "](", "![", "http://x.y", "<http://x>", "| a |"),
    *("\n|---|\n", "> ", "    ", "word", "a", "\n\n    "),
]
MARKS = "\u0300\u0301\u0327\u0338\u0336\u20dd\u0345\u034f\u0483\u064b\u093c\u3099\ufe0f\u200d"
HIDDEN = "\u200b\u200c\u200e\u202e\u2060\ufeff\u00ad\u061c\u115f\u3164\uffa0\U000e0041\x00\x1b\x85"
MOST_PIECES = 56
SLOW = {
    "[": "[",
    "*a ": "*a ",
    "`a": "`a",
    "<!--": "a <!--",
    "<a ": "a <a ",
    "&": "&amp;",
    "> ": "> ",
    "|": "|a",
    "a\\n": "a\n",
    "fences": "```\n````\n",
    "empty": " \n",
    "letters": "а",
    "mixed words": "аa бb ",
    "marks": "a\u0336\u0301",
    "one word": "x",
}


@cache
def alphabets() -> list[list[str]]:
    """Return what strings are made of."""
    words = ["сору", "раураl", "Россия", "naïve", "ﬁne", "ΑΒΓ", "かな", "中文", "ภาษา", "שלום"]
    return [
        [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000],
        sorted(lookalikes()),
        MARKUP,
        [*MARKS, *HIDDEN, *"aeо еıﬁ"],
        [*words, "the", "dog", " ", " ", "\n", "\u00a0", "“", "’"],
    ]


def strings(count: int, seed: int) -> list[str]:
    """Return random strings."""
    rng = np.random.default_rng(seed)
    letters = alphabets()
    every = [piece for alphabet in letters for piece in alphabet]
    sizes = np.array([len(alphabet) for alphabet in letters])
    lengths = rng.integers(0, MOST_PIECES + 1, count)
    # Each string draws from up to three alphabets, each piece from one of those.
    used = rng.integers(0, len(letters), (count, 3)).repeat(lengths, axis=0)
    which = used[np.arange(len(used)), rng.integers(0, 3, len(used))]
    places = (rng.random(len(used)) * sizes[which]).astype(np.int64)
    pieces = [every[place] for place in (places + (sizes.cumsum() - sizes)[which]).tolist()]
    ends = lengths.cumsum().tolist()
    return ["".join(pieces[end - n : end]) for end, n in zip(ends, lengths.tolist(), strict=True)]


def check(texts: Sequence[str]) -> tuple[int, int]:
    """Return how many texts have no form, and how many forms change again."""
    failed = changed = 0
    for text in texts:
        try:
            form = canonical(text)
            changed += canonical(form) != form
        except Exception as err:  # noqa: BLE001 - any error is the finding
            failed += 1
            print(f"{type(err).__name__}: {err}: {text!r}", file=sys.stderr)
    return failed, changed


def growth(unit: str, length: int = 100_000) -> list[object]:
    """Return seconds for a text of a length and its double, and their ratio."""
    seconds = []
    for size in (length, 2 * length):
        text = (unit * (size // len(unit) + 1))[:size]
        began = time.perf_counter()
        canonical(text)
        seconds.append(time.perf_counter() - began)
    return [*seconds, seconds[1] / seconds[0]]


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    failed = changed = 0
    for start in range(0, args.count, 10_000):
        size = min(10_000, args.count - start)
        more_failed, more_changed = check(strings(size, args.seed + start))
        failed, changed = failed + more_failed, changed + more_changed
    head = ["strings", "without a form", "not a fixed point", "tables"]
    print_table("Fuzzing", head, [[args.count, failed, changed, canonical_digest()[:12]]])
    rows = [[name, *growth(unit)] for name, unit in SLOW.items()]
    print_table("Time", ["text", "100,000 characters, s", "200,000, s", "ratio"], rows)
    if failed or changed:
        sys.exit(1)


if __name__ == "__main__":
    main()
