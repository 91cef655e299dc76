"""Proofs that travel alone: round trip, refusals, and single bits."""

from __future__ import annotations

import pytest

from tests.watermark.log.samples import NAME, OTHER, SIGNER, all_flips, log_of, sample_entries
from watermark.errors import LogError, LogFormatError, LogRangeError, LogVerificationError
from watermark.log import LogReader, TlogProof, sign_checkpoint, verify_tlog_proof
from watermark.log.encoding import encode_base64

KEYS = [SIGNER.verifier]
READER = LogReader.open(log_of(9)[0], NAME, KEYS)
ENTRIES = sample_entries(9)


def test_round_trip() -> None:
    for index, entry in enumerate(ENTRIES):
        proof = READER.prove_inclusion(index)
        assert TlogProof.parse(proof.format()) == proof
        shown = verify_tlog_proof(proof, entry, NAME, KEYS)
        assert (shown.entry, shown.inclusion.index, shown.inclusion.size) == (entry, index, 9)
        assert shown.checkpoint == READER.checkpoint
        extra = TlogProof(
            index=index, hashes=proof.hashes, checkpoint=proof.checkpoint, extra=b"hint"
        )
        assert TlogProof.parse(extra.format()) == extra
        assert extra.format().split(b"\n")[1] == b"extra aGludA=="
        assert verify_tlog_proof(extra, entry, NAME, KEYS) == shown


def test_a_proof_is_of_one_entry_one_log_and_its_keys() -> None:
    proof = READER.prove_inclusion(3)
    for entry, origin, keys, quorum in (
        (ENTRIES[4], NAME, KEYS, 1),
        (ENTRIES[3] + b"\0", NAME, KEYS, 1),
        (ENTRIES[3], "other.example", KEYS, 1),
        (ENTRIES[3], NAME, [OTHER.verifier], 1),
        (ENTRIES[3], NAME, [*KEYS, OTHER.verifier], 2),
    ):
        with pytest.raises(LogVerificationError):
            verify_tlog_proof(proof, entry, origin, keys, quorum=quorum)
    beyond = TlogProof(index=9, hashes=proof.hashes, checkpoint=proof.checkpoint)
    with pytest.raises(LogRangeError):
        verify_tlog_proof(beyond, ENTRIES[3], NAME, KEYS)


def test_every_single_bit_of_a_proof_counts() -> None:
    for index in (2, 8):
        for changed in all_flips(READER.prove_inclusion(index).format()):
            with pytest.raises(LogError):
                verify_tlog_proof(TlogProof.parse(changed), ENTRIES[index], NAME, KEYS)
    for changed_entry in all_flips(ENTRIES[8]):
        with pytest.raises(LogVerificationError):
            verify_tlog_proof(READER.prove_inclusion(8), changed_entry, NAME, KEYS)


NOTE = sign_checkpoint(READER.checkpoint.checkpoint, [SIGNER])
HASH = encode_base64(bytes(32)).encode()


@pytest.mark.parametrize(
    "head",
    [
        b"wrong-header\nindex 0\n\n",
        b"c2sp.org/tlog-proof@v2\nindex 0\n\n",
        b"c2sp.org/tlog-proof@v1\n\n",
        b"c2sp.org/tlog-proof@v1\nindex\n\n",
        b"c2sp.org/tlog-proof@v1\nindex \n\n",
        b"c2sp.org/tlog-proof@v1\nindex notanumber\n\n",
        b"c2sp.org/tlog-proof@v1\nindex -5\n\n",
        b"c2sp.org/tlog-proof@v1\nindex 05\n\n",
        b"c2sp.org/tlog-proof@v1\nindex 9223372036854775807\n\n",
        b"c2sp.org/tlog-proof@v1\nindex 0",
        b"c2sp.org/tlog-proof@v1\r\nindex 0\r\n\r\n",
        b"c2sp.org/tlog-proof@v1\nextra !!notbase64!!\nindex 0\n\n",
        b"c2sp.org/tlog-proof@v1\nextra \nindex 0\n\n",
        b"c2sp.org/tlog-proof@v1\nextra aGludA==\nextra aGludA==\nindex 0\n\n",
        b"c2sp.org/tlog-proof@v1\nindex 0\nextra aGludA==\n\n",
        b"c2sp.org/tlog-proof@v1\nextra " + b"AAAA" * 30_000 + b"\nindex 0\n\n",
        b"c2sp.org/tlog-proof@v1\nindex 0\n!!notbase64!!\n\n",
        b"c2sp.org/tlog-proof@v1\nindex 0\nAAAA\n\n",
        b"c2sp.org/tlog-proof@v1\nindex 0\n" + (HASH + b"\n") * 64 + b"\n",
        b"c2sp.org/tlog-proof@v1\nindex 0\n" + HASH + b" \n\n",
        b"\xef\xbb\xbfc2sp.org/tlog-proof@v1\nindex 0\n\n",
    ],
)
def test_what_is_no_proof_is_refused(head: bytes) -> None:
    with pytest.raises(LogFormatError):
        TlogProof.parse(head + NOTE)


def test_a_proof_without_a_checkpoint_is_refused() -> None:
    for rest in (b"", b"checkpoint\n", b"checkpoint\n\n"):
        with pytest.raises(LogFormatError):
            TlogProof.parse(b"c2sp.org/tlog-proof@v1\nindex 0\n\n" + rest)
    for index in (-1, 2**63):
        with pytest.raises(LogFormatError):
            TlogProof(index=index, hashes=(), checkpoint=NOTE)
