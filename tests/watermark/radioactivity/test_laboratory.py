# ruff: noqa: E402 - after what may be missing
"""The laboratory's own arithmetic: what is pooled, compared, cached and gone on with."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from benchmarks.radioactivity.audits import LOG_ALPHA, Z_ALPHA, Measured, tail_of
from benchmarks.radioactivity.figures import QUICK, Cell, Grid
from benchmarks.radioactivity.laboratory import Laboratory, replace_words
from benchmarks.radioactivity.marks import (
    GAMMA,
    Tournament,
    is_green,
    peer_scores,
    records_of,
)
from benchmarks.radioactivity.recipes import AnswersRecipe, StudentRecipe, TextRecipe, digest
from benchmarks.radioactivity.results import Results
from benchmarks.radioactivity.tables import (
    Pooled,
    pool,
    print_figure,
    ratio_of_first_looks,
    ratio_of_tokens,
)
from benchmarks.story import shared

if TYPE_CHECKING:
    from pathlib import Path

TEXT = TextRecipe(teacher="t", weights="0", mark="green-list")
UNIT = "tokenizer:sha256:" + "0" * 64
STUDENT = StudentRecipe(text=TEXT, share=1.0, base="t", weights="0")
MEASURED = Measured(
    n_answers=1,
    n_units=10,
    n_scored=8,
    effect=0.5,
    error=0.1,
    log10_p=-7.0,
    reached=6,
    reached_units=9,
    tail=1.0,
    half=90.4,
)
tiny = pytest.mark.skipif(
    "OUTPUT_WATERMARK_SHARED" not in os.environ, reason="OUTPUT_WATERMARK_SHARED is not set"
)


def cell(seed: int) -> Cell:
    recipe = AnswersRecipe(student=replace(STUDENT, seed=seed))
    return Cell(figure=2, labels={"width": 2}, seed=seed, recipe=recipe, audit=lambda *_: MEASURED)


def test_a_digest_changes_with_everything_it_was_made_of() -> None:
    digests = {
        digest(TEXT),
        digest(replace(TEXT, seed=1)),
        digest(TEXT.unmarked()),
        digest(STUDENT),
        digest(replace(STUDENT, text=replace(TEXT, weights="1"))),
        digest(AnswersRecipe(student=STUDENT)),
    }
    assert len(digests) == 6
    assert digest(TEXT) == digest(replace(TEXT))


def test_a_student_of_no_marked_text_is_one_whatever_the_mark() -> None:
    other = replace(STUDENT, text=replace(TEXT, mark="tournament"))
    assert digest(STUDENT.alike()) != digest(other.alike())
    asked = [AnswersRecipe(student=replace(one, share=0.0)).alike() for one in (STUDENT, other)]
    assert digest(asked[0]) == digest(asked[1])


def test_results_go_on_where_they_were(tmp_path: Path) -> None:
    results = Results(tmp_path, "quick")
    results.add(cell(0), MEASURED)
    results.add(cell(1), MEASURED)
    results.add(cell(1), MEASURED)
    again = Results(tmp_path, "quick")
    assert again.has(cell(0))
    assert not again.has(cell(2))
    assert [row["seed"] for row in again.read(2)] == [0, 1]
    assert [path.name for path in tmp_path.iterdir()] == ["figure-2-quick.json"]


def test_seeds_are_pooled_with_the_larger_error() -> None:
    rows = [{"id": "", "seed": s, "width": 2, **MEASURED.as_dict()} for s in range(4)]
    (line,) = pool(rows)
    assert line.labels == {"width": 2}
    assert line.error == pytest.approx(0.05)  # between equal seeds there is none: the null's
    for row, effect in zip(rows, (0.1, 0.9, 0.1, 0.9), strict=True):
        row["effect"] = effect
    (line,) = pool(rows)
    assert line.error == pytest.approx(np.std([0.1, 0.9, 0.1, 0.9], ddof=1) / 2)
    assert line.quantile > 3.0


def test_the_ratio_of_tokens_is_covered_by_its_interval() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        ours = Pooled({}, (), 0.30 + 0.03 * rng.standard_normal(), 0.03, 1.96, 1.0)
        peer = Pooled({}, (), 0.15 + 0.03 * rng.standard_normal(), 0.03, 1.96, 1.0)
        _, low, high = ratio_of_tokens(ours, peer)
        hits += low <= 0.25 <= high
    assert 0.92 <= hits / 400 <= 0.98


def test_what_tails_ask_for_goes_into_the_ratio() -> None:
    ours, peer = Pooled({}, (), 0.3, 0.03, 1.96, 1.5), Pooled({}, (), 0.3, 0.03, 1.96, 1.2)
    plain = ratio_of_tokens(replace(ours, tail=1.0), replace(peer, tail=1.0))
    assert ratio_of_tokens(ours, peer) == pytest.approx([1.25 * one for one in plain])
    asked = tail_of(0.1, lambda n: -n * 0.1**2 / 2)  # e^-(effect^2 n / 2)
    assert asked == pytest.approx(-2 * LOG_ALPHA / Z_ALPHA**2, rel=1e-3)
    assert tail_of(0.001, lambda _: 0.0) == 1.0


def test_first_looks_are_compared_where_every_seed_had_one() -> None:
    def line(*reached: int | None) -> Pooled:
        return Pooled({}, tuple({"reached": one} for one in reached), 0.3, 0.03, 1.96, 1.0)

    found = ratio_of_first_looks(line(100, 110, 90), line(200, 180, 220))
    assert found is not None
    assert found[0] == pytest.approx(0.5, abs=0.02)
    assert found[1] < 0.5 < found[2] < 0.7
    assert ratio_of_first_looks(line(100, None), line(200, 180)) is None
    assert ratio_of_first_looks(line(100), line(200)) is None


def test_nothing_is_claimed_of_an_effect_that_was_not_seen() -> None:
    nothing = Pooled({}, (), 0.01, 0.05, 1.96, 1.0)
    ratio, low, high = ratio_of_tokens(nothing, Pooled({}, (), 0.3, 0.05, 1.96, 1.0))
    assert (low, high) == (0.0, math.inf)
    assert ratio > 1


def test_a_table_is_printed_of_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"id": m, "seed": 0, "width": 2, "marked": 1.0, "scheme": m, **MEASURED.as_dict()}
        for m in ("copula", "green-list", "tournament")
    ]
    print_figure(2, [])
    print_figure(2, rows)
    out = capsys.readouterr().out
    assert "nothing measured yet" in out
    assert "extrapolated" in out  # 90 scores are more than the 8 there are
    assert "1.00 [" in out


def test_words_are_replaced_at_the_rate_that_is_asked_for() -> None:
    texts = [" ".join(f"{row}-{n}" for n in range(500)) for row in range(4)]
    replaced = replace_words(texts, 0.3, np.random.default_rng(0))
    changed = [a != b for x, y in zip(texts, replaced, strict=True) for a, b in pairs(x, y)]
    assert 0.25 < np.mean(changed) < 0.35
    assert replace_words(texts, 0.0, np.random.default_rng(0)) == texts


def pairs(first: str, second: str) -> list[tuple[str, str]]:
    return list(zip(first.split(), second.split(), strict=True))


@pytest.mark.parametrize("mark", ["green-list", "tournament"])
def test_a_peer_sees_nothing_in_random_pairs(mark: str) -> None:
    rng = np.random.default_rng(0)
    log_ps = []
    for seed in range(10):
        (record,) = records_of(replace(TEXT, mark=mark, seed=seed), UNIT)
        contexts = rng.integers(0, 4096, (400, 2), dtype=np.uint32)
        tokens = rng.integers(0, 4096, 400, dtype=np.uint32)
        scores = peer_scores(record, contexts, tokens)
        assert abs(scores.excess.mean()) < 5 / math.sqrt(400)
        log_ps.append(scores.log_pvalue(400))
    assert min(log_ps) > math.log(1e-4)


def test_a_peer_sees_what_carries_its_mark() -> None:
    rng = np.random.default_rng(0)
    (record,) = records_of(TEXT, UNIT)
    contexts = rng.integers(0, 4096, (400, 2), dtype=np.uint32)
    tokens = rng.integers(0, 4096, 400, dtype=np.uint32)
    green = is_green(record, contexts, tokens)
    assert abs(green.mean() - GAMMA) < 0.1
    scores = peer_scores(record, contexts[green], tokens[green])
    assert scores.log_pvalue(int(green.sum())) == pytest.approx(green.sum() * math.log(GAMMA))


def test_the_tournament_is_transformers_own() -> None:
    """Over the whole vocabulary our chooser samples from what the processor returns."""
    recipe = replace(TEXT, mark="tournament", top_k=0)
    (record,) = records_of(recipe, UNIT)
    chooser = Tournament(record, torch.Generator().manual_seed(0), 3, 0)
    vocab = 50
    scores = torch.randn(2, vocab, generator=torch.Generator().manual_seed(1))
    ids = torch.tensor([[1, 2, 3, 7, 9], [1, 2, 3, 9, 7]])
    processor = chooser.processor
    processor._init_state(2)
    processor.state.context = ids[:, -3:-1]
    expected = torch.softmax(processor(ids, scores), dim=-1)
    n = 3000
    chosen = chooser(ids.repeat(n, 1), scores.repeat(n, 1)).reshape(n, 2)
    drawn = torch.stack([chosen[:, row].bincount(minlength=vocab) for row in range(2)]) / n
    assert (drawn - expected).abs().max() < 0.05


@tiny
@pytest.mark.shared
@pytest.mark.slow
def test_from_a_teacher_to_an_audit(tmp_path: Path) -> None:
    """A tiny student of plain size: what is cached is not made again, and equal runs agree."""
    scale = replace(
        QUICK,
        replies=32,
        tokens=48,
        epochs=12,
        answers=32,
        answer_tokens=48,
        shares=(1.0,),
        widths=(2,),
    )
    torch.set_num_threads(1)
    laboratory = Laboratory(tmp_path / "cache", shared() / "models")
    first = next(Grid(laboratory, scale).cells(2))
    found = first.audit(laboratory, first.recipe)
    assert found.log10_p < -6
    assert found.reached is not None
    times = _made(tmp_path / "cache")
    again = Laboratory(tmp_path / "cache", shared() / "models")
    assert first.audit(again, first.recipe) == found
    assert times == _made(tmp_path / "cache")


def _made(cache: Path) -> dict[Path, int]:
    """Return when everything in a cache was made, locks left out."""
    return {path: path.stat().st_mtime_ns for path in cache.iterdir() if path.suffix != ".lock"}
