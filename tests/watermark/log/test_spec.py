"""What the specification prints is what the code writes."""

from __future__ import annotations

import re

import pytest

from tests.watermark.log.samples import NAME, ROOT, SIGNER, all_flips
from watermark.errors import LogError
from watermark.log import Log, LogReader, MemoryStorage, TlogProof, verify_tlog_proof

SPEC = (ROOT / "watermark" / "spec" / "log.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```\n(.*?)^```$", SPEC, re.DOTALL | re.MULTILINE)
ENTRIES = [b"first", b"second", b"third"]
KEYS = [SIGNER.verifier]


def example() -> MemoryStorage:
    """Return the log of the example."""
    storage = MemoryStorage()
    log = Log.create(storage, SIGNER)
    log.extend(ENTRIES)
    log.publish()
    return storage


def test_the_example() -> None:
    verifier, checkpoint, bundle, tile, proof = BLOCKS
    storage = example()
    assert str(SIGNER.verifier) == verifier.strip()
    assert storage.files == {
        "checkpoint": checkpoint.encode(),
        "tile/entries/000.p/3": bytes.fromhex(bundle),
        "tile/0/000.p/3": bytes.fromhex(tile),
    }
    made = LogReader.open(storage, NAME, KEYS).prove_inclusion(1)
    assert made.format() == proof.encode()
    assert verify_tlog_proof(TlogProof.parse(proof.encode()), b"second", NAME, KEYS).entry


def test_every_bit_of_the_example_counts() -> None:
    storage = example()
    for path, data in list(storage.files.items()):
        for changed in all_flips(data):
            storage.files[path] = changed
            with pytest.raises(LogError):
                LogReader.open(storage, NAME, KEYS).audit()
        storage.files[path] = data
    LogReader.open(storage, NAME, KEYS).audit()
