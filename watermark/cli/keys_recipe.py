"""How a key changes that an engine holds: not here, but by restarting the engines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from watermark.keys.record import KeyFields

_SWITCHES: Final = {
    "vllm-gumbel": """--watermark-config '{"algorithm": "gumbel", "key": NUMBER}'""",
    "sglang-gumbel": "--enable-watermark --watermark-config engine-key.json",
    "hf-green-list": "what it is served by (the proxy sends the key with each request)",
}
_RECIPE: Final = """\
Key {key_id} is the engine's own ({scheme}), one for each process: it does not rotate
while the engine runs. To change it:

1. Draw another number, which nobody else sees:
     (umask 077; od -An -N8 -tu8 /dev/urandom > engine-key.txt)
2. Import it, still detecting only, and append the record that is printed:
     watermark keys import engine-key.txt --scheme {scheme} --id NEW --dir DIR --unit {unit}
   and add scope = "{scope}" to it.
3. Restart the engines one after another, each with the new number:
     {switch}
   Until the last one has restarted, replies carry either key; both detect, so nothing is lost.
4. When all have restarted, set state = "detect" in {key_id} and state = "marking" in
   NEW, in one edit.
5. Delete engine-key.txt.

Or let the proxy mark: `splice` with a key of its own rotates without any restart. Set
native.enabled = false for the model, start the engine without its mark, and make a key with
`watermark keys new --scope {scope}`.
"""


def engine_recipe(known: Iterable[KeyFields], scope: str) -> str:
    """Return how the engine's key of a scope is changed; empty where no engine holds one."""
    for record in known:
        if record.scope == scope and record.is_foreign and record.claims:
            return _RECIPE.format(
                key_id=record.key_id,
                scheme=record.scheme,
                unit=record.unit,
                scope=scope,
                switch=_SWITCHES[record.scheme],
            )
    return ""
