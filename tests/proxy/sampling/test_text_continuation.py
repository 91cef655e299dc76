"""Over a seam that merges tokens, the reply is the upstream continuing its own text."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy import stats

from proxy.sampling import splice as splice_module
from proxy.sampling.budget import Budget, BudgetLimits
from proxy.sampling.candidates import ListReader, LogprobsMode
from proxy.sampling.questions import UNREAD_TOKEN, Chosen, Draft, Finish, Path, TextPiece
from proxy.sampling.reply import Reply, contexts_of
from proxy.sampling.select import SelectPlan, select
from proxy.sampling.spelling import Spelling
from proxy.sampling.splice import SplicePlan, splice
from proxy.sampling.units import SeamUnits, WordUnits
from tests.support.drive import law_pvalue, make_record, no_clock
from tests.support.toy_model import PLAIN
from tests.support.toy_text import (
    AB,
    END,
    FIRST,
    SPELLING,
    TABLE,
    WIDE,
    A,
    B,
    C,
    ToyTextModel,
    ToyUnit,
    encode,
)
from watermark.seeding import KeyedUniforms

if TYPE_CHECKING:
    from proxy.sampling.candidates import CandidateList
    from proxy.sampling.questions import Flow

SIGNIFICANCE = 1e-4  # seeds are fixed: a pass stays a pass
COUNTS = [250, pytest.param(6000, marks=pytest.mark.slow)]
#                 a    b    c    ab  1st  2nd  end
NARROW = np.array(
    [
        [0.1, 0.5, 0.2, 0.1, 0.0, 0.0, 0.1],  # after a
        [0.6, 0.1, 0.2, 0.1, 0.0, 0.0, 0.0],  # after b
        [0.5, 0.3, 0.1, 0.1, 0.0, 0.0, 0.0],  # after c
        [0.5, 0.1, 0.2, 0.1, 0.0, 0.0, 0.1],  # after ab: not the law after b
        [0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0],
        [0.4, 0.2, 0.3, 0.1, 0.0, 0.0, 0.0],
        [0.7, 0.1, 0.1, 0.1, 0.0, 0.0, 0.0],  # at the start
    ]
)
WIDER = NARROW.copy()
WIDER[:, FIRST] = [0.2, 0.2, 0.2, 0.2, 0.0, 0.2, 0.2]
WIDER /= WIDER.sum(axis=1, keepdims=True)


def model_of(rows: Any, seed: int = 0) -> ToyTextModel:
    return ToyTextModel(rows, np.random.default_rng(seed))


def make_reply(
    seed: int, max_tokens: int | None, kind: type[Reply] = Reply, *, unit: Any = None
) -> Reply:
    keyed = KeyedUniforms(make_record(seed))
    rng = np.random.default_rng([seed, 1])
    unit = ToyUnit() if unit is None else None
    return kind(keyed, rng, max_tokens=max_tokens, is_text=True, unit=unit)


def run(flow: Flow, model: ToyTextModel) -> tuple[str, list[Draft | Chosen]]:
    """Return the text, `$` where it ended by itself, and everything that happened."""
    events: list[Draft | Chosen] = []
    answer = None
    while True:
        try:
            event = flow.send(answer)
        except StopIteration as stopped:
            text = "".join(e.piece.text for e in events if isinstance(e, Chosen) and e.piece)
            return text + ("$" if stopped.value is Finish.STOP else ""), events
        events.append(event)
        answer = model.answer(event) if isinstance(event, Draft) else None


def select_plan(**changed: Any) -> SelectPlan:
    given: dict[str, Any] = {
        "parameters": PLAIN,
        "units": SeamUnits(ToyUnit()),
        "chunk_tokens": 2,
        "candidates": 4,
        "logprobs": 0,
        "end_ids": frozenset(),
    }
    return SelectPlan(**(given | changed))


def splice_plan(**changed: Any) -> SplicePlan:
    reader = ListReader(
        parameters=PLAIN,
        mode=LogprobsMode.TEMPERED,
        size=changed.pop("size", 3),
        vocab_size=7,
        is_partial=True,
    )
    given: dict[str, Any] = {
        "draft_tokens": 1,
        "drafts": 2,
        "end_ids": frozenset(),
        "spelling": SPELLING,
    }
    return SplicePlan(reader=reader, **(given | changed))


def budget() -> Budget:
    return Budget(BudgetLimits(), no_clock)


# --- select


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("rows", [NARROW, WIDER], ids=["merging", "wide"])
@pytest.mark.parametrize("units", [SeamUnits(ToyUnit()), WordUnits(None)], ids=["tokens", "words"])
def test_select_is_the_upstream_continuing_its_own_text(rows: Any, units: Any, count: int) -> None:
    model, plan = model_of(rows), select_plan(units=units)
    texts = [run(select(make_reply(seed, 4), plan, budget()), model)[0] for seed in range(count)]
    assert law_pvalue(texts, model.law(4, 2)) > SIGNIFICANCE


def test_the_seam_matters_to_the_law() -> None:
    """Negative control: the same replies under the law of an upstream that never rereads."""
    model, plan = model_of(NARROW), select_plan()
    texts = [run(select(make_reply(s, 4), plan, budget()), model)[0] for s in range(1500)]
    assert law_pvalue(texts, model.law(4, 4)) < SIGNIFICANCE


# --- splice


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("rows", [NARROW, WIDER], ids=["merging", "wide"])
@pytest.mark.parametrize("size", [2, 7])
def test_splice_token_by_token_is_the_upstream_continuing_its_own_text(
    rows: Any, size: int, count: int
) -> None:
    model, plan = model_of(rows), splice_plan(size=size)
    assert splice_pvalue(model, plan, count) > SIGNIFICANCE


def splice_pvalue(
    model: ToyTextModel, plan: SplicePlan, count: int, kind: type[Reply] = Reply
) -> float:
    texts = [
        run(splice(make_reply(seed, 5, kind), plan, budget()), model)[0] for seed in range(count)
    ]
    return law_pvalue(texts, model.law(5, 1, is_whole=True))


class ForgetfulReply(Reply):
    """A reply that frees every context that a seam removed, raced or not."""

    __slots__ = ()

    def reread(self) -> None:
        ids = encode(self.text)
        self.tokens = ids.tolist()
        self._spent = set(contexts_of([ids], self.context_width))


class EagerSpelling(Spelling):
    """Races the end of the text too, though an upstream does not list it when it draws it."""

    __slots__ = ()

    def raced(self, candidates: CandidateList) -> CandidateList:
        return candidates


def test_a_context_that_a_seam_removed_is_not_raced_again() -> None:
    """Negative control: raced again, its numbers choose the same tokens once more."""
    model, plan = model_of(NARROW), splice_plan(size=7)
    assert splice_pvalue(model, plan, 800) > SIGNIFICANCE
    assert splice_pvalue(model, plan, 1500, ForgetfulReply) < SIGNIFICANCE


def test_the_end_of_the_text_is_not_raced() -> None:
    """Negative control: its mass would count twice."""
    eager = splice_plan(size=7, spelling=EagerSpelling(TABLE), end_ids=frozenset({END}))
    assert splice_pvalue(model_of(NARROW), eager, 800) < SIGNIFICANCE


def follow(model: ToyTextModel, plan: SplicePlan, count: int) -> float:
    """Return the p-value of the tokens after what the upstream held when each was drawn."""
    cells: dict[int, Counter[int]] = defaultdict(Counter)
    for seed in range(count):
        held: list[int] = []
        _, events = run(splice(make_reply(seed, 12), plan, budget()), model)
        room = 12
        for event in events:
            if isinstance(event, Draft):
                held = encode(event.text).tolist()
                continue
            assert event.piece is not None
            token = FIRST if event.piece.text in {WIDE, ""} else event.token
            if token == FIRST and event.token != UNREAD_TOKEN:
                token = END
            is_end = event.token == UNREAD_TOKEN and event is events[-1] and not event.piece.text
            if room >= 2:  # else a character may not fit
                cells[held[-1] if held else END][END if is_end else token] += 1
            room -= event.piece.n_tokens
            held.append(token)
    least = 1.0
    for state, counts in cells.items():
        p = model.rows[state]
        possible = np.flatnonzero(p)
        observed = np.array([counts[int(token)] for token in possible])
        if observed.sum() * p[possible].min() >= 5:
            expected = observed.sum() * p[possible]
            least = min(least, float(stats.chisquare(observed, expected).pvalue) * len(cells))
    return least


@pytest.mark.parametrize("count", [100, pytest.param(3000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("drafts", [1, 3])
@pytest.mark.parametrize("rows", [NARROW, WIDER], ids=["merging", "wide"])
def test_every_token_of_a_longer_draft_is_an_honest_draw(
    rows: Any, drafts: int, count: int
) -> None:
    plan = splice_plan(draft_tokens=3, drafts=drafts, size=4)
    assert follow(model_of(rows), plan, count) > SIGNIFICANCE


def test_a_draft_without_room_for_the_rest_of_a_character_makes_it_rare(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Negative control: cut at the end of the draft, a character is drawn again."""
    plan = splice_plan(draft_tokens=3, drafts=1, size=4)
    honest = wide_share(plan, 150)
    monkeypatch.setattr(splice_module, "_REST_OF_CHARACTER", 0)
    cut = wide_share(plan, 150)
    assert cut < 0.85 * honest


