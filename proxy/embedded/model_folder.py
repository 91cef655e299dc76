"""What a Hugging Face model folder says about its model, in its JSON files."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from proxy.errors import ModelFolderError

if TYPE_CHECKING:
    from pathlib import Path

    from tokenizers import Tokenizer


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a file; an empty one where there is no file.

    Raises:
        ModelFolderError: The file is damaged.
    """
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ModelFolderError(f"{path.name} cannot be read; fetch the folder again") from error
    return content if isinstance(content, dict) else {}


def end_ids(*configs: dict[str, Any]) -> frozenset[int]:
    """Return every token that one of the configurations says ends a text."""
    ids: set[int] = set()
    for config in configs:
        end = config.get("eos_token_id")
        ids.update(end if isinstance(end, list) else [] if end is None else [end])
    return frozenset(ids)


def start_id(tokenizer: Tokenizer, options: dict[str, Any]) -> int | None:
    """Return the token that starts a document, or None where there is none or it is not wanted."""
    token = options.get("bos_token")
    content = token.get("content") if isinstance(token, dict) else token
    if not content or options.get("add_bos_token") is False:
        return None
    return tokenizer.token_to_id(content)


def context_limit(folder: Path, config: dict[str, Any]) -> int:
    """Return how many tokens prompt and reply may have together.

    Raises:
        ModelFolderError: The configuration does not say.
    """
    for name in ("max_position_embeddings", "n_positions", "max_seq_len"):
        if isinstance(config.get(name), int):
            limit: int = config[name]
            window = config.get("sliding_window")
            # Padding can double distances in a batch, so a window counts half.
            return min(limit, window // 2) if isinstance(window, int) and window else limit
    raise ModelFolderError(f"{folder.name}'s config.json names no max_position_embeddings")
