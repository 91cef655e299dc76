"""What a result shows of its evidence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.watermark.suspects.audits import key, make, plain_text, result_of, speaker
from watermark.cli.audit_page import audit_page

if TYPE_CHECKING:
    from pathlib import Path


def test_the_bet_stands_against_the_tokens_that_were_said(tmp_path: Path) -> None:
    audit = make(tmp_path / "a", [key(rho=0.5)], alpha=1e-9)
    audit.run(speaker([plain_text(i, 40 + i) for i in range(24)]))
    result = result_of(audit)
    path = result["suspect"]["path"]
    lengths = [40 + i for i in range(24)]
    said = [sum(lengths[: i + 1]) for i in range(24)]
    assert len(path) > 3
    assert all(one["n_units"] in said for one in path)
    assert all(0 < one["n_scored"] < one["n_units"] for one in path)
    page = audit_page(audit.plan, result | {"plans": []})
    assert f"tokens that the suspect said or read, 0 to {path[-1]['n_units']}" in page
    assert ">1,000</text>" in page