def wide_share(plan: SplicePlan, count: int) -> float:
    model = model_of(WIDER)
    texts = [run(splice(make_reply(s, 30), plan, budget()), model)[0] for s in range(count)]
    return sum(text.count(WIDE) for text in texts) / sum(map(len, texts))


# --- the reply's state


def test_a_seam_that_merges_tokens_changes_what_is_spent() -> None:
    reply = make_reply(0, None)
    for text, token in (("c", C), ("a", A), ("b", B)):
        reply.spend(tuple(reply.tokens), (token,))
        reply.extend_text(TextPiece(text), Path.SPLICE, token=token)
    assert (C,) in reply
    assert (A,) in reply
    reply.reread()
    assert reply.tokens == [C, AB]
    assert (C,) in reply  # ab follows it
    assert (A,) not in reply  # the detector will not meet it here
    assert reply.n_tokens == 3


def test_a_context_that_was_raced_stays_spent() -> None:
    reply = make_reply(0, None)
    reply.extend_text(TextPiece("a"), Path.SPLICE, token=A)
    listed = model_of(NARROW)._list(NARROW[A], 3)
    candidates = splice_plan().reader.read(listed, A, {})
    assert reply.choose(candidates, reply.stream()) is not None
    reply.spend((A,), (B,))
    reply.extend_text(TextPiece("b"), Path.SPLICE, token=B)
    reply.reread()
    assert reply.tokens == [AB]
    assert (A,) in reply


