"""Whatever the bytes, parsers return a value that writes the same bytes, or raise a LogError."""

from __future__ import annotations

import contextlib

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.watermark.log.samples import NAME, SIGNER, log_of, tree_of
from watermark.errors import LogError
from watermark.log import (
    Checkpoint,
    Log,
    LogReader,
    MemoryStorage,
    NoteSigner,
    NoteVerifier,
    TlogProof,
    format_bundle,
    open_checkpoint,
    parse_bundle,
    parse_note,
    parse_tile,
    parse_tile_path,
    verify_consistency,
    verify_inclusion,
)

KEYS = [SIGNER.verifier]
STORAGE, LOG = log_of(5)
PROOF = LogReader.open(STORAGE, NAME, KEYS).prove_inclusion(2).format()
NOTE = LOG.checkpoint.note
PIECES = [
    b"\n",
    b"\n\n",
    b" ",
    b"+",
    b"=",
    b"\0",
    b"\xff",
    "—".encode(),
    b"0",
    b"extra ",
    b"A" * 43,
]


@st.composite
def mangled(draw: st.DrawFn, whole: bytes) -> bytes:
    """Return `whole` with some spans replaced, or bytes that have nothing to do with it."""
    if draw(st.integers(0, 4)) == 0:
        return draw(st.binary(max_size=200))
    data = whole
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(len(data), start + 8)))
        piece = draw(st.sampled_from(PIECES) | st.binary(max_size=4))
        data = data[:start] + piece + data[end:]
    return data


@given(mangled(NOTE))
def test_notes_and_checkpoints(data: bytes) -> None:
    with contextlib.suppress(LogError):
        note = parse_note(data)
        assert f"{note.text}\n{''.join(s.line() for s in note.signatures)}".encode() == data
        assert Checkpoint.parse(note.text).text() == note.text
    with contextlib.suppress(LogError):
        assert open_checkpoint(data, NAME, KEYS).checkpoint == LOG.checkpoint.checkpoint


@given(mangled(PROOF))
def test_proofs(data: bytes) -> None:
    with contextlib.suppress(LogError):
        assert TlogProof.parse(data).format() == data


@given(
    st.text(max_size=80) | mangled(str(SIGNER.verifier).encode()).map(lambda b: b.decode("latin1"))
)
def test_keys(text: str) -> None:
    with contextlib.suppress(LogError):
        assert str(NoteVerifier.parse(text)) == text
    with contextlib.suppress(LogError):
        assert NoteSigner.parse(text).reveal() == text


@given(st.binary(max_size=400), st.integers(0, 12))
def test_tiles_and_bundles(data: bytes, width: int) -> None:
    with contextlib.suppress(LogError):
        assert format_bundle(parse_bundle(data, width)) == data
    with contextlib.suppress(LogError):
        assert b"".join(parse_tile(data, width)) == data


@given(st.from_regex(r"tile/[0-9a-z-]{1,8}/[x0-9/.p]{1,20}", fullmatch=True) | st.text(max_size=40))
def test_paths(path: str) -> None:
    with contextlib.suppress(LogError):
        assert parse_tile_path(path).path == path


@given(st.lists(st.binary(max_size=40), max_size=300), st.lists(st.integers(0, 80), max_size=5))
@settings(max_examples=50, deadline=None)
def test_any_entries_in_any_batches(entries: list[bytes], cuts: list[int]) -> None:
    storage = MemoryStorage()
    log = Log.create(storage, SIGNER)
    for cut in cuts:
        log.extend(entries[log.size : log.size + cut])
        log.publish()
        log = Log.open(storage, SIGNER)
    log.extend(entries[log.size :])
    log.publish()
    reader = LogReader.open(storage, NAME, KEYS)
    assert reader.audit().root == tree_of(entries).root()
    assert list(reader.entries()) == entries


HASHES = st.binary(min_size=32, max_size=32) | st.binary(max_size=33)


@given(
    HASHES, st.integers(-2, 2**64), st.integers(-2, 2**64), st.lists(HASHES, max_size=70), HASHES
)
def test_verification(leaf: bytes, index: int, size: int, proof: list[bytes], root: bytes) -> None:
    with contextlib.suppress(LogError):
        assert verify_inclusion(leaf, index, size, proof, root).index == index
    with contextlib.suppress(LogError):
        assert verify_consistency(index, leaf, size, root, proof).size == size
