"""A real GGUF file of a few hundred kilobytes: two llama layers of random weights over a byte vocabulary.

It loads in real llama.cpp in milliseconds and talks nonsense, the same nonsense for the same seed:

    path = make_tiny_gguf(tmp_path / "tiny.gguf")

By hand: ``python -m tests.fakes.tiny_gguf FILE``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFWriter, TokenType

LAYERS = 2
WIDTH = 64
HEADS = 4
FEED_FORWARD = 128
CONTEXT = 256
WORDS = ("▁the", "▁a", "▁fox", "▁jumps", "▁over", "▁dog", "▁hello", "▁world", "▁", "ing", "er", "é", "ção")
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}[{{ message['role'] }}]{{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


def make_tiny_gguf(
    path: str | Path,
    *,
    seed: int = 0,
    context: int = CONTEXT,
    template: str | None = CHAT_TEMPLATE,
    never_ends: bool = False,
) -> Path:
    """Writes the file and returns its path.

    Args:
        path: where to; existing files are replaced.
        seed: of the weights.
        context: the context length it says it was trained for.
        template: its chat template; None writes none.
        never_ends: no end token is ever likely, so that answers go on until something stops them.
    """
    path = Path(path)
    random = np.random.default_rng(seed)
    tokens, scores, kinds = _vocabulary()
    writer = GGUFWriter(str(path), "llama")
    writer.add_name("tiny")
    writer.add_context_length(context)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(kinds)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    if template is not None:
        writer.add_chat_template(template)
    for name, tensor in _tensors(random, len(tokens), never_ends=never_ends).items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _vocabulary() -> tuple[list[bytes], list[float], list[int]]:
    """SentencePiece's layout: three control tokens, every byte, a few words."""
    tokens = [b"<unk>", b"<s>", b"</s>"] + [b"<0x%02X>" % byte for byte in range(256)]
    kinds = [int(TokenType.UNKNOWN), int(TokenType.CONTROL), int(TokenType.CONTROL)] + [int(TokenType.BYTE)] * 256
    scores = [0.0] * len(tokens)
    for rank, word in enumerate(WORDS):
        tokens.append(word.encode())
        kinds.append(int(TokenType.NORMAL))
        scores.append(-float(rank))
    return tokens, scores, kinds


def _tensors(random: Any, size: int, *, never_ends: bool) -> dict[str, Any]:
    def weights(*shape: int) -> Any:
        return (random.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32)

    output = weights(size, WIDTH)
    output[:3] = 0.0  # control tokens are unlikely, or answers would end at once
    if not never_ends:
        output[2] = output[3:].mean(axis=0)
    tensors = {
        "token_embd.weight": weights(size, WIDTH),
        "output_norm.weight": np.ones(WIDTH, dtype=np.float32),
        "output.weight": output * 4,
    }
    for layer in range(LAYERS):
        block = f"blk.{layer}."
        tensors[block + "attn_norm.weight"] = np.ones(WIDTH, dtype=np.float32)
        tensors[block + "ffn_norm.weight"] = np.ones(WIDTH, dtype=np.float32)
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            tensors[f"{block}{part}.weight"] = weights(WIDTH, WIDTH)
        tensors[block + "ffn_gate.weight"] = weights(FEED_FORWARD, WIDTH)
        tensors[block + "ffn_up.weight"] = weights(FEED_FORWARD, WIDTH)
        tensors[block + "ffn_down.weight"] = weights(WIDTH, FEED_FORWARD)
    return tensors


if __name__ == "__main__":
    print(make_tiny_gguf(sys.argv[1]))
