"""Known hosts and default roles, as data.

A preset fills in ``base_url``, the header ``dialect`` and the usual name of the key's variable; everything written in
the configuration wins over it. Limits are not part of a preset: they differ by plan and change, hosts report them in
their headers, and the configuration can state them.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

import msgspec

# How the host reports limits and errors, understood by plugins/openai_compatible.
Dialect = Literal["openai", "cerebras", "gemini", "openrouter", "hugging_face", "ollama", "local"]

BUNDLED_PLUGINS = frozenset({"openai_compatible", "github_models", "llama_cpp", "specialists"})


class Preset(msgspec.Struct, frozen=True):
    """``base_url`` None: it holds the account's own host name and must be given. ``key_env``: the variable the host's
    own documentation uses; None: no key is needed."""

    base_url: str | None
    dialect: Dialect
    key_env: str | None
    note: str
    headers: dict[str, str] = {}


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "openai": Preset("https://api.openai.com/v1", "openai", "OPENAI_API_KEY", "OpenAI"),
        "foundry": Preset(
            None,
            "openai",
            "AZURE_OPENAI_API_KEY",
            "Microsoft Foundry: base_url is `https://<resource>.openai.azure.com/openai/v1`",
        ),
        "azure": Preset(
            None,
            "openai",
            "AZURE_OPENAI_API_KEY",
            "another name of foundry",
        ),
        "gemini": Preset(
            "https://generativelanguage.googleapis.com/v1beta/openai",
            "gemini",
            "GEMINI_API_KEY",
            "Gemini's OpenAI-compatible endpoint; no limit headers, retry hints in the error body",
        ),
        "groq": Preset("https://api.groq.com/openai/v1", "openai", "GROQ_API_KEY", "Groq"),
        "cerebras": Preset(
            "https://api.cerebras.ai/v1", "cerebras", "CEREBRAS_API_KEY", "limit headers by day and by minute"
        ),
        "mistral": Preset("https://api.mistral.ai/v1", "openai", "MISTRAL_API_KEY", "Mistral"),
        "openrouter": Preset(
            "https://openrouter.ai/api/v1", "openrouter", "OPENROUTER_API_KEY", "errors may arrive inside a 200"
        ),
        "nvidia": Preset("https://integrate.api.nvidia.com/v1", "openai", "NVIDIA_API_KEY", "NVIDIA NIM"),
        "deepseek": Preset("https://api.deepseek.com/v1", "openai", "DEEPSEEK_API_KEY", "DeepSeek"),
        "hugging_face": Preset(
            "https://router.huggingface.co/v1",
            "hugging_face",
            "HF_TOKEN",
            "Inference Providers; a monthly credit, 402 when it is used up",
        ),
        "vllm": Preset("http://127.0.0.1:8000/v1", "local", None, "vLLM on this machine or the local network"),
        "llama_server": Preset("http://127.0.0.1:8080/v1", "local", None, "llama.cpp's llama-server"),
        "ollama": Preset("http://127.0.0.1:11434/v1", "ollama", None, "Ollama's OpenAI-compatible endpoint"),
    }
)

# Default limits of the legacy providers (mission, "Limits and alerts that ship as defaults").
GITHUB_REQUESTS_PER_HOUR = 5_000
GITHUB_USD_PER_REQUEST = 0.002
HUB_DOWNLOADS_PER_MONTH = 10_000
HUB_UPLOAD_BYTES_PER_MONTH = 5_000 * 1_000_000
HUB_DOWNLOADS = "hub:downloads"
HUB_UPLOADS = "hub:uploads"


class Role(msgspec.Struct, frozen=True):
    """One row of the default routing table. ``order`` lists the roles; ``users`` stands for every provider the user has
    configured. ``github`` and ``hugging_face`` are the models those roles use unless ``preferred_models`` says
    otherwise."""

    order: tuple[Literal["github", "users", "specialists", "hugging_face", "local"], ...]
    github: str
    hugging_face: str
    specialist: str = "*"


# Hugging Face's documented endpoint speaks chat only, so its classifying roles are filled by a small instruct model
# rather than by DistilBERT or RoBERTa themselves; `hugging_face.preferred_models` names another.
_SMALL_LLM = "meta-llama/Llama-3.1-8B-Instruct"
ROLES: Mapping[str, Role] = MappingProxyType(
    {
        "code_generation": Role(
            ("github", "users", "hugging_face", "local"), "copilot-chat", "Qwen/Qwen2.5-Coder-32B-Instruct"
        ),
        "text_classification": Role(
            ("github", "users", "specialists", "hugging_face", "local"), "copilot-chat", _SMALL_LLM
        ),
        "text_generation": Role(("github", "users", "hugging_face", "local"), "gpt-4o-mini", _SMALL_LLM),
        "sentiment_analysis": Role(
            ("specialists", "hugging_face", "github", "users", "local"), "gpt-4o-mini", _SMALL_LLM, "sentiment"
        ),
    }
)
# For a task that only `preferred_models` names.
OTHER_ROLE = Role(("github", "users", "hugging_face", "local"), "gpt-4o-mini", _SMALL_LLM)
