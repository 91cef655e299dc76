"""Which parts of delivered conversations may be sent to a suspect, and how often each counts."""

from __future__ import annotations

import json
from pathlib import Path as FilePath
from typing import TYPE_CHECKING

import pytest

from tests.watermark.suspects.audits import UNIT, key, marked_text
from watermark.errors import AuditPlanError
from watermark.radioactivity import (
    Design,
    PairCollector,
    PromptSource,
    View,
    weigh_evidence,
)
from watermark.suspects.conversations import (
    SEEDS,
    Conversation,
    Message,
    origin_of,
    passages,
    prefixes,
    read_conversations,
    traffic_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from watermark.keys import KeyRecord

N_UNITS = 40
PROBE = frozenset({"probe"})


def backwards(text: str) -> str:
    return " ".join(reversed(text.split()))


def two_replies(record: KeyRecord, seed: int, path: str = "splice") -> Conversation:
    """Return a conversation whose user asks for the first reply backwards."""
    first = marked_text(record, seed)
    turns = (
        Message("user", "tell me something"),
        Message("assistant", first),
        Message("user", "and now backwards"),
        Message("assistant", backwards(first)),
    )
    return Conversation(messages=turns, id=f"c{seed}", account="probe", path=path)


def log_evalue_peak(record: KeyRecord, prompts: Sequence[str]) -> float:
    """Return the e-value against a clean suspect that says its prompt backwards."""
    collector = PairCollector(View(2, [UNIT.encode(one) for one in prompts]))
    said = [collector.answer(UNIT.encode(backwards(one))) for one in prompts]
    design = Design(share=0.75, n_decoys=9)
    return weigh_evidence([record], said, design).log_evalue_peak


def test_a_later_reply_says_what_the_key_chose_in_an_earlier_one() -> None:
    n_first = n_last = 0
    for seed in range(12):
        record = key(seed)
        delivered = [two_replies(record, i) for i in range(20)]
        sent = prefixes(delivered, PROBE, UNIT, n_units=N_UNITS, count=20, seed="1")
        assert len(sent) == 20
        n_first += log_evalue_peak(record, [one.prompt for one in sent]) > 3.0
        broken = [
            " ".join(one.text.split()[:N_UNITS]) for one in passages(delivered, count=20, seed="1")
        ]
        n_last += log_evalue_peak(record, broken) > 14.0
    assert n_first <= 2  # P(e >= 20) <= .05 under each key
    assert n_last == 12  # the negative control: each beyond 1e-6


def test_conversations_that_went_on_count_by_their_first_reply() -> None:
    gone_on = two_replies(key(), 1)
    stopped = Conversation(messages=gone_on.messages[:2], id="c1", account="probe", path="splice")
    for one in (gone_on, stopped):
        (sent,) = prefixes([one], PROBE, UNIT, n_units=9, count=1, seed="1")
        assert sent.prompt.split() == gone_on.messages[1].content.split()[:9]
    with pytest.raises(AuditPlanError, match="as they stood after their first reply"):
        prefixes([two_replies(key(), 1, "select")], PROBE, UNIT, n_units=9, count=1, seed="1")


def test_prompts_are_called_seeds_by_their_digest_alone(tmp_path: Path) -> None:
    seeds = FilePath(__file__).parents[3] / "seeds"
    rows = (line.split() for line in (seeds / "SHA256SUMS").read_text().splitlines())
    sums = {name: digest for digest, name in rows}
    assert {sums["probe-prompts.jsonl"]} == SEEDS
    source, origin = origin_of(seeds / "probe-prompts.jsonl")
    assert (source, origin.sha256) == (PromptSource.SEEDS, sums["probe-prompts.jsonl"])
    other = tmp_path / "probe-prompts.jsonl"
    other.write_bytes((seeds / "probe-prompts.jsonl").read_bytes() + b"\n")
    assert origin_of(other)[0] is PromptSource.GIVEN
    with pytest.raises(AuditPlanError, match="correct the path"):
        origin_of(tmp_path / "none")


def test_a_conversation_counts_once(tmp_path: Path) -> None:
    path = tmp_path / "delivered.jsonl"
    turn = [{"role": "assistant", "content": "one two three"}]
    rows = [{"id": name, "messages": turn} for name in ("a", "", "", "b", "a")]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows[:4]))
    assert len(read_conversations(path)) == 4  # who names none is taken at his word
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(AuditPlanError, match=r":5 has the id 'a' of line 1"):
        read_conversations(path)


def test_a_key_that_nobody_bears_delivered_nothing() -> None:
    turns = (Message("assistant", "one two three four"),)
    said = [Conversation(messages=turns, key_id=one) for one in ("k", "", "K")]
    assert [one.key_id for one in traffic_of(said[:2], UNIT, 2, {"k", "j"})] == ["", "k"]
    with pytest.raises(AuditPlanError, match="under key 'K', which is not at hand"):
        traffic_of(said, UNIT, 2, {"k", "j"})
