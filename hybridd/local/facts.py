"""What a model's header says that planning, loading and showing need; sizes of weights come from its tensors.

The keys are those of llama.cpp's ``llama_model_base::load_hparams`` and of each architecture's ``load_arch_hparams``
(``src/llama-model.cpp``, ``src/models/*.cpp``); which tensor lives in which layer is ``LLM_TENSOR_INFOS``
(``src/llama-arch.cpp``).
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from hybridd.local import quantization
from hybridd.local.facts_keys import Keys
from hybridd.local.facts_layers import LayerFacts, StateFacts, group, layers_of, state_of
from hybridd.local.gguf import Gguf

Kind = Literal["text", "embedding", "projector", "other"]

# llama_model::create_memory gives these no memory at all: each call sees only its own tokens.
NO_MEMORY = frozenset({
    "bert", "jina-bert-v2", "jina-bert-v3", "nomic-bert", "nomic-bert-moe", "neo-bert", "eurobert", "wavtokenizer-dec",
    "modern-bert", "gemma-embedding", "dream", "llada", "llada-moe", "rnd1",
})  # fmt: skip
_OTHER = frozenset({"wavtokenizer-dec", "qwen3tts", "pockettts"})
_PROJECTORS = ("clip", "mmproj")
_POOLING = {0: "none", 1: "mean", 2: "cls", 3: "last", 4: "rank"}


class ModelFacts(Struct, frozen=True, kw_only=True):
    """One model. Sizes in bytes, lengths in tokens or elements.

    ``bytes``: of all its files; ``weights``: of all tensors that are loaded. ``input_bytes``: tensors that llama.cpp
    always keeps on the host (the embedding table); ``output_bytes``: the output layer, which counts as one more layer
    to offload; ``tied``: the output reuses the embedding table of ``embedding_bytes``, so that a GPU needs a second
    copy of it. ``attends``: it keeps a KV cache or a state between calls. ``pooling``: of an embedding model.
    """

    id: str
    path: str
    files: tuple[str, ...] = ()
    bytes: int = 0
    architecture: str = ""
    name: str = ""
    quantization: str = ""
    kind: Kind = "text"
    parameters: int = 0
    trained_context: int = 0
    layers: tuple[LayerFacts, ...] = ()
    layers_all: int = 0
    """With the layers for predicting several tokens, which are counted when layers are offloaded but not loaded."""
    embedding_length: int = 0
    embedding_output: int = 0
    vocabulary: int = 0
    weights: int = 0
    input_bytes: int = 0
    output_bytes: int = 0
    embedding_bytes: int = 0
    embedding_type: str = ""
    output_type: str = ""
    tied: bool = False
    state: StateFacts | None = None
    mla: bool = False
    experts: int = 0
    experts_used: int = 0
    per_layer_embedding: int = 0
    causal: bool = True
    attends: bool = True
    pooling: str = ""
    softcap: bool = False
    final_softcap: bool = False
    learned_positions: bool = False
    has_template: bool = False

    @property
    def offloadable(self) -> int:
        """Layers that llama.cpp's ``n_gpu_layers`` counts: the blocks and the output layer."""
        return self.layers_all + 1

    @property
    def recurrent(self) -> bool:
        return any(layer.state_bytes for layer in self.layers)

    @property
    def window(self) -> int:
        """The longest sliding window of its layers, 0 when there is none."""
        return max((layer.window for layer in self.layers), default=0)


def facts_of(gguf: Gguf, model_id: str, path: str) -> ModelFacts:
    """The facts of a parsed model.

    Raises:
        BadGguf: a key that its architecture needs is missing or cannot be true.
    """
    keys = Keys(gguf)
    kind = _kind(keys)
    common = _common(gguf, keys, kind, model_id, path)
    if kind in ("projector", "other") and not keys.has("block_count"):
        return common
    return _with_layers(common, gguf, keys)


def _common(gguf: Gguf, keys: Keys, kind: Kind, model_id: str, path: str) -> ModelFacts:
    elements = [_elements(tensor.shape) for tensor in gguf.tensors]
    by_type: dict[str, int] = {}
    for tensor, count in zip(gguf.tensors, elements, strict=True):
        by_type[tensor.type] = by_type.get(tensor.type, 0) + count
    return ModelFacts(
        id=model_id,
        path=path,
        files=gguf.files,
        bytes=gguf.file_bytes,
        architecture=gguf.architecture,
        name=keys.text("general.name"),
        quantization=quantization.of_model(gguf.metadata.get("general.file_type"), by_type.items(), path),
        kind=kind,
        parameters=sum(elements),
        weights=sum(tensor.nbytes for tensor in gguf.tensors),
        has_template="tokenizer.chat_template" in gguf.metadata,
    )


def _with_layers(common: ModelFacts, gguf: Gguf, keys: Keys) -> ModelFacts:
    groups = group(gguf.tensors, keys)
    embedding = groups.named.get("token_embd.weight")
    output = groups.named.get("output.weight")
    tied = output is None and embedding is not None and common.kind == "text"
    layers = layers_of(keys, groups)
    width = keys.number("embedding_length")
    return replace(
        common,
        weights=groups.input + groups.output + sum(layer.weights for layer in layers),
        trained_context=keys.number("context_length"),
        layers=layers,
        layers_all=keys.number("block_count"),
        embedding_length=width,
        embedding_output=keys.number("embedding_length_out", width),
        vocabulary=embedding.shape[1] if embedding and len(embedding.shape) > 1 else keys.number("vocab_size", 0),
        input_bytes=groups.input,
        output_bytes=groups.output,
        embedding_bytes=embedding.nbytes if embedding else 0,
        embedding_type=embedding.type if embedding else "",
        output_type=output.type if output else embedding.type if tied and embedding else "",
        tied=tied,
        state=state_of(keys),
        mla=keys.has("attention.key_length_mla"),
        experts=keys.number("expert_count", 0),
        experts_used=max(layer.experts_used for layer in layers),
        per_layer_embedding=keys.number("embedding_length_per_layer_input", 0),
        causal=keys.flag("attention.causal", default=True),
        attends=common.architecture not in NO_MEMORY,
        pooling=_POOLING.get(keys.number("pooling_type", -1), ""),
        softcap=common.architecture == "gemma2" or keys.has("attn_logit_softcapping"),
        final_softcap=keys.has("final_logit_softcapping"),
        learned_positions="position_embd.weight" in groups.named,
    )


def _kind(keys: Keys) -> Kind:
    architecture = keys.architecture
    if architecture in _PROJECTORS or keys.text("general.type") in _PROJECTORS:
        return "projector"
    if architecture in _OTHER or keys.text("general.type") in ("adapter", "imatrix", "vocab"):
        return "other"
    if (architecture in NO_MEMORY and keys.has("pooling_type")) or keys.number("pooling_type", 0) > 0:
        return "embedding"
    if architecture in {"bert", "nomic-bert", "gemma-embedding", "modern-bert", "t5encoder", "llama-embed"}:
        return "embedding"
    return "text"


def _elements(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count
