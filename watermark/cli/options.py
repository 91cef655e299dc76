"""Options that several commands share: which keys, which tokenizers, how files are read."""

from __future__ import annotations

from pathlib import Path

import click


def check_share(_ctx: click.Context, _param: click.Parameter, share: float) -> float:
    """Return a level or a rate that lies between 0 and 1."""
    if not 0.0 < share < 1.0:  # refuses NaN too
        raise click.BadParameter(f"{share} is not between 0 and 1")
    return share


keys_option = click.option(
    "--keys",
    "keys_file",
    required=True,
    type=click.Path(path_type=Path),
    metavar="KEYS.toml",
    help="The file that names the keys.",
)
key_id_option = click.option(
    "--key-id", "key_ids", multiple=True, help="Take this key only; may be repeated."
)
tokenizer_option = click.option(
    "--tokenizer",
    "tokenizers",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The tokenizer.json of a key's unit, found by its digest; may be repeated.",
)
pooled_option = click.option(
    "--pooled", is_flag=True, help="All files are one body of evidence, a reply each."
)
ids_option = click.option(
    "--ids",
    "as_ids",
    is_flag=True,
    help="Files hold unit ids, not text: a JSON array, or one a line, each a reply.",
)
