"""Checkpoints, against one of the Go checksum database, and strict to the bit."""

from __future__ import annotations

import pytest

from tests.watermark.log.samples import NAME, OTHER, SIGNER, all_flips, vectors
from watermark.errors import LogError, LogFormatError, LogVerificationError
from watermark.log import (
    EMPTY_ROOT,
    Checkpoint,
    NoteVerifier,
    leaf_hash,
    open_checkpoint,
    sign_checkpoint,
    sign_note,
)
from watermark.log.encoding import encode_base64

VECTORS = vectors("signed-note")
GO = NoteVerifier.parse(VECTORS["verifiers"]["sum.golang.org"])
ROOT = leaf_hash(b"")
ROOT64 = encode_base64(ROOT)


def test_a_checkpoint_of_a_log_in_use() -> None:
    case = VECTORS["checkpoint"]
    opened = open_checkpoint(case["note"].encode(), case["origin"], [GO])
    assert (opened.size, encode_base64(opened.root)) == (case["size"], case["root"])
    assert opened.verified == (GO,)
    assert opened.checkpoint.text() + case["note"][len(opened.checkpoint.text()) :] == case["note"]
    with pytest.raises(LogVerificationError, match="another log"):
        open_checkpoint(case["note"].encode(), "example.com/behind-the-sofa", [GO])
    for changed in all_flips(case["note"].encode()):
        with pytest.raises(LogError):
            open_checkpoint(changed, case["origin"], [GO])


def test_round_trip() -> None:
    for size, root, extensions in ((0, EMPTY_ROOT, ()), (2**63 - 1, ROOT, ("a b", "+c"))):
        checkpoint = Checkpoint(origin=NAME, size=size, root=root, extensions=extensions)
        note = sign_checkpoint(checkpoint, [SIGNER, OTHER])
        opened = open_checkpoint(note, NAME, [OTHER.verifier, SIGNER.verifier], quorum=2)
        assert opened.checkpoint == checkpoint
        assert opened.verified == (SIGNER.verifier, OTHER.verifier)
        assert opened.note == note
        with pytest.raises(LogVerificationError):
            open_checkpoint(note, NAME, [SIGNER.verifier], quorum=2)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        f"a\n1\n{ROOT64}",
        f"\n1\n{ROOT64}\n",
        "a\n1\n",
        "a\n1\n\n",
        f"a\n01\n{ROOT64}\n",
        f"a\n+1\n{ROOT64}\n",
        f"a\n-1\n{ROOT64}\n",
        f"a\n 1\n{ROOT64}\n",
        f"a\n1_0\n{ROOT64}\n",
        f"a\n\u0661\n{ROOT64}\n",
        f"a\n{2**63}\n{ROOT64}\n",
        f"a\n{'9' * 5000}\n{ROOT64}\n",
        f"a\n0\n{ROOT64}\n",
        f"a\n1\n{ROOT64} \n",
        f"a\n1\n{ROOT64[:-1]}\n",
        f"a\n1\n{ROOT64[:-2]}B=\n" if ROOT64[-2] != "B" else f"a\n1\n{ROOT64[:-2]}C=\n",
        f"a\n1\n{encode_base64(ROOT + b'a')}\n",
        f"a\n1\n{ROOT64.replace('+', '-').replace('/', '_')}é\n",
        f"a\n1\n{ROOT64}\n\n",
        f"a\n1\n{ROOT64}\n\nb\n",
        f"a\r\n1\n{ROOT64}\n",
    ],
)
def test_what_is_no_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(LogFormatError):
        Checkpoint.parse(text)
    if text.endswith("\n") and "\r" not in text:
        with pytest.raises(LogFormatError):
            open_checkpoint(sign_note(text, [SIGNER]), "a", [SIGNER.verifier])


def test_values_that_make_no_checkpoint() -> None:
    for origin, size, root, extensions in (
        ("", 1, ROOT, ()),
        ("a\nb", 1, ROOT, ()),
        ("\ud800", 1, ROOT, ()),
        ("a", -1, ROOT, ()),
        ("a", 2**63, ROOT, ()),
        ("a", 0, ROOT, ()),
        ("a", 1, ROOT[1:], ()),
        ("a", 1, ROOT, ("",)),
        ("a", 1, ROOT, ("b\n",)),
    ):
        with pytest.raises(LogFormatError):
            Checkpoint(origin=origin, size=size, root=root, extensions=extensions)
