"""Small random GGUF models of many architectures; each really loads in llama.cpp and talks nonsense.

    path = make_model(tmp_path / "m.gguf", "qwen3", layers=4, vocabulary=8192)
    path = Zoo(folder).path("gemma3", window=256)  # made once, then taken from the folder

The tensors and keys are what llama.cpp's ``src/models/*.cpp`` ask for (``load_arch_hparams``, ``load_arch_tensors``).
By hand: ``python -m tests.fakes.model_zoo FILE [KIND]``. The same seed gives the same file.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter

from tests.fakes.tiny_gguf import CHAT_TEMPLATE
from tests.fakes.zoo_layers import MODELS, Shape
from tests.fakes.zoo_vocabulary import add_vocabulary

KINDS = tuple(MODELS)
_ALWAYS_F32 = ("conv", "ssm_a", "ssm_d", "ssm_norm", "gate_inp", "token_types", "position_embd")
# block: weights in one block, bytes of its f16 scale in front; the rest are random quants
_QUANTIZED = {"q8_0": (GGMLQuantizationType.Q8_0, 32, 34, 64.0), "q4_0": (GGMLQuantizationType.Q4_0, 32, 18, 4.0)}


def make_model(
    path: str | Path,
    kind: str = "llama",
    *,
    seed: int = 0,
    weights: str = "f16",
    template: str | None = CHAT_TEMPLATE,
    never_ends: bool = False,
    name: str = "",
    **scale: Any,
) -> Path:
    """Writes a model and returns its path; an existing file is replaced at once, never seen half written.

    Args:
        path: where to.
        kind: one of :data:`KINDS`.
        seed: of the weights.
        weights: type of the matrices: ``f32``, ``f16``, ``q8_0``, ``q4_0``; rows that are no multiple of 32 stay f16.
        template: its chat template; None (and every embedding model) writes none.
        never_ends: no end token is ever likely.
        name: ``general.name``; by default the kind.
        scale: fields of :class:`tests.fakes.zoo_layers.Shape` (``layers``, ``width``, ``heads``, ``kv_heads``,
            ``head``, ``feed_forward``, ``vocabulary``, ``context``, ``window``, ``experts``, …).
    """
    path = Path(path)
    model = MODELS[kind]
    shape = Shape(**{**model.shape, **scale})
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    writer = GGUFWriter(str(partial), model.architecture)
    writer.add_name(name or kind)
    for key, value in model.metadata(shape):
        _add(writer, f"{model.architecture}.{key}", value)
    add_vocabulary(writer, shape.vocabulary, words=model.vocabulary)
    if template is not None and model.vocabulary == "llama":
        writer.add_chat_template(template)
    random = np.random.default_rng(seed)
    for tensor, dimensions in model.tensors(shape):
        data, kind_of = _weights(random, tensor, dimensions, weights)
        if tensor == ("output.weight" if model.untied else "token_embd.weight"):
            _quieten(data, kind_of, dimensions, 3 if never_ends else 2)
        writer.add_tensor(tensor, data, raw_dtype=kind_of)
    writer.add_file_type({"f32": 0, "f16": 1, "q4_0": 2, "q8_0": 7}[weights])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    partial.replace(path)
    return path


class Zoo:
    """Models of a folder, each made the first time it is asked for; safe between processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, kind: str = "llama", **options: Any) -> Path:
        told = "".join(f"-{key}={value}" for key, value in sorted(options.items()) if key != "template")
        path = self.folder / f"{kind}{told}.gguf"
        return path if path.exists() else make_model(path, kind, **options)


def _add(writer: GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    else:
        writer.add_array(key, list(value))


def _weights(random: Any, name: str, dimensions: tuple[int, ...], kind: str) -> tuple[Any, GGMLQuantizationType]:
    """``dimensions`` in numpy's order: rows of ``dimensions[-1]`` inputs."""
    if not _is_matrix(name, dimensions):
        return _vector(random, name, dimensions), GGMLQuantizationType.F32
    scale = 1 / np.sqrt(dimensions[-1])
    if kind in _QUANTIZED and dimensions[-1] % _QUANTIZED[kind][1] == 0:
        made, weights, size, spread = _QUANTIZED[kind]
        blocks = random.integers(0, 256, (int(np.prod(dimensions)) // weights, size), dtype=np.uint8)
        blocks[:, :2] = np.frombuffer(np.float16(scale / spread).tobytes(), dtype=np.uint8)
        return blocks.reshape(*dimensions[:-1], dimensions[-1] // weights * size), made
    data = random.standard_normal(dimensions, dtype=np.float32) * np.float32(scale)
    if kind == "f32":
        return data, GGMLQuantizationType.F32
    return data.astype(np.float16), GGMLQuantizationType.F16


def _is_matrix(name: str, dimensions: tuple[int, ...]) -> bool:
    """What llama.cpp's converters quantize; it adds or convolves the others, which must be f32."""
    return len(dimensions) > 1 and not any(part in name for part in _ALWAYS_F32)


def _vector(random: Any, name: str, dimensions: tuple[int, ...]) -> Any:
    """Norms are ones, biases small, a state's decay negative, the rest random."""
    if "norm" in name and name.endswith(".weight"):
        return np.ones(dimensions, dtype=np.float32)
    if name.endswith("ssm_a"):
        return -np.ones(dimensions, dtype=np.float32)
    return (random.standard_normal(dimensions) * 0.1).astype(np.float32)


def _quieten(data: Any, kind: GGMLQuantizationType, dimensions: tuple[int, ...], count: int) -> None:
    """Makes the control tokens at the front unlikely, or answers would end at once."""
    if kind in (GGMLQuantizationType.Q8_0, GGMLQuantizationType.Q4_0):
        rows = data.reshape(dimensions[0], -1, 34 if kind == GGMLQuantizationType.Q8_0 else 18)
        rows[:count, :, :2] = np.frombuffer(np.float16(1e-4).tobytes(), dtype=np.uint8)
    else:
        data[:count] *= 0.01


def sizes(path: Path) -> Iterator[tuple[str, int]]:
    """Names and bytes of a file's tensors, by the reference reader."""
    from gguf import GGUFReader

    for tensor in GGUFReader(path).tensors:
        yield tensor.name, int(tensor.n_bytes)


if __name__ == "__main__":
    print(make_model(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "llama"))
