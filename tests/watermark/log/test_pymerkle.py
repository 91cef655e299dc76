"""Another implementation, pymerkle, sees the same trees and proofs."""

from __future__ import annotations

import pytest

from tests.watermark.log.samples import sample_entries, tree_of
from watermark.log import consistency_proof, inclusion_proof, verify_consistency

pymerkle = pytest.importorskip("pymerkle", reason="pymerkle is an oracle of the tests only")


def test_pymerkle_agrees() -> None:
    entries = sample_entries(100)
    theirs, ours = pymerkle.InmemoryTree(algorithm="sha256"), tree_of(entries)
    for entry in entries:
        theirs.append_entry(entry)
    for size in (1, 2, 3, 7, 8, 9, 31, 64, 65, 100):
        root = ours.root(size)
        assert theirs.get_root(size) == root
        for index in range(size):
            proof = theirs.prove_inclusion(index + 1, size)  # it counts from 1
            assert ours.node(0, index) in proof.path
            rest = [step for step in proof.path if step != ours.node(0, index)]
            assert sorted(rest) == sorted(inclusion_proof(ours, index, size))
            pymerkle.verify_inclusion(ours.node(0, index), root, proof)
        for old in range(1, size + 1):
            proof = theirs.prove_consistency(old, size)
            # Its path is made of other subtrees than RFC 6962's, so the roots must agree.
            verify_consistency(
                old, theirs.get_root(old), size, root, consistency_proof(ours, old, size)
            )
            pymerkle.verify_consistency(ours.root(old), root, proof)
