"""One loaded model behind a small interface. The only module that imports llama_cpp, and only when it loads.

Everything here blocks and runs in the provider's one worker thread.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from typing import Any, Protocol, cast

import msgspec

from hybridd.plugin import CallFailure
from plugins.llama_cpp.asked import Sampling
from plugins.llama_cpp.files import ModelFile

DEFAULT_CONTEXT = 4096
BATCH = 512
# Of the allowed video memory, what weights may take: the rest is for the KV cache and compute buffers.
WEIGHTS_SHARE = 0.75
CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


class Facts(msgspec.Struct, frozen=True):
    """What was really loaded. ``gpu_layers`` of ``layers`` are in video memory."""

    model: str
    context: int
    trained_context: int | None
    layers: int | None
    gpu_layers: int
    threads: int
    template: str

    def as_details(self) -> dict[str, Any]:
        details: dict[str, Any] = msgspec.to_builtins(self)
        return details


class Engine(Protocol):
    """What the provider needs of an engine."""

    facts: Facts

    def chat_tokens(self, messages: list[dict[str, Any]]) -> list[int]: ...

    def text_tokens(self, text: str) -> list[int]: ...

    def generate(self, tokens: list[int], sampling: Sampling, cancelled: Callable[[], bool]) -> Iterator[bytes]: ...

    def close(self) -> None: ...


def context_for(wanted: int | None, trained: int | None) -> int:
    """Never more than the model was trained for: beyond, it would answer nonsense rather than fail."""
    context = wanted if wanted is not None else min(trained or DEFAULT_CONTEXT, DEFAULT_CONTEXT)
    return min(context, trained) if trained else context


def gpu_layers_for(size: int, layers: int | None, vram_limit_mb: int | None) -> int:
    """Layers that fit the allowed video memory, by the average size of a layer; the output layer counts as one."""
    if not layers or vram_limit_mb is None:
        return 0
    fitting = int(vram_limit_mb * 1024 * 1024 * WEIGHTS_SHARE / (size / (layers + 1)))
    return max(0, min(fitting, layers + 1))


class LlamaEngine:
    """llama.cpp through llama-cpp-python."""

    def __init__(self, file: ModelFile, *, context: int | None, vram_limit_mb: int | None) -> None:
        import llama_cpp
        from llama_cpp.llama_chat_format import Jinja2ChatFormatter

        self._lib = llama_cpp
        layers = file.header.layers
        offload = llama_cpp.llama_supports_gpu_offload()
        gpu_layers = gpu_layers_for(file.size, layers, vram_limit_mb) if offload else 0
        cores = len(os.sched_getaffinity(0))
        threads = cores if cores <= 2 else cores // 2  # the other half are usually hyper-threads
        try:
            self._llama = llama_cpp.Llama(
                str(file.path),
                n_ctx=context_for(context, file.header.context),
                n_batch=BATCH,
                n_gpu_layers=gpu_layers,
                n_threads=threads,
                n_threads_batch=cores,
                verbose=False,
            )
        except (ValueError, RuntimeError) as error:
            raise CallFailure("unavailable", f"llama.cpp cannot load {file.id}: {error}", sent="no") from None
        self._vocab = llama_cpp.llama_model_get_vocab(self._llama.model)
        template = self._llama.metadata.get("tokenizer.chat_template")
        self._formatter = Jinja2ChatFormatter(
            template=template or CHATML, bos_token=self._token(self._llama.token_bos()),
            eos_token=self._token(self._llama.token_eos()),
        )  # fmt: skip
        self._add_bos = template is None
        self._buffer = ctypes.create_string_buffer(256)
        self.facts = Facts(
            file.id, self._llama.n_ctx(), file.header.context, layers, gpu_layers, threads,
            "gguf" if template else "chatml",
        )  # fmt: skip

    def chat_tokens(self, messages: list[dict[str, Any]]) -> list[int]:
        """Raises CallFailure (``bad_request``) when the model's template refuses the messages."""
        import jinja2

        try:
            prompt = self._formatter(messages=cast(Any, messages)).prompt
        except (ValueError, TypeError, KeyError, jinja2.TemplateError) as error:
            raise CallFailure(
                "bad_request", f"the chat template of {self.facts.model} refuses the messages: {error}",
                sent="no", param="messages",
            ) from None  # fmt: skip
        return self._tokenize(prompt, add_bos=self._add_bos, special=True)

    def text_tokens(self, text: str) -> list[int]:
        return self._tokenize(text, add_bos=True, special=False)

    def generate(self, tokens: list[int], sampling: Sampling, cancelled: Callable[[], bool]) -> Iterator[bytes]:
        """The bytes of each token, until the model ends. ``cancelled`` is asked before each batch of the prompt and
        before each token; then it ends early."""
        llama = self._llama
        llama.set_seed(sampling.seed if sampling.seed is not None else int.from_bytes(os.urandom(4)) % (2**32 - 1))
        # The prompt goes in batch by batch so that a cancel is heard: one step of a generator evaluates what is new of
        # its tokens (the common beginning is kept) and samples once; the sample is thrown away.
        for end in range(BATCH, len(tokens), BATCH):
            if cancelled():
                return
            next(llama.generate(tokens[:end], temp=0.0), None)
        if cancelled():
            return
        for token in llama.generate(
            tokens,
            top_k=sampling.top_k,
            top_p=sampling.top_p,
            min_p=sampling.min_p,
            temp=sampling.temperature,
            repeat_penalty=sampling.repeat_penalty,
            frequency_penalty=sampling.frequency_penalty,
            presence_penalty=sampling.presence_penalty,
        ):
            if cancelled() or self._lib.llama_vocab_is_eog(self._vocab, token):
                return
            yield self._piece(token)

    def close(self) -> None:
        self._llama.close()

    def _tokenize(self, text: str, *, add_bos: bool, special: bool) -> list[int]:
        data = text.encode("utf-8", "replace")
        tokens: list[int] = self._llama.tokenize(data, add_bos=add_bos, special=special) if data else []
        return tokens or [self._llama.token_bos()]

    def _token(self, token: int) -> str:
        text = self._lib.llama_vocab_get_text(self._lib.llama_model_get_vocab(self._llama.model), token)
        return text.decode("utf-8", "replace") if token != -1 and text else ""

    def _piece(self, token: int) -> bytes:
        size = self._lib.llama_token_to_piece(self._vocab, token, self._buffer, len(self._buffer), 0, False)
        if size < 0:  # a longer token than ever seen: llama.cpp says how long
            self._buffer = ctypes.create_string_buffer(-size)
            size = self._lib.llama_token_to_piece(self._vocab, token, self._buffer, len(self._buffer), 0, False)
        return self._buffer.raw[:size]
