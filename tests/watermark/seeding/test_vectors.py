"""The vectors, against the library and against a second reading of the specification."""

from __future__ import annotations

import copy
import hashlib
import hmac
import json
import re
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from watermark.errors import VectorsError
from watermark.seeding.vectors import check_vectors
from watermark.text.words import word_id, words

PATH = Path(__file__).parents[3] / "tests" / "vectors" / "seeding.json"
DATA = PATH.read_bytes()
VECTORS: dict[str, list[dict[str, Any]]] = json.loads(DATA)
MASK = (1 << 64) - 1


def cut(text: str) -> tuple[list[str], list[int]]:
    units = words(text)
    return units, [word_id(unit) for unit in units]


# A slow second implementation, from the text of the specification alone.


def hkdf(secret: bytes, label: str, key_id: str, length: int) -> bytes:
    field = key_id.encode()
    info = b"output-watermark/v1/" + label.encode() + len(field).to_bytes(4, "little") + field
    extracted = hmac.new(bytes(32), secret, hashlib.sha256).digest()
    output, block = b"", b""
    for counter in range(1, -(-length // 32) + 1):
        block = hmac.new(extracted, block + info + bytes([counter]), hashlib.sha256).digest()
        output += block
    return output[:length]


def aes(key: bytes, block: bytes) -> bytes:
    encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # noqa: S305
    return encryptor.update(block) + encryptor.finalize()


def mix(z: int) -> int:
    z ^= z >> 30
    z = z * 0xBF58476D1CE4E5B9 & MASK
    z ^= z >> 27
    z = z * 0x94D049BB133111EB & MASK
    return z ^ z >> 31


def uniform(k: int) -> str:
    return ((k + 0.5) * 2.0**-52).hex()


def recompute(given: dict[str, Any]) -> dict[str, Any]:
    secret, key_id = bytes.fromhex(given["secret"]), given["key_id"]
    context = [*given["context"], *[0xFFFFFFFF] * (4 - len(given["context"]))]
    block = b"".join(word.to_bytes(4, "little") for word in context)
    output = aes(hkdf(secret, "context", key_id, 16), block)
    stream, route = (int.from_bytes(output[i : i + 8], "little") for i in (0, 8))
    k = mix(stream + given["token"] * 0x9E3779B97F4A7C15 & MASK) >> 12
    in_account = route & 0xFFFF < given["account_share_q16"]
    index = route >> 16 & 0xFFFF
    bit = None
    if in_account:
        tag_key = hkdf(secret, "account-tag", key_id, 32)
        tag = hmac.new(tag_key, given["account"].encode(), hashlib.sha256).digest()[:8]
        code_key = hkdf(secret, "account-code", key_id, 16)
        code = aes(code_key, tag + (index // 128).to_bytes(8, "little"))
        place = index % 128
        bit = code[place // 8] >> place % 8 & 1
    return {
        "stream": f"{stream:016x}",
        "route": f"{route:016x}",
        "channel": "account" if in_account else "epoch",
        "code_index": index,
        "code_bit": bit,
        "uniform": uniform((1 << 52) - 1 - k if bit else k),
    }


ALONE = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3038-\u303b"
    "\u3041-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f]"
)


def slow_words(text: str) -> list[str]:
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    units: list[str] = []
    run = ""
    for character in (c for c in text if unicodedata.category(c) != "Cf"):
        group = unicodedata.category(character)[0]
        if group in "LMN" and not ALONE.match(character):
            run += character
            continue
        units += [run] if run else []
        run = ""
        if group not in "ZC":
            units.append(character)
    return [*units, run] if run else units


def slow_id(unit: str) -> int:
    number = int.from_bytes(hashlib.sha256(unit.encode()).digest()[:4], "little")
    return min(number, 0xFFFFFFFE)


def test_the_library_agrees_with_every_vector() -> None:
    report = check_vectors(DATA, cut)
    assert report.differing == ()
    assert report.n_agreeing == report.total == sum(map(len, VECTORS.values()))
    assert all(VECTORS.values())


@pytest.mark.parametrize("place", range(len(VECTORS["positions"])))
def test_a_second_implementation_agrees_on_positions(place: int) -> None:
    vector = VECTORS["positions"][place]
    found = recompute(vector)
    assert {name: vector[name] for name in found} == found


def test_a_second_implementation_agrees_on_uniforms() -> None:
    for vector in VECTORS["uniforms"]:
        k = int(vector["z"], 16) >> 12
        assert (vector["uniform"], vector["flipped"]) == (uniform(k), uniform((1 << 52) - 1 - k))


def test_a_second_implementation_agrees_on_words() -> None:
    for vector in VECTORS["words"]:
        assert slow_words(vector["text"]) == vector["units"]
        assert [slow_id(unit) for unit in vector["units"]] == vector["ids"]


def changed(value: Any) -> Any:
    """Return another value of the same form."""
    if isinstance(value, list):
        return [*value[:-1], changed(value[-1])] if value else ["x"]
    if isinstance(value, int):
        return value ^ 1
    if value is None:
        return 1
    if value == "account":
        return "epoch"
    if value == "epoch":
        return "account"
    return ("1" if value[:1] == "0" else "0") + value[1:]


def fields() -> list[tuple[str, int, str]]:
    """Return (kind, place, field) of all that a vector's outcome depends on."""
    found = []
    for kind, vectors in VECTORS.items():
        for place, vector in enumerate(vectors):
            # Off the account channel, the account and its share may decide nothing.
            idle = {"account", "account_share_q16"} if vector.get("channel") == "epoch" else set()
            # A share beside the route's 16 bits decides as before.
            idle |= {"account_share_q16"}
            found += [(kind, place, name) for name in vector if name not in idle]
    return found


def test_a_change_of_any_one_field_is_seen() -> None:
    # One vector a file keeps each check small; the report names exactly the changed one.
    empty: dict[str, list[Any]] = {kind: [] for kind in VECTORS}
    for kind, place, name in fields():
        vector = copy.deepcopy(VECTORS[kind][place])
        if kind == "uniforms" and name == "z":
            vector["z"] = f"{int(vector['z'], 16) ^ 1 << 12:016x}"
        elif kind == "words" and name == "text":
            vector["text"] = "x " + vector["text"]
        elif name == "account":  # half of all names have the same bit here
            vector["account"] = next(
                other
                for other in map(str, range(64))
                if recompute(vector | {"account": other})["code_bit"] != vector["code_bit"]
            )
        else:
            vector[name] = changed(vector[name])
        report = check_vectors(json.dumps(empty | {kind: [vector]}).encode(), cut)
        assert report.differing == (f"{kind}[0]",), (kind, place, name)
        assert report.n_agreeing == 0


def test_the_share_decides_the_channel() -> None:
    empty: dict[str, list[Any]] = {kind: [] for kind in VECTORS}
    for vector in VECTORS["positions"]:
        other = 0 if vector["channel"] == "account" else 65536
        file = empty | {"positions": [vector | {"account_share_q16": other}]}
        assert check_vectors(json.dumps(file).encode(), cut).n_agreeing == 0


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"\xff",
        b'{"positions": [], "uniforms": []}',
        b'{"positions": [], "uniforms": [], "words": [], "more": []}',
        json.dumps(VECTORS | {"words": [{"text": "a", "units": ["a"]}]}).encode(),
        json.dumps(VECTORS | {"uniforms": [{"z": 1, "uniform": "", "flipped": ""}]}).encode(),
    ],
)
def test_another_form_is_refused(data: bytes) -> None:
    with pytest.raises(VectorsError):
        check_vectors(data, cut)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("secret", "zz"),
        ("secret", "00"),
        ("key_id", ""),
        ("context", [0xFFFFFFFF]),
        ("token", -1),
        ("token", 1 << 32),
    ],
)
def test_values_out_of_range_differ_and_raise_nothing(name: str, value: Any) -> None:
    vector = VECTORS["positions"][0] | {name: value}
    data = json.dumps({"positions": [vector], "uniforms": [], "words": []}).encode()
    assert check_vectors(data, cut).differing == ("positions[0]",)


@pytest.mark.parametrize("z", ["xyz", "-1", "10000000000000000"])
def test_a_value_that_is_no_64_bit_number_differs(z: str) -> None:
    vector = VECTORS["uniforms"][0] | {"z": z}
    data = json.dumps({"positions": [], "uniforms": [vector], "words": []}).encode()
    assert check_vectors(data, cut).n_agreeing == 0
