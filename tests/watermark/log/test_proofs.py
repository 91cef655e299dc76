"""Proofs: published ones, the definitions of RFC 6962, and every way to break one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.watermark.log.samples import flip, sample_entries, tree_of, vectors
from watermark.errors import LogError, LogFormatError, LogRangeError, LogVerificationError
from watermark.log import (
    EMPTY_ROOT,
    MerkleTree,
    VerifiedConsistency,
    VerifiedInclusion,
    consistency_proof,
    inclusion_proof,
    verify_consistency,
    verify_inclusion,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

TREE = vectors("rfc6962")
ROOTS = [bytes.fromhex(root) for root in TREE["roots"]]
PUBLISHED = tree_of([bytes.fromhex(leaf) for leaf in TREE["leaves"]])
SOME_HASH = bytes.fromhex("abacaba000000000000000000000000000000000000000000060061e00123456")


def below(width: int) -> int:
    """Return the largest power of two below `width`."""
    k = 1
    while 2 * k < width:
        k *= 2
    return k


def span_root(tree: MerkleTree, start: int, end: int) -> bytes:
    """Return the root over a range, by a tree of its own."""
    own = MerkleTree()
    own.extend([tree.node(0, index) for index in range(start, end)])
    return own.root()


def defined_path(tree: MerkleTree, m: int, start: int, end: int) -> list[bytes]:
    """PATH of RFC 6962, section 2.1.1."""
    if end - start == 1:
        return []
    k = below(end - start)
    if m < k:
        return [*defined_path(tree, m, start, start + k), span_root(tree, start + k, end)]
    return [*defined_path(tree, m - k, start + k, end), span_root(tree, start, start + k)]


def defined_subproof(tree: MerkleTree, m: int, start: int, end: int, *, b: bool) -> list[bytes]:
    """SUBPROOF of RFC 6962, section 2.1.2."""
    if m == end - start:
        return [] if b else [span_root(tree, start, end)]
    k = below(end - start)
    if m <= k:
        inner = defined_subproof(tree, m, start, start + k, b=b)
        return [*inner, span_root(tree, start + k, end)]
    inner = defined_subproof(tree, m - k, start + k, end, b=False)
    return [*inner, span_root(tree, start, start + k)]


@pytest.mark.parametrize("case", TREE["inclusion"])
def test_published_inclusion(case: dict[str, object]) -> None:
    index, size = int(str(case["index"])), int(str(case["size"]))
    proof = inclusion_proof(PUBLISHED, index, size)
    assert [step.hex() for step in proof] == case["proof"]
    leaf = PUBLISHED.node(0, index)
    shown = verify_inclusion(leaf, index, size, proof, ROOTS[size])
    assert shown == VerifiedInclusion(leaf=leaf, index=index, size=size, root=ROOTS[size])


@pytest.mark.parametrize("case", TREE["consistency"])
def test_published_consistency(case: dict[str, object]) -> None:
    old, size = int(str(case["old_size"])), int(str(case["size"]))
    proof = consistency_proof(PUBLISHED, old, size)
    assert [step.hex() for step in proof] == case["proof"]
    shown = verify_consistency(old, ROOTS[old], size, ROOTS[size], proof)
    expected = VerifiedConsistency(old_size=old, old_root=ROOTS[old], size=size, root=ROOTS[size])
    assert shown == expected


def test_every_proof_of_small_trees_is_the_defined_one_and_holds() -> None:
    tree = tree_of(sample_entries(34))
    roots = [tree.root(size) for size in range(35)]
    for size in range(1, 35):
        for index in range(size):
            proof = inclusion_proof(tree, index, size)
            assert list(proof) == defined_path(tree, index, 0, size)
            verify_inclusion(tree.node(0, index), index, size, proof, roots[size])
        for old in range(1, size + 1):
            proof = consistency_proof(tree, old, size)
            assert list(proof) == defined_subproof(tree, old, 0, size, b=True)
            verify_consistency(old, roots[old], size, roots[size], proof)


def test_no_proof_holds_for_another_place_size_or_root() -> None:
    # A size is bound by its root, which a checkpoint signs with it, and not by the proof's shape.
    tree = tree_of(sample_entries(36))
    roots = [tree.root(size) for size in range(37)]
    for size in range(1, 18):
        for index in range(size):
            proof = inclusion_proof(tree, index, size)
            leaf = tree.node(0, index)
            for place in range(-1, 20):
                for width in (size - 1, size, size + 1, 2 * size):
                    if (place, width) != (index, size):
                        with pytest.raises(LogError):
                            verify_inclusion(leaf, place, width, proof, roots[width])
            refuse_inclusion(leaf, index, size, proof, roots[size])


def refuse_inclusion(
    leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes
) -> None:
    """Break an inclusion proof in the ways that the published tests of CT do."""
    changed: list[tuple[bytes, list[bytes], bytes]] = [
        (SOME_HASH, list(proof), root),
        (leaf, list(proof), SOME_HASH),
        (leaf, list(proof), EMPTY_ROOT),
        (leaf, [*proof, b""], root),
        (leaf, [*proof, root], root),
        (leaf, [b"", *proof], root),
        (leaf, [root, *proof], root),
        (b"WrongLeaf", list(proof), root),
        (leaf, list(proof), b"WrongRoot"),
    ]
    if proof:
        changed += [(leaf, list(proof[:-1]), root), (leaf, [SOME_HASH, *proof[1:]], root)]
    for wrong_leaf, wrong_proof, wrong_root in changed:
        with pytest.raises(LogError):
            verify_inclusion(wrong_leaf, index, size, wrong_proof, wrong_root)


def test_no_consistency_proof_holds_for_anything_else() -> None:
    tree = tree_of(sample_entries(36))
    roots = [tree.root(size) for size in range(37)]
    for size in range(2, 18):
        for old in range(1, size):
            proof = list(consistency_proof(tree, old, size))
            first, second = roots[old], roots[size]
            for changed in (
                (old - 1, first, size, second, proof),
                (old + 1, first, size, second, proof),
                (old, first, size + 1, roots[size + 1], proof),
                (old, first, size - 1, roots[size - 1], proof),
                (old, first, size * 2, roots[size * 2], proof),
                (old, second, size, first, proof),
                (old, SOME_HASH, size, second, proof),
                (old, first, size, SOME_HASH, proof),
                (old, b"WrongRoot", size, second, proof),
                (old, first, size, second, []),
                (old, first, size, second, proof[:-1]),
                (old, first, size, second, [*proof, second]),
                (old, first, size, second, [first, *proof]),
                (old, first, size, second, [proof[0], *proof]),
                (old, first, size, second, [*proof, b""]),
            ):
                with pytest.raises(LogError):
                    verify_consistency(*changed)


def test_the_empty_tree_and_the_same_tree() -> None:
    verify_consistency(0, EMPTY_ROOT, 0, EMPTY_ROOT, [])
    verify_consistency(0, EMPTY_ROOT, 1, ROOTS[1], [])
    assert consistency_proof(PUBLISHED, 0, 8) == consistency_proof(PUBLISHED, 8, 8) == ()
    for old, old_root, size, root, proof in (
        (0, EMPTY_ROOT, 0, ROOTS[1], []),
        (0, ROOTS[1], 0, ROOTS[1], []),
        (0, SOME_HASH, 1, ROOTS[1], []),
        (1, ROOTS[1], 1, ROOTS[2], []),
        (0, EMPTY_ROOT, 0, EMPTY_ROOT, [EMPTY_ROOT]),
        (0, EMPTY_ROOT, 1, ROOTS[1], [EMPTY_ROOT]),
        (1, ROOTS[1], 1, ROOTS[1], [ROOTS[1]]),
        (1, ROOTS[1], 2, ROOTS[2], []),
    ):
        with pytest.raises(LogVerificationError):
            verify_consistency(old, old_root, size, root, proof)


def test_ranges_that_no_tree_has_are_refused() -> None:
    for index, size in ((0, 0), (1, 1), (-1, 1), (0, 2**63), (8, 8)):
        with pytest.raises(LogRangeError):
            inclusion_proof(PUBLISHED, index, size)
        with pytest.raises(LogRangeError):
            verify_inclusion(SOME_HASH, index, size, [], SOME_HASH)
    for old, size in ((1, 0), (-1, 1), (2, 1), (1, 2**63)):
        with pytest.raises(LogRangeError):
            consistency_proof(PUBLISHED, old, size)
        with pytest.raises(LogRangeError):
            verify_consistency(old, SOME_HASH, size, SOME_HASH, [])
    with pytest.raises(LogFormatError):
        verify_consistency(
            1, ROOTS[1], 8, ROOTS[8], [b"short", *consistency_proof(PUBLISHED, 1, 8)]
        )


def test_single_bits_of_large_proofs() -> None:
    rng = np.random.default_rng(20_260_101)
    size = 70_000
    tree = tree_of(sample_entries(size))
    root = tree.root()
    for _ in range(200):
        index, old = (int(value) for value in rng.integers(1, size, 2))
        proof = inclusion_proof(tree, index, size)
        leaf = tree.node(0, index)
        verify_inclusion(leaf, index, size, proof, root)
        whole = b"".join((leaf, root, *proof))
        changed = flip(whole, int(rng.integers(8 * len(whole))))
        parts = [changed[start : start + 32] for start in range(0, len(changed), 32)]
        with pytest.raises(LogVerificationError):
            verify_inclusion(parts[0], index, size, parts[2:], parts[1])
        steps = consistency_proof(tree, old, size)
        verify_consistency(old, tree.root(old), size, root, steps)
        whole = b"".join((tree.root(old), root, *steps))
        changed = flip(whole, int(rng.integers(8 * len(whole))))
        parts = [changed[start : start + 32] for start in range(0, len(changed), 32)]
        with pytest.raises(LogVerificationError):
            verify_consistency(old, parts[0], size, parts[1], parts[2:])
