"""The page of an audit: plan, result, controls, pictures, and what it does not say.

Rule 1: the page follows from plan and result alone, byte for byte. Rule 2: an exploratory run says
so in every section, which each begin a printed page.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from watermark.cli.page import escaped, page, table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from watermark.radioactivity import AuditPlan

_WIDTH: Final = 1000
_HEIGHT: Final = 240
_MOST_TICKS: Final = 10
_LEAST_TOKENS: Final = 100.0
_WARNING: Final = '<p class="warning"><strong>Warning:</strong> '
_WITHHELD: Final = "withheld: of so few pairs they would tell single scores of a secret key"
_EXPLORATORY: Final = (
    '<p class="warning"><strong>Exploratory:</strong> this plan was not in a log before the first '
    "query. Nothing shows that it was fixed beforehand.</p>\n"
)


def audit_page(plan: AuditPlan, result: dict[str, Any]) -> str:
    """Return the page.

    Args:
        plan: The plan.
        result: What `result.json` holds.
    """
    sections = [
        ("Result", _result(result)),
        ("The e-value as answers came", _shown(result["suspect"], lambda _: _path_figure(result))),
        ("The statistic among decoy keys", _shown(result["suspect"], _decoy_figure)),
        ("How much", _shown(result["suspect"], _dose_figure)),
        ("Controls", _controls(plan, result)),
        ("Keys", _keys(result["suspect"].get("keys", ()))),
        ("Answers", table((name, str(n)) for name, n in result["kinds"].items())),
        ("What this does not say", _list(result["limits"])),
        ("Plan", _plan(plan, result)),
        ("Every plan for this suspect", _plans(result["plans"], result["log"])),
    ]
    warning = _EXPLORATORY if result["is_exploratory"] else ""
    body = "".join(
        f"<section>\n<h2>{escaped(name)}</h2>\n{warning}{html}</section>\n"
        for name, html in sections
    )
    return page(f"Audit of {plan.suspect}", f"<p>{escaped(result['hypothesis'])}</p>\n{body}")


def _result(result: dict[str, Any]) -> str:
    one = result["suspect"]
    held = "not rejected" if one["n_scored"] else "not tested"
    verdict = "rejected" if result["is_rejected"] else held
    rows = [
        ("Null hypothesis", f"{verdict} at {result['alpha']:g}, anytime-valid"),
        *_numbers(one, is_complete=result["is_complete"]),
        ("Answers, units, scores", f"{one['n_answers']}, {one['n_units']}, {one['n_scored']}"),
        ("Validity", result["validity"]),
        ("Spent", f"{result['spent']:.2f}"),
    ]
    warned = "".join(f"{_WARNING}{escaped(one)}</p>\n" for one in result["warnings"])
    return f"{warned}<p><strong>{escaped(result['claim'])}</strong></p>\n{table(rows)}"


def _numbers(one: dict[str, Any], *, is_complete: bool) -> list[tuple[str, str]]:
    if one["is_withheld"]:
        return [("Figures", _WITHHELD)]
    decoys = one["decoys"]
    complete = "" if is_complete else " (does not count: not every prompt was answered)"
    agree = "contradict" if decoys["contradict_closed_form"] else "agree with"
    return [
        (
            "log10 e-value, largest and last",
            (
                f"{one['log10_evalue_peak']:z.2f} after {one['peak_after']} answers, "
                f"{one['log10_evalue']:z.2f}"
            ),
        ),
        ("log10 p, fixed n", f"{one['log10_pvalue_fixed_n']:z.2f}{complete}"),
        (
            "log10 p by decoy keys",
            (
                f"{decoys['log10_pvalue']:z.2f}, {decoys['n_reached']} of {decoys['n']} reached "
                f"the statistic{complete}"
            ),
        ),
        (
            "Smallest log10 p that the decoys support",
            f"{decoys['log10_pvalue_smallest']:z.2f}; they {agree} the closed form",
        ),
        ("Effect", f"{one['effect']:.4f} standard deviations a score"),
    ]


def _path_figure(result: dict[str, Any]) -> str:
    """Return log10 of the bet against what was said, with the level, and the controls beside."""
    series = [("suspect", _points(result["suspect"]))]
    series += [
        (name.replace("_", " "), _points(one))
        for name, one in result["controls"].items()
        if one is not None and not one["is_withheld"]
    ]
    level = -math.log10(result["alpha"])
    points = [point for _, path in series for point in path]
    right = max([_LEAST_TOKENS, *(x for x, _ in points)])
    top = max([level, *(y for _, y in points)]) * 1.05
    bottom = min([0.0, *(y for _, y in points)])
    lines = "".join(
        f'<polyline class="line{i}" points="{_polyline(path, right, bottom, top)}"/>'
        for i, (_, path) in enumerate(series)
    )
    y = _y(level, bottom, top)
    labels = ", ".join(f"{name} ({_STROKES[i]})" for i, (name, _) in enumerate(series))
    return _figure(
        f'{lines}<line x1="0" x2="{_WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>{_ticks(right)}',
        f"log10 of the e-value, {bottom:.1f} to {top:.1f}, against tokens that the suspect said or "
        f"read, 0 to {right:.0f}, in the units of the key. Lines: {labels}. Dashed: 1 / alpha, "
        f"10^{level:.1f}.",
    )


def _points(one: dict[str, Any]) -> list[tuple[float, float]]:
    """Return where the bet began, and its points: units so far, and log10 of its value."""
    return [(0.0, 0.0), *((at["n_units"], at["log10_evalue"]) for at in one["path"])]


def _ticks(right: float) -> str:
    """Return a few numbers of tokens along the lower edge."""
    step = 10.0 ** math.floor(math.log10(right))
    step *= next(part for part in (0.1, 0.2, 0.5, 1.0) if right / (part * step) <= _MOST_TICKS)
    return "".join(
        f'<text x="{at * step / right * _WIDTH:.1f}" y="{_HEIGHT - 4}">{at * step:,.0f}</text>'
        for at in range(1, int(right / step) + 1)
    )


_STROKES: Final = ("thick", "thin", "dotted")


def _polyline(path: Sequence[tuple[float, float]], right: float, bottom: float, top: float) -> str:
    return " ".join(f"{x / right * _WIDTH:.1f},{_y(y, bottom, top):.1f}" for x, y in path)


def _y(value: float, bottom: float, top: float) -> float:
    return _HEIGHT * (top - value) / max(top - bottom, 1e-9)


def _shown(one: dict[str, Any], figure: Callable[[dict[str, Any]], str]) -> str:
    return f"<p>{_WITHHELD}</p>\n" if one["is_withheld"] else figure(one)


def _decoy_figure(one: dict[str, Any]) -> str:
    histogram = one["decoys"]["histogram"]
    counts, edge, own = histogram["counts"], histogram["edge"], histogram["own"]
    right = max(edge, abs(own)) * 1.05
    scale, step = _WIDTH / (2 * right), 2 * edge / len(counts)
    tallest = max([1, *counts])
    bars = "".join(
        f'<rect class="hint" x="{(right - edge + i * step) * scale:.1f}" '
        f'y="{_HEIGHT * (1 - n / tallest):.1f}" width="{step * scale:.1f}" '
        f'height="{_HEIGHT * n / tallest:.1f}"/>'
        for i, n in enumerate(counts)
        if n
    )
    x = (right + own) * scale
    mark = f'<line class="own" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{_HEIGHT}"/>'
    return _figure(
        bars + mark,
        f"The statistic in standard deviations under {one['decoys']['n']} decoy keys (bars), and "
        f"under the keys of the plan (dashed line, {own:.2f}). From {-right:.1f} to {right:.1f}.",
    )


def _dose_figure(one: dict[str, Any]) -> str:
    dose = one["dose"]
    estimate: float = dose["estimate"]
    low: float | None = dose["low"]
    high: float | None = dose["high"]
    if low is None or high is None:
        return f"<p>Dose {estimate:.3g}; too few answers for an interval.</p>\n"
    left, right = min(low, -0.1), max(high, 1.0, 0.1) * 1.05

    def x(value: float) -> float:
        return (value - left) / (right - left) * _WIDTH

    half = _HEIGHT / 2
    drawn = (
        f'<rect class="marked" x="{x(low):.1f}" y="{half - 20:.1f}" '
        f'width="{x(high) - x(low):.1f}" height="40"/>'
        f'<line class="own" x1="{x(estimate):.1f}" x2="{x(estimate):.1f}" y1="60" y2="180"/>'
        f'<line x1="{x(0):.1f}" x2="{x(0):.1f}" y1="0" y2="{_HEIGHT}"/>'
        f'<line x1="{x(1):.1f}" x2="{x(1):.1f}" y1="0" y2="{_HEIGHT}"/>'
    )
    return _figure(
        drawn,
        f"Dose {estimate:.3g}, at 95% {low:.3g} to {high:.3g}: the excess of the suspect's scores "
        "as a share of that of marked text. Dashed: 0 (never saw it) and 1 (says what was "
        f"delivered). A dose above {high:.3g} is excluded at 95%.",
    )


def _controls(plan: AuditPlan, result: dict[str, Any]) -> str:
    missing = {one.replace("-", "_") for one in plan.controls}
    rows = [("Decoy keys", "see above")]
    for name, one in result["controls"].items():
        if one is None:
            value = "promised by the plan, and MISSING" if name in missing else "not planned"
        elif one["is_withheld"]:
            value = f"{_WITHHELD} ({one['n_scored']} scores)"
        else:
            value = (
                f"log10 e at most {one['log10_evalue_peak']:z.2f}, log10 p "
                f"{one['log10_pvalue_fixed_n']:z.2f} over {one['n_scored']} scores"
            )
        rows.append((_CONTROLS[name], value))
    return table(rows) + (
        '<p class="note">A clean model and contexts that were never delivered show what the test '
        "says where there is nothing, or less, to find. A student may show a little beyond what "
        "was delivered, never a clean model.</p>\n"
    )


_CONTROLS: Final = {
    "undelivered": "Contexts never delivered",
    "clean_model": "Clean model, same prompts",
}


def _keys(keys: Sequence[dict[str, Any]]) -> str:
    return table((one["key_id"], f"{_key_words(one)}{one['n_scored']} scores") for one in keys)


def _key_words(one: dict[str, Any]) -> str:
    if "log10_pvalue" not in one:
        return "p withheld, "
    return (
        f"log10 p {one['log10_pvalue']:z.2f} alone, {one['log10_pvalue_family']:z.2f} after Holm, "
    )


def _plan(plan: AuditPlan, result: dict[str, Any]) -> str:
    budget, found = plan.budget, plan.forecast
    rows = [
        ("Plan, SHA-256", result["plan"]),
        ("Answers, SHA-256 of the last line", result["answers"]),
        ("Made", plan.created),
        ("Asked", result["asked"]),
        ("Access", plan.access.value),
        ("Training cut-off", plan.training_cutoff or "unknown"),
        ("Prompts", f"{plan.prompts.rows} from {plan.prompt_source.value}, {plan.prompts.sha256}"),
        ("Weights", f"{plan.weighting.value}, full at {plan.full_at} conversations"),
        ("Delivered contexts", str(sum(one.rows for one in plan.delivered))),
        ("Share of the scores from marked text that is supposed", f"{plan.share:g}"),
        ("Stops", f"at an e-value of {1 / plan.alpha:g}, or after {budget.requests} requests"),
        (
            "Supposed",
            (
                f"effect {found.effect:g}: power {found.power:.3f}, {found.scores_needed} scores "
                f"for 0.9, {found.scores_expected} expected"
            ),
        ),
        (
            "Expected",
            (
                f"{'at least ' * found.is_least}{found.requests} requests, price "
                f"{found.price:.2f}, {found.days:.2f} days at the rate limit"
            ),
        ),
    ]
    return table(rows)


def _plans(plans: Sequence[dict[str, Any]], log: dict[str, Any] | None) -> str:
    def words(one: dict[str, Any]) -> str:
        place = "not logged" if one["log_index"] is None else f"entry {one['log_index']} of the log"
        return f"{place}{', this one' if one['is_this'] else ''}"

    source = (
        "No log was at hand, so that nobody knows of other plans."
        if log is None
        else f"As the log {log['verifier'].partition('+')[0]} had it with {log['size']} entries. "
        f"It held {log['n_other_plans']} plans under names of other suspects, among which a plan "
        "for this one under another name would stand."
    )
    rows = table((one["plan"], words(one)) for one in plans)
    return f'{rows}<p class="note">{escaped(source)}</p>\n'


def _list(sentences: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{escaped(one)}</li>' for one in sentences)}</ul>\n"


def _figure(drawn: str, caption: str) -> str:
    return (
        f'<figure class="chart">\n<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'role="img" aria-label="{escaped(caption)}">{drawn}</svg>\n'
        f"<figcaption>{escaped(caption)}</figcaption>\n</figure>\n"
    )