@pytest.mark.parametrize("is_spliced", [True, False])
def test_a_marked_text_scores_higher_than_chance_as_the_detector_cuts_it(
    is_spliced: bool,
) -> None:
    scores = []
    for seed in range(300):
        reply, fresh = make_reply(seed, 8), make_reply(seed, None)
        flow = (
            splice(reply, splice_plan(draft_tokens=3, size=4), budget())
            if is_spliced
            else select(reply, select_plan(candidates=8), budget())
        )
        ids = encode(run(flow, model_of(NARROW, seed))[0].rstrip("$")).tolist()
        seen: set[int] = set()
        for context, token in pairwise(ids):
            if context not in seen:
                scores.append(fresh.score((context,), token))
            seen.add(context)
    known = [score for score in scores if score is not None]
    assert np.mean(known) > 1.12


def test_half_a_character_is_asked_for_with_more_tokens() -> None:
    rows = np.zeros((7, 7))
    rows[:, FIRST] = 1.0
    rows[FIRST] = 0.0
    rows[FIRST, 5] = 1.0
    model = model_of(rows)
    plan = select_plan(chunk_tokens=1)
    text, events = run(select(make_reply(0, 20), plan, budget()), model)
    assert text == WIDE * (len(text))
    assert len(text) >= 5
    assert [e.max_tokens for e in events if isinstance(e, Draft)][:2] == [1, 5]
