"""A small Llama folder as a GGUF file: `python tests/support/story_gguf.py FOLDER FILE`.

For the opt-in suite against llama.cpp; needs the packages gguf and safetensors, and nothing of this
project, so that it runs in an environment of its own.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from safetensors.numpy import load_file

NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def interleaved(weights: np.ndarray, heads: int) -> np.ndarray:
    """Return query or key weights with rotary pairs next to each other, as llama.cpp has them."""
    rows, columns = weights.shape
    halves = weights.reshape(heads, 2, rows // heads // 2, columns)
    return halves.swapaxes(1, 2).reshape(rows, columns)


def add_vocabulary(writer: gguf.GGUFWriter, tokenizer: dict[str, Any]) -> None:
    """Write tokens, with the rank of their merge as their score."""
    vocab = sorted(tokenizer["model"]["vocab"].items(), key=lambda item: item[1])
    merges = ["".join(pair) for pair in tokenizer["model"]["merges"]]
    rank = {token: place for place, token in enumerate(merges)}
    special = {one["content"] for one in tokenizer["added_tokens"]}
    kinds = []
    for token, _ in vocab:
        if token == "<unk>":  # noqa: S105 - a word of the vocabulary
            kinds.append(gguf.TokenType.UNKNOWN)
        elif token in special:
            kinds.append(gguf.TokenType.CONTROL)
        elif token.startswith("<0x"):
            kinds.append(gguf.TokenType.BYTE)
        else:
            kinds.append(gguf.TokenType.NORMAL)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([token.encode() for token, _ in vocab])
    writer.add_token_scores([-float(rank.get(token, len(rank))) for token, _ in vocab])
    writer.add_token_types(kinds)


def main(folder: Path, target: Path) -> None:
    """Convert a folder."""
    config = json.loads((folder / "config.json").read_text())
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    writer = gguf.GGUFWriter(str(target), "llama")
    writer.add_name("story")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_rope_dimension_count(config["hidden_size"] // heads)
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_file_type(0)
    add_vocabulary(writer, json.loads((folder / "tokenizer.json").read_text()))
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    weights = {k: v.astype(np.float32) for k, v in load_file(folder / "model.safetensors").items()}
    writer.add_tensor("token_embd.weight", weights["model.embed_tokens.weight"])
    writer.add_tensor("output_norm.weight", weights["model.norm.weight"])
    head = weights.get("lm_head.weight", weights["model.embed_tokens.weight"])
    writer.add_tensor("output.weight", head)
    for layer in range(config["num_hidden_layers"]):
        for theirs, ours in NAMES.items():
            value = weights[f"model.layers.{layer}.{theirs}.weight"]
            if ours in ("attn_q", "attn_k"):
                value = interleaved(value, heads if ours == "attn_q" else kv_heads)
            writer.add_tensor(f"blk.{layer}.{ours}.weight", np.ascontiguousarray(value))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
