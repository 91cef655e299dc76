"""Notes and their keys, against the published ones, and strict to the bit."""

from __future__ import annotations

import copy
import pickle

import pytest

from tests.watermark.log.samples import OTHER, SIGNER, all_flips, vectors
from watermark.errors import LogError, LogFormatError, LogVerificationError
from watermark.log import NoteSigner, NoteVerifier, open_note, parse_note, sign_note

VECTORS = vectors("signed-note")
PETER, ENOCH = (NoteVerifier.parse(VECTORS["verifiers"][n]) for n in ("PeterNeumann", "EnochRoot"))
TEXT: str = VECTORS["text"]
PETER_LINE, ENOCH_LINE = (VECTORS["signatures"][n] for n in ("PeterNeumann", "EnochRoot"))
NOTE = f"{TEXT}\n{PETER_LINE}".encode()


def test_the_published_keys_and_note() -> None:
    signer = NoteSigner.parse(VECTORS["signer"])
    assert signer.reveal() == VECTORS["signer"]
    assert str(signer.verifier) == VECTORS["verifiers"]["PeterNeumann"]
    assert signer.verifier == PETER
    assert PETER.key_id.hex() == "c74f20a3"
    assert sign_note(TEXT, [signer]) == NOTE
    assert open_note(NOTE, [PETER]).text == TEXT
    for verifier in VECTORS["verifiers"].values():
        assert str(NoteVerifier.parse(verifier)) == verifier
    for note in VECTORS["unverified"]:
        parsed = parse_note(note.encode())
        lines = "".join(signature.line() for signature in parsed.signatures)
        assert f"{parsed.text}\n{lines}" == note


@pytest.mark.parametrize("key", VECTORS["refused_verifiers"].values())
def test_published_refusals_of_keys(key: str) -> None:
    with pytest.raises(LogFormatError):
        NoteVerifier.parse(key)


@pytest.mark.parametrize("name", ["verifier", "signer"])
def test_mangled_keys_are_refused(name: str) -> None:
    whole = VECTORS["verifiers"]["PeterNeumann"] if name == "verifier" else VECTORS["signer"]
    parse = NoteVerifier.parse if name == "verifier" else NoteSigner.parse
    pieces = [whole[i:j] for i in range(len(whole)) for j in range(i, len(whole) + 1)]
    pieces += [whole[:i] + chr(ord(c) + 1) + whole[i + 1 :] for i, c in enumerate(whole)]
    pieces += [whole + "\n", " " + whole, whole.replace("c74f20a3", "C74F20A3"), "+c74f20a3+AQ=="]
    for piece in pieces:
        if piece != whole:
            with pytest.raises(LogFormatError):
                parse(piece)


def test_signatures_by_unknown_keys_are_passed_over() -> None:
    both = NOTE + ENOCH_LINE.encode()
    assert open_note(both, [PETER]).verified == (PETER,)
    assert open_note(both, [ENOCH, PETER]).verified == (PETER, ENOCH)
    assert open_note(both, [ENOCH, PETER], quorum=2).verified == (PETER, ENOCH)
    assert open_note(NOTE + PETER_LINE.encode(), [PETER, PETER]).verified == (PETER,)
    for verifiers, quorum in (([], 1), ([], 0), ([SIGNER.verifier], 1), ([PETER], 2)):
        with pytest.raises(LogVerificationError):
            open_note(both, verifiers, quorum=quorum)
    with pytest.raises(LogVerificationError):  # one signature twice is one key
        open_note(NOTE + PETER_LINE.encode(), [PETER, ENOCH], quorum=2)


def test_a_bad_signature_by_a_known_key_refuses_the_note() -> None:
    lines = ENOCH_LINE + PETER_LINE[:60] + "ABCD" + PETER_LINE[60:]
    note = f"{TEXT}\n{lines}".encode()
    assert open_note(note, [ENOCH]).text == TEXT
    with pytest.raises(LogVerificationError, match="PeterNeumann"):
        open_note(note, [PETER, ENOCH])
    namesake = NoteVerifier("PeterNeumann", bytes(32))
    with pytest.raises(LogVerificationError):
        open_note(NOTE, [namesake])


