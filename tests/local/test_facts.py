"""The facts of each architecture, read from files that llama.cpp really loads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from gguf import GGUFWriter

from hybridd.local.facts import ModelFacts, facts_of
from hybridd.local.gguf import BadGguf, Gguf, Tensor, open_model
from hybridd.local.sources import FileSource
from tests.fakes.model_zoo import KINDS, Zoo, make_model, sizes

WIDTH, LAYERS, VOCABULARY = 256, 4, 4096


def facts(path: Path) -> ModelFacts:
    return facts_of(open_model(path), path.stem, str(path))


@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_those_of_the_tensor_table(zoo: Zoo, kind: str) -> None:
    """Every byte of the table is in exactly one place: the input, one block, or the output."""
    path = zoo.path(kind)
    one = facts(path)
    told = sum(size for _, size in sizes(path))
    assert one.weights == told
    assert one.input_bytes + one.output_bytes + sum(layer.weights for layer in one.layers) == told


@pytest.mark.parametrize(
    ("kind", "cell", "kv_heads"),
    [
        ("llama", 2 * 4 * 32, 4),
        ("qwen2", 2 * 2 * 32, 2),
        ("qwen3", 2 * 2 * 96, 2),  # the head is 96 wide, not 256 / 8
        ("gemma3", 2 * 4 * 64, 4),
        ("moe", 2 * 4 * 32, 4),
        ("deepseek2", 128 + 32, 1),  # MLA keeps what keys and values are made of, once for all heads
    ],
)
def test_a_token_takes_what_its_keys_and_values_do(zoo: Zoo, kind: str, cell: int, kv_heads: int) -> None:
    """Head sizes are the file's own (key_length), not the width divided by the heads."""
    for layer in facts(zoo.path(kind)).layers:
        assert (layer.cell, layer.kv_heads, layer.state_bytes) == (cell, kv_heads, 0)


@pytest.mark.parametrize(
    ("kind", "windows"),
    [("gemma2", [512, 0, 512, 0]), ("gemma3", [512] * 5 + [0]), ("llama", [0] * 4), ("moe", [0] * 4)],
)
def test_layers_with_a_sliding_window_are_known(zoo: Zoo, kind: str, windows: list[int]) -> None:
    """gemma 2 alternates, gemma 3 has full attention in each sixth layer."""
    assert [layer.window for layer in facts(zoo.path(kind)).layers] == windows


@pytest.mark.parametrize("kind", ["mamba", "jamba", "granitehybrid", "lfm2"])
def test_recurrent_layers_keep_a_state_and_no_cells(zoo: Zoo, kind: str) -> None:
    """In hybrids each fourth layer attends, the others have a state for each sequence; mamba has only states."""
    one = facts(zoo.path(kind))
    attending = [bool(layer.cell) for layer in one.layers]
    assert attending == [kind != "mamba" and at % 4 == 3 for at in range(len(one.layers))]
    assert all(bool(layer.state_bytes) != attends for layer, attends in zip(one.layers, attending, strict=True))
    assert one.recurrent


def test_a_state_is_convolution_and_recurrence() -> None:
    """mamba: (kernel - 1) × inner and state × inner, as f32 (n_embd_r, n_embd_s)."""
    one = facts_of(_made({"mamba.ssm.conv_kernel": 4, "mamba.ssm.inner_size": 512, "mamba.ssm.state_size": 16,
                          "mamba.ssm.time_step_rank": 16, "mamba.attention.head_count": 0},
                         "mamba", ["blk.0.ssm_in.weight", "blk.0.ssm_conv1d.weight"]), "m", "m.gguf")  # fmt: skip
    assert one.layers[0].state_bytes == 4 * (3 * 512 + 16 * 512)


@pytest.mark.parametrize(("kind", "expected"), [("bert", "embedding"), ("nomic-bert", "embedding"), ("llama", "text")])
def test_embedding_models_are_told_apart(zoo: Zoo, kind: str, expected: str) -> None:
    """They pool, are no chat models, and keep nothing between calls."""
    one = facts(zoo.path(kind))
    assert (one.kind, one.attends, bool(one.pooling), one.has_template) == (
        expected, expected == "text", expected == "embedding", expected == "text",
    )  # fmt: skip


