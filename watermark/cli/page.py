"""What the pages that the command line writes have in common: self-contained, without scripts.

Rule 1: everything that came from a file is escaped, by `escaped` and nowhere else; the page's own
policy forbids scripts, forms and anything from elsewhere.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1d2530; --soft: #5b6675; --line: #d5dae1;
  --paper: #fff; --hint: #fde9bd; --marked: #f9b384; --edge: #b3410b; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ee; --soft: #9aa5b4; --line: #3a424e;
  --paper: #14181e; --hint: #4d3f17; --marked: #7a3413; --edge: #f29d66; } }
body { font: 16px/1.55 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin: 2.5rem 0 .5rem; overflow-wrap: anywhere; }
p.note, figcaption, small { color: var(--soft); font-size: .875rem; }
table { border-collapse: collapse; font-size: .9rem; }
th, td { text-align: left; padding: .2rem 1.2rem .2rem 0; vertical-align: top;
  border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
td.number { font-variant-numeric: tabular-nums; }
pre { font: inherit; white-space: pre-wrap; overflow-wrap: anywhere; border: 1px solid var(--line);
  border-radius: 6px; padding: 1rem; }
mark { color: inherit; border-radius: 2px; }
mark.hint { background: var(--hint); text-decoration: underline dotted var(--soft); }
mark.marked { background: var(--marked); box-shadow: 0 2px 0 var(--edge); }
figure { margin: 1rem 0; } svg { width: 100%; height: 5rem; display: block; }
svg rect.none { fill: var(--line); } svg rect.hint { fill: var(--hint); stroke: var(--soft);
  stroke-width: .5; } svg rect.marked { fill: var(--marked); stroke: var(--edge); }
svg line { stroke: var(--soft); stroke-width: .5; stroke-dasharray: 3 3; }
figure.chart svg { height: auto; }
svg text { fill: var(--soft); font-size: 14px; text-anchor: end; }
svg polyline { fill: none; stroke: var(--ink); }
svg .line0 { stroke-width: 3; } svg .line1 { stroke-width: 1; }
svg .line2 { stroke-dasharray: 2 4; }
svg line.own { stroke: var(--edge); stroke-width: 2; }
p.warning { border: 2px solid var(--edge); border-radius: 6px; padding: .5rem 1rem; }
@media print { section { break-before: page; } body { max-width: none; margin: 0; } }
"""

_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"


def page(title: str, body: str) -> str:
    """Return a whole page.

    Args:
        title: Of the page, in plain text.
        body: HTML.
    """
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escaped(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{escaped(title)}</h1>\n{body}</body>\n</html>\n"
    )


def table(rows: Iterable[tuple[str, str]]) -> str:
    """Return a table of names and values."""
    lines = (
        f'<tr><th scope="row">{escaped(name)}</th><td class="number">{escaped(value)}</td></tr>\n'
        for name, value in rows
    )
    return f"<table>\n{''.join(lines)}</table>\n"


def escaped(text: str) -> str:
    """Return text for HTML; what a page cannot hold or would act on is spelt out."""
    shown = "".join(one if one.isprintable() or one in "\n\t" else ascii(one)[1:-1] for one in text)
    return escape(shown)
