"""Where the secret of a new key goes: beside the one before it, or where its maker says.

Rule: what is returned is a reference as a record has it; nothing is written here.

Source: `watermark/spec/key-file.md`, section "Secrets".
"""

from __future__ import annotations

from pathlib import PurePath
from typing import Final

from watermark.errors import KeysConfigError
from watermark.keys.sources.vault import split_place, split_transit_place

_SUFFIXES: Final = {"file": ".key", "age": ".age", "vault-transit": ".vault"}
_REMEDY: Final = (
    "put a line NAME= with 64 random hex digits into it and give --secret env-file:PATH#NAME, or "
    "have another kind of place with --to file:FOLDER"
)


def place_beside(reference: str, stem: str) -> str:
    """Return the reference of a new secret of the same kind and in the same place as another.

    Args:
        reference: The other's.
        stem: The new key's name, safe in a path.

    Raises:
        KeysConfigError: Nothing can be written there.
    """
    scheme, _, place = reference.partition(":")
    if scheme in {"file", "age"}:
        return place_in(f"{scheme}:{PurePath(place).parent}", stem)
    if scheme == "vault":
        mount, path, field = split_place(place)
        return place_in(f"vault:{PurePath(mount, path).parent}#{field}", stem)
    if scheme == "vault-transit":
        mount, key, file = split_transit_place(place)
        return place_in(f"vault-transit:{mount}/{key}#{PurePath(file).parent}", stem)
    if scheme == "env-file":
        raise KeysConfigError(
            f"the last secret is in an env file, which whoever keeps it writes; {_REMEDY}"
        )
    raise KeysConfigError("no secret can be written beside the last one; say where with --to")


def place_in(target: str, stem: str) -> str:
    """Return the reference of a new secret in a place that its maker names.

    Args:
        target: `file:FOLDER`, `age:FOLDER`, `vault:MOUNT/FOLDER#FIELD` or
            `vault-transit:MOUNT/KEY#FOLDER`, folders as in a record.
        stem: The new key's name, safe in a path.

    Raises:
        KeysConfigError: It is none of these.
    """
    scheme, _, place = target.partition(":")
    if scheme in {"file", "age"} and place:
        return f"{scheme}:{PurePath(place, stem + _SUFFIXES[scheme])}"
    folder, _, rest = place.partition("#")
    if scheme == "vault" and folder and rest:
        return f"vault:{folder.rstrip('/')}/{stem}#{rest}"
    if scheme == "vault-transit" and folder and rest:
        return f"vault-transit:{folder}#{PurePath(rest, stem + _SUFFIXES[scheme])}"
    if scheme == "env-file":
        raise KeysConfigError(f"an env file is written by whoever keeps it; {_REMEDY}")
    raise KeysConfigError(
        f"{target!a} is no place for a secret; write file:FOLDER, age:FOLDER, "
        "vault:MOUNT/FOLDER#FIELD or vault-transit:MOUNT/KEY#FOLDER"
    )