@pytest.mark.parametrize(
    "note",
    [
        TEXT.encode(),
        TEXT.encode() + b"\n",
        NOTE[:-1],
        b"\x01" + NOTE,
        b"\xff" + NOTE,
        b"\r" + NOTE,
        b"\xed\xa0\x80" + NOTE,  # a surrogate
        NOTE + b"Unexpected line.\n",
        NOTE + b"\n",
        f"{TEXT}\n— Bad Name {PETER_LINE[15:]}".encode(),
        f"{TEXT}\n— Bad\u2003Name{PETER_LINE[14:]}".encode(),
        f"{TEXT}\n— a+b{PETER_LINE[14:]}".encode(),
        f"{TEXT}\n- PeterNeumann{PETER_LINE[14:]}".encode(),
        f"{TEXT}\n—  {PETER_LINE[15:]}".encode(),
        f"{TEXT}\n— PeterNeumann x08gow==\n".encode(),
        f"{TEXT}\n— PeterNeumann x08go/Y\n".encode(),
        f"{TEXT}\n— PeterNeumann x08go/Z=\n".encode(),
        f"{TEXT}\n— PeterNeumann\n".encode(),
        f"{TEXT}\n{PETER_LINE * 101}".encode(),
        b"",
        b"\n\n",
        b"a" * 2**20 + NOTE,
    ],
)
def test_what_is_no_note_is_refused(note: bytes) -> None:
    with pytest.raises(LogFormatError):
        open_note(note, [PETER])


def test_two_keys_of_one_name_and_id_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NoteVerifier, "key_id", PETER.key_id)  # finding such a pair is easy
    namesake = NoteVerifier(PETER.name, bytes(32))
    assert open_note(NOTE, [PETER, PETER]).verified == (PETER,)
    with pytest.raises(LogVerificationError, match="one name and id"):
        open_note(NOTE, [PETER, namesake])


def test_text_may_hold_empty_lines() -> None:
    for text in ("\n", "a\n\nb\n", "\n\n\n", "— x AAAAAAA=\n", "a\n\n— x AAAAAAA=\n"):
        assert open_note(sign_note(text, [SIGNER]), [SIGNER.verifier]).text == text


def test_what_makes_no_note_is_not_signed() -> None:
    for text in ("", "abc", "a\tb\n", "a\r\n", "\ud800\n", "a\n\n— x AAAAAAA="):
        with pytest.raises(LogFormatError):
            sign_note(text, [SIGNER])
    for signers in ([], [SIGNER] * 101):
        with pytest.raises(LogFormatError):
            sign_note("a\n", signers)
    for name in ("", "a b", "a+b", "a\n", "a\u00a0b", "\ud800"):
        with pytest.raises(LogFormatError):
            NoteSigner(name, bytes(32))
    with pytest.raises(LogFormatError):
        NoteSigner("a", bytes(31))
    with pytest.raises(LogFormatError):
        NoteVerifier("a", bytes(33))


def test_every_single_bit_of_a_note_counts() -> None:
    for changed in all_flips(NOTE):
        with pytest.raises(LogError):
            open_note(changed, [PETER])
    both = sign_note("a\n", [SIGNER, OTHER])
    for changed in all_flips(both):
        with pytest.raises(LogError):
            open_note(changed, [SIGNER.verifier, OTHER.verifier], quorum=2)


def test_a_signer_shows_and_copies_no_secret() -> None:
    assert repr(SIGNER) == f"<NoteSigner log.example/keys+{SIGNER.verifier.key_id.hex()}>"
    assert SIGNER.name == "log.example/keys"
    for attempt in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="never"):
            attempt(SIGNER)
    with pytest.raises(TypeError, match="never"):
        SIGNER.__getstate__()
