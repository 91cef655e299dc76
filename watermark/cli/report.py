"""The page that `watermark detect --html` writes: self-contained, without scripts, offline.

Rule 1: the page is made from localizations, which hold three levels a window and no score. Rule 2:
no level is told by color alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from watermark.cli.page import escaped, table
from watermark.cli.page import page as whole_page
from watermark.cli.places import legend, level_runs
from watermark.detection import Level
from watermark.text.canonical import CANONICAL_VERSION, canonical_digest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from watermark.cli.places import Located
    from watermark.detection import Localization
    from watermark.detection.localize import Stretch

_LEVEL_NAMES: Final = {
    Level.NONE: "p above 0.01",
    Level.HINT: "p at most 0.01",
    Level.MARKED: "in a marked span",
}
_LOOKS: Final = ("shaded, with a line below", "shaded lightly, dotted")
_CHART_WIDTH: Final = 1000
_CHART_HEIGHT: Final = 66
_STEP: Final = 22  # of the chart, a level


def page(located: Sequence[Located]) -> str:
    """Return the whole page.

    Args:
        located: The tests of a call, with their places.
    """
    sections = "".join(map(_section, located))
    return whole_page(
        "Where the mark is",
        f"<p>{escaped(legend(*_LOOKS))}</p>\n"
        '<p class="note">Null hypothesis of each test: the text was produced without this key. A '
        "small p speaks against it, and says nothing about who wrote the text. While a key is "
        "secret no more than three levels a window are shown: exact values for single places would "
        f"give the key's numbers away.</p>\n{sections}",
    )


def _section(one: Located) -> str:
    result = one.sought.result
    return (
        f"<section>\n<h2>{escaped(one.sought.name)} · key {escaped(result.key_id)}</h2>\n"
        f"{_facts(one)}{_place(one)}</section>\n"
    )


def _facts(one: Located) -> str:
    result = one.sought.result
    form = f"{one.sought.form.name} ({result.n_forms} looked at)"
    rows = [
        ("Whole text, log10 p family-wise", f"{result.log10_pvalue_family:z.2f}"),
        ("Units, scored", f"{result.n_tokens}, {result.n_scored}"),
        ("Form of the text", form),
        ("Canonical form", f"{CANONICAL_VERSION} {canonical_digest()}"),
        ("Unit", result.unit),
        ("Scheme, context width", f"{result.scheme}, {result.context_width}"),
    ]
    return table([*rows, *_place_facts(one.where)])


def _place_facts(where: Localization | None) -> list[tuple[str, str]]:
    if where is None:
        return []
    return [
        (
            "Best window, p family-wise at most",
            f"10^{where.log10_pvalue_ceiling} over all windows of this text",
        ),
        ("Level of the spans", f"{where.alpha:g} family-wise over {where.n_tests} tests"),
        ("Null", f"{where.n_null} {where.null}, {where.n_scored} distinct pairs each"),
        ("Marked spans", _spans(where) or "none"),
    ]


def _spans(where: Localization) -> str:
    exact = ("most likely edges, key disclosed: " + _span(span) for span in where.exact_spans)
    return "; ".join([*map(_span, where.spans), *exact])


def _span(span: Stretch) -> str:
    text = f"units {span.units[0]} to {span.units[1] - 1}"
    if span.characters is None:
        return text
    return f"{text} (characters {span.characters[0]} to {span.characters[1] - 1})"


def _place(one: Located) -> str:
    if one.where is None:
        return f"<p>No place: {escaped(one.reason)}.</p>\n<pre>{escaped(one.text)}</pre>\n"
    pieces = (
        _piece(level, one.text[first:last])
        for level, (first, last) in level_runs(one.where, len(one.text))
    )
    return f"{_chart(one.where)}<pre>{''.join(pieces)}</pre>\n"


def _piece(level: Level, text: str) -> str:
    if level is Level.NONE:
        return escaped(text)
    name = level.name.lower()
    return f'<mark class="{name}" title="{_LEVEL_NAMES[level]}">{escaped(text)}</mark>'


def _chart(where: Localization) -> str:
    """Return log p by window as a drawing: three levels, a bar a window."""
    scale = _CHART_WIDTH / max(1, where.n_tokens)
    bars = "".join(
        f'<rect class="{window.level.name.lower()}" x="{window.units[0] * scale:.2f}" '
        f'y="{_CHART_HEIGHT - (window.level + 1) * _STEP}" '
        f'width="{(window.units[1] - window.units[0]) * scale:.2f}" '
        f'height="{(window.level + 1) * _STEP}"/>'
        for window in where.windows
    )
    lines = "".join(
        f'<line x1="0" x2="{_CHART_WIDTH}" y1="{height}" y2="{height}"/>'
        for height in (_STEP, 2 * _STEP)
    )
    label = f"log p by window, {len(where.windows)} windows, {len(where.spans)} marked spans"
    return (
        f'<figure>\n<svg viewBox="0 0 {_CHART_WIDTH} {_CHART_HEIGHT}" preserveAspectRatio="none" '
        f'role="img" aria-label="{label}">{bars}{lines}</svg>\n'
        "<figcaption>log p by window of at least 16 scored units, in three levels. Low: above "
        "10^-2. Middle: at most 10^-2. High: in a marked span.</figcaption>\n</figure>\n"
    )