def test_tied_embeddings_are_one_tensor_with_two_uses(zoo: Zoo) -> None:
    """Without an output matrix the embedding table is used again, and its bytes are known."""
    tied, own = facts(zoo.path("tied")), facts(zoo.path("llama"))
    assert (tied.tied, own.tied) == (True, False)
    assert tied.embedding_bytes == own.embedding_bytes == VOCABULARY * WIDTH * 2
    assert own.output_bytes - tied.output_bytes == tied.embedding_bytes


def test_experts_are_counted(zoo: Zoo) -> None:
    """Of eight experts two are used, in layers that have them; deepseek's first layer is dense."""
    moe, deepseek = facts(zoo.path("moe")), facts(zoo.path("deepseek2"))
    assert [(layer.experts, layer.experts_used) for layer in moe.layers] == [(8, 2)] * 4
    assert [layer.experts for layer in deepseek.layers] == [0, 8, 8, 8]
    assert deepseek.layers[1].shared_feed_forward == 256


def test_facts_survive_json(zoo: Zoo) -> None:
    """What the inspecting child prints is what the daemon reads."""
    for kind in KINDS:
        one = facts(zoo.path(kind))
        assert msgspec.json.decode(msgspec.json.encode(one), type=ModelFacts) == one


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({"llama.block_count": 0}, "llama.block_count"),
        ({"llama.block_count": 100_000}, "llama.block_count"),
        ({"llama.block_count": "two"}, "llama.block_count"),
        ({"llama.attention.head_count": [4]}, "llama.attention.head_count"),
        ({"llama.attention.head_count_kv": [4, -4]}, "llama.attention.head_count_kv"),
        ({"llama.embedding_length": 2**40}, "llama.embedding_length"),
        ({"llama.embedding_length": True}, "llama.embedding_length"),
        ({"llama.context_length": None}, "llama.context_length"),
    ],
)
def test_impossible_numbers_are_refused_by_name(metadata: dict[str, Any], said: str) -> None:
    """A header that cannot be true is refused with the key that lies, never believed and never a traceback."""
    with pytest.raises(BadGguf, match=said.replace(".", r"\.")):
        facts_of(_made(metadata, "llama", ["blk.0.attn_q.weight", "blk.1.attn_q.weight"]), "m", "m.gguf")


def test_a_projector_has_no_layers(tmp_path: Path) -> None:
    """What belongs to another model is shown as that, not refused."""
    writer = GGUFWriter(str(tmp_path / "mmproj.gguf"), "clip")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    one = facts(tmp_path / "mmproj.gguf")
    assert (one.kind, one.layers) == ("projector", ())


def test_layers_that_predict_more_tokens_are_not_loaded() -> None:
    """They count where layers are offloaded, but llama.cpp skips their tensors."""
    blocks = ["blk.0.attn_q.weight", "blk.1.attn_q.weight", "blk.2.attn_q.weight"]
    one = facts_of(_made({"llama.block_count": 3, "llama.nextn_predict_layers": 1}, "llama", blocks), "m", "m.gguf")
    assert (len(one.layers), one.layers_all, one.offloadable, one.weights) == (2, 3, 4, 2 * 1024)


def test_the_same_seed_makes_the_same_file(tmp_path: Path) -> None:
    """Models of the zoo are reproducible, and differ by their seed."""
    first, second, other = (
        make_model(tmp_path / f"{at}.gguf", "qwen2", seed=seed) for at, seed in enumerate((1, 1, 2))
    )
    assert first.read_bytes() == second.read_bytes() != other.read_bytes()


def _made(metadata: dict[str, Any], architecture: str, tensors: list[str]) -> Gguf:
    """A parsed model by hand; None removes a key."""
    common = {
        "general.architecture": architecture, f"{architecture}.block_count": 1 + max(map(_block, tensors)),
        f"{architecture}.context_length": 512, f"{architecture}.embedding_length": 256,
        f"{architecture}.attention.head_count": 4,
    }  # fmt: skip
    merged: dict[str, Any] = {key: value for key, value in (common | metadata).items() if value is not None}
    json.dumps(merged)  # nothing but what a header can hold
    return Gguf(
        version=3, architecture=architecture, metadata=merged, files=("m.gguf",), file_bytes=4096,
        tensors=[Tensor(name, (16, 16), "f32", 0, 1024) for name in tensors], source=FileSource(Path(__file__)),
    )  # fmt: skip


def _block(name: str) -> int:
    return int(name.split(".")[1])
