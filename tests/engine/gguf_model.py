"""A tiny model of DeepSeek's architecture (deepseek2: latent attention, routed and shared experts) as a GGUF file, of random weights.

It writes noise, one printable ASCII character a token, so that a text and its tokens are the same thing: protocol, batching, memory and
continuation are a real engine's, only the sense is missing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np

NAME = "tiny-deepseek"
LAYERS, WIDTH, HEADS = 3, 128, 4
Q_RANK, KV_RANK, ROPE, NOPE, VALUE = 48, 32, 16, 16, 16
EXPERTS, EXPERTS_USED, FEED, EXPERT_FEED = 4, 2, 8192, 128
CONTEXT = 8192
SPECIALS = ("<bos>", "<eos>", "<|User|>", "<|Assistant|>", "<think>", "</think>")
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}{{ '<|Assistant|>' + message['content'] + eos_token }}"
    "{% else %}{{ '<|User|>' + message['content'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|Assistant|>' }}{% endif %}"
)


def write(path: Path, name: str | None = NAME, architecture: str = "deepseek2", seed: int = 7) -> Path:
    """Write the model; without a name its file has none in its metadata."""
    writer = gguf.GGUFWriter(path, architecture)
    if name is not None:
        writer.add_name(name)
    _shape(writer, architecture)
    _tokenizer(writer)
    for tensor, values in _tensors(np.random.default_rng(seed)).items():
        writer.add_tensor(tensor, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _shape(writer: gguf.GGUFWriter, architecture: str) -> None:
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10_000.0)
    writer.add_rope_dimension_count(ROPE)
    writer.add_q_lora_rank(Q_RANK)
    writer.add_kv_lora_rank(KV_RANK)
    writer.add_key_length(KV_RANK + ROPE)
    writer.add_value_length(KV_RANK)
    writer.add_key_length_mla(NOPE + ROPE)
    writer.add_value_length_mla(VALUE)
    writer.add_leading_dense_block_count(1)
    writer.add_expert_count(EXPERTS)
    writer.add_expert_used_count(EXPERTS_USED)
    writer.add_expert_shared_count(1)
    writer.add_expert_feed_forward_length(EXPERT_FEED)
    writer.add_expert_weights_scale(1.0)
    writer.add_expert_weights_norm(True)
    writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)
    writer.add_vocab_size(len(_vocabulary()))


def _byte_letters() -> list[str]:
    """The letters by which byte-level vocabularies (GPT-2's) write the 256 bytes: printable ones as they are, the others from U+0100 on."""
    plain = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(byte) if byte in plain else chr(next(others)) for byte in range(256)]


def _vocabulary() -> list[str]:
    return [*_byte_letters(), *SPECIALS]


def _tokenizer(writer: gguf.GGUFWriter) -> None:
    normal, control = gguf.TokenType.NORMAL, gguf.TokenType.CONTROL
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(_vocabulary())
    writer.add_token_types([normal] * 256 + [control] * 4 + [gguf.TokenType.USER_DEFINED] * 2)
    writer.add_token_merges([f"{_byte_letters()[0]} {_byte_letters()[0]}"])  # one must be there; this one meets no text
    writer.add_bos_token_id(256)
    writer.add_eos_token_id(257)
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)


def _tensors(random: np.random.Generator) -> dict[str, Any]:
    tokens = len(_vocabulary())

    def matrix(*shape: int) -> Any:
        return (random.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32)

    def ones(size: int) -> Any:
        return np.ones(size, dtype=np.float32)

    output = np.zeros((tokens, WIDTH), dtype=np.float32)
    output[32:127] = matrix(95, WIDTH) * 8.0  # printable ASCII alone: it never ends before it is told to, and its text is its tokens
    found = {"token_embd.weight": matrix(tokens, WIDTH) * 8.0, "output_norm.weight": ones(WIDTH), "output.weight": output}
    for layer in range(LAYERS):
        block: dict[str, Any] = {
            "attn_norm.weight": ones(WIDTH),
            "attn_q_a.weight": matrix(Q_RANK, WIDTH),
            "attn_q_a_norm.weight": ones(Q_RANK),
            "attn_q_b.weight": matrix(HEADS * (NOPE + ROPE), Q_RANK),
            "attn_kv_a_mqa.weight": matrix(KV_RANK + ROPE, WIDTH),
            "attn_kv_a_norm.weight": ones(KV_RANK),
            "attn_k_b.weight": matrix(HEADS, KV_RANK, NOPE),
            "attn_v_b.weight": matrix(HEADS, VALUE, KV_RANK),
            "attn_output.weight": matrix(WIDTH, HEADS * VALUE),
            "ffn_norm.weight": ones(WIDTH),
        }
        if layer == 0:
            block |= {
                "ffn_gate.weight": matrix(FEED, WIDTH),
                "ffn_up.weight": matrix(FEED, WIDTH),
                "ffn_down.weight": matrix(WIDTH, FEED),
            }
        else:
            block |= {
                "ffn_gate_inp.weight": matrix(EXPERTS, WIDTH),
                "exp_probs_b.bias": np.zeros(EXPERTS, dtype=np.float32),
                "ffn_gate_exps.weight": matrix(EXPERTS, EXPERT_FEED, WIDTH),
                "ffn_up_exps.weight": matrix(EXPERTS, EXPERT_FEED, WIDTH),
                "ffn_down_exps.weight": matrix(EXPERTS, WIDTH, EXPERT_FEED),
                "ffn_gate_shexp.weight": matrix(EXPERT_FEED, WIDTH),
                "ffn_up_shexp.weight": matrix(EXPERT_FEED, WIDTH),
                "ffn_down_shexp.weight": matrix(WIDTH, EXPERT_FEED),
            }
        found |= {f"blk.{layer}.{name}": values for name, values in block.items()}
    return found
