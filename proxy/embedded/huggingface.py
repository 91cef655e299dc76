"""A Hugging Face model folder, through transformers.

With `folder_session`, the only files that need torch. Batched arithmetic in single precision
differs in the last digits with the batch; loading compares a ragged batch with plain forward passes
and refuses a model whose attention does not follow.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer

from proxy.embedded.folder_session import FolderSession
from proxy.embedded.language_model import TokenRow
from proxy.embedded.model_folder import context_limit, end_ids, read_json, start_id
from proxy.embedded.prompts import encode_text, join_messages
from proxy.errors import ModelFolderError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from proxy.embedded.language_model import ChatMessage

_SELF_CHECK_TOLERANCE: Final = 1e-2


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderModel:
    """A model folder (see `proxy.embedded.language_model.LanguageModel`)."""

    name: str
    tokenizer: Tokenizer
    tokenizer_path: Path
    vocab_size: int
    end_ids: frozenset[int]
    context_limit: int
    start_id: int | None
    network: Any = field(repr=False)
    template: Any = field(default=None, repr=False)

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Return the ids of `text`, after the start token if asked and the model has one."""
        start = self.start_id if add_special_tokens else None
        return encode_text(self.tokenizer, text, start_id=start)

    def render_chat(
        self,
        messages: Sequence[ChatMessage],
        *,
        add_generation_prompt: bool,
        continue_final_message: bool,
    ) -> str:
        """Return the conversation by the folder's chat template, or its contents joined."""
        places = {
            "add_generation_prompt": add_generation_prompt,
            "continue_final_message": continue_final_message,
        }
        if self.template is None:
            return join_messages(messages, **places)
        entries = [{"role": message.role, "content": message.content} for message in messages]
        text: str = self.template.apply_chat_template(entries, tokenize=False, **places)
        return text

    def encode_chat(
        self,
        messages: Sequence[ChatMessage],
        *,
        add_generation_prompt: bool,
        continue_final_message: bool,
    ) -> list[int]:
        """Return the ids of the rendered conversation; a template writes its own start token."""
        text = self.render_chat(
            messages,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
        )
        return self.encode(text, add_special_tokens=self.template is None)

    def open_session(self) -> FolderSession:
        """Return the model ready to work."""
        return FolderSession(self.network, context_limit=self.context_limit)


def load_folder(
    folder: Path, *, trust_remote_code: bool = False, device: str = "cpu"
) -> FolderModel:
    """Return the model in a folder, in single precision.

    Args:
        folder: Has config.json, tokenizer.json and the weights.
        trust_remote_code: Run Python code that the folder brings along.
        device: A torch device.

    Raises:
        ModelFolderError: The folder is incomplete, needs trust, or its model cannot be batched.
    """
    config = read_json(folder / "config.json")
    if "auto_map" in config and not trust_remote_code:
        raise ModelFolderError(
            f"{folder.name} brings Python code of its own; read it, then pass --trust-remote-code"
        )
    tokenizer_path = folder / "tokenizer.json"
    if not tokenizer_path.is_file():
        raise ModelFolderError(
            f"{folder.name} has no tokenizer.json; save its fast tokenizer there"
        )
    transformers.utils.logging.disable_progress_bar()  # Standard error is for messages.
    try:
        network = transformers.AutoModelForCausalLM.from_pretrained(
            folder,
            trust_remote_code=trust_remote_code,
            local_files_only=True,
            dtype=torch.float32,
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelFolderError(f"{folder.name} cannot be loaded: {error}") from error
    network = network.to(device).eval()
    options = read_json(folder / "tokenizer_config.json")
    tokenizer = Tokenizer.from_file(str(tokenizer_path))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    model = FolderModel(
        name=folder.resolve().name,
        tokenizer=tokenizer,
        tokenizer_path=tokenizer_path,
        vocab_size=int(network.config.vocab_size),
        end_ids=end_ids(config, read_json(folder / "generation_config.json")),
        context_limit=context_limit(folder, config),
        start_id=start_id(tokenizer, options),
        network=network,
        template=_template(folder, options, trust_remote_code=trust_remote_code),
    )
    _self_check(model)
    return model


def _template(folder: Path, options: dict[str, Any], *, trust_remote_code: bool) -> Any:  # noqa: ANN401
    if "chat_template" not in options and not (folder / "chat_template.jinja").is_file():
        return None
    return transformers.AutoTokenizer.from_pretrained(
        folder, trust_remote_code=trust_remote_code, local_files_only=True
    )


def _self_check(model: FolderModel) -> None:
    """Refuse a model whose batched logits are not those of plain forward passes."""
    session = model.open_session()
    ids = [(7 * place) % model.vocab_size for place in range(min(24, model.context_limit - 1))]
    rows = [TokenRow(tokens=ids[: len(ids) // part]) for part in (1, 2, 4)]
    batched = [session.logits(rows)]
    for row in rows:
        row.tokens.append(1)
    batched.append(session.logits(rows))
    for row, first, second in zip(rows, *batched, strict=True):
        with torch.inference_mode():
            plain = model.network(input_ids=torch.tensor([row.tokens], device=model.network.device))
        wanted = plain.logits[0, -2:].to(device="cpu", dtype=torch.float64).numpy()
        if not np.allclose([first, second], wanted, atol=_SELF_CHECK_TOLERANCE):
            raise ModelFolderError(
                f"{model.name}'s attention does not follow positions in a padded batch; "
                "serve it with its own engine"
            )
