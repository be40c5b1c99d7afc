"""The settings, as nested models with a docstring under every field (the configuration reference is made from them).

This module only describes; :mod:`hybridd.config.loader` reads files and names mistakes, and
:mod:`hybridd.config.resolve` turns settings into the plain provider, task and quota values the daemon works with.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from hybridd.contracts.quotas import Unit

NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, validate_default=True, allow_inf_nan=False)


class KeyReference(Section):
    """Where a key is found; exactly one member. The key itself never stands in the configuration."""

    env: str | None = None
    """Name of an environment variable."""
    file: str | None = None
    """Path of a file that holds the key alone."""
    credential: str | None = None
    """Name of a systemd credential (``LoadCredential=``)."""
    command: list[str] | None = None
    """Program and arguments that print the key, for example ``["gh", "auth", "token"]``."""

    @model_validator(mode="after")
    def _exactly_one(self) -> KeyReference:
        given = [name for name in ("env", "file", "credential", "command") if getattr(self, name)]
        if len(given) != 1:
            raise ValueError("exactly one of env, file, credential, command is needed")
        return self


class PriceSettings(Section):
    """What a model costs, in US dollars."""

    input_per_million_usd: NonNegative = 0.0
    """US dollars for a million input tokens."""
    output_per_million_usd: NonNegative = 0.0
    """US dollars for a million output tokens."""
    per_request_usd: NonNegative = 0.0
    """US dollars for each request."""
    cached_input_per_million_usd: NonNegative | None = None
    """US dollars for a million input tokens that the provider served from its own cache; absent: as fresh ones."""
    as_of: str | None = None
    """The date of the price (YYYY-MM-DD), shown with it."""


class ModelSettings(Section):
    """One model of a provider."""

    context: Annotated[int, Field(gt=0)] | None = None
    """Context length in tokens, prompt and answer together."""
    max_output: Annotated[int, Field(gt=0)] | None = None
    """The most tokens the model will answer with."""
    price: PriceSettings | None = None
    """Price; a model without one is infeasible under a ``usd`` quota."""
    tasks: list[str] = []
    """Tasks the model is meant for (used by ``provider:*``)."""


class QuotaSettings(Section):
    """One limit of a provider's account."""

    unit: Unit
    """What is counted."""
    limit: NonNegative
    """The provider's limit, in the unit (``usd`` in dollars)."""
    window: Annotated[str, Field(pattern=r"^([1-9][0-9]{0,8}s|hour|day|month)$")] | None = None
    """``"<n>s"`` (rolling) or ``hour``, ``day``, ``month`` (calendar, in ``zone``). Not used by ``concurrent``."""
    buffer: NonNegative = 0
    """Kept free: own traffic stops at ``limit - buffer``."""
    model: str | None = None
    """Binds this model only; absent: the whole account."""
    models: list[str] | None = None
    """A pool: these models share the limit."""
    zone: str = "UTC"
    """Time zone of a calendar window."""
    counted: Literal["end", "arrival"] = "end"
    """``arrival`` frees an amount one window after the first byte, for providers known to count arrivals."""

    @model_validator(mode="after")
    def _consistent(self) -> QuotaSettings:
        if (self.unit == "concurrent") != (self.window is None):
            raise ValueError("a window is needed for every unit but concurrent, which has none")
        if self.model is not None and self.models is not None:
            raise ValueError("model and models exclude each other")
        if self.buffer > self.limit:
            raise ValueError(f"buffer {self.buffer:g} is larger than limit {self.limit:g}")
        return self


class ProviderSettings(Section):
    """One provider: an account at a host, served by a plugin."""

    plugin: str
    """A bundled plugin (``openai_compatible``, ``github_models``, ``llama_cpp``, ``specialists``) or a name for your
    own together with ``command``."""
    command: list[str] | None = None
    """Program and arguments of your own plugin; absent for bundled ones and for plugins that connect by themselves."""
    env: list[str] = []
    """Names of environment variables passed on to the plugin (beyond the basics, nothing else of the environment
    is)."""
    enabled: bool = True
    """False: kept in the configuration, never used."""
    preset: str | None = None
    """A known host: base URL, header dialect and quotas are filled in from it."""
    base_url: str | None = None
    """The host's API root, for example ``http://127.0.0.1:9000/v1``."""
    api_key: KeyReference | None = None
    """Where the key is found; absent: the variable the preset names, and without a preset no key is sent."""
    account: str | None = None
    """Providers with the same account share its quotas; absent: the provider's own name."""
    models: dict[str, ModelSettings] = {}
    """Models with context and price; models the host lists by itself are added."""
    quotas: list[QuotaSettings] = []
    """The account's limits."""
    timeout_seconds: Annotated[float, Field(gt=0)] = 60.0
    """The longest one attempt may take."""
    connect_timeout_seconds: Annotated[float, Field(gt=0)] = 5.0
    """The longest a connection may take to open."""
    headers: dict[str, str] = {}
    """Headers added to every request (never a key)."""
    start: Literal["eager", "on_demand"] = "eager"
    """``on_demand`` starts the plugin at the first call that needs it."""
    idle_stop_seconds: NonNegative | None = None
    """Stops the plugin after that many seconds without a call; absent: it stays."""
    options: dict[str, Any] = {}
    """Free settings for the plugin."""


class TaskSettings(Section):
    """A task with defaults."""

    candidates: list[str]
    """``provider:model`` in order of preference; ``provider:*`` means every model of the provider."""
    system_prompt: str | None = None
    """Put first when the caller sends no system message."""
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    """Used when the caller gives none."""
    max_tokens: Annotated[int, Field(gt=0)] | None = None
    """Used when the caller gives none."""
    timeout_seconds: Annotated[float, Field(gt=0)] | None = None
    """The time budget of the whole request, fallbacks included."""


class GithubModelsSettings(Section):
    """The legacy section of the provider ``github_models``."""

    enabled: bool = True
    """False: the provider is not used."""
    rate_limit_buffer: Annotated[int, Field(ge=0)] = 100
    """Requests of the 5,000 an hour that are kept free."""
    preferred_models: dict[str, str] = {
        "text_classification": "copilot-chat",
        "code_generation": "copilot-chat",
        "text_generation": "gpt-4o-mini",
    }
    """Task to model: that model comes first for the task unless ``tasks`` names the task."""
    api_key: KeyReference | None = None
    """Where the token is found; absent: ``GITHUB_TOKEN``, then ``gh auth token`` when the program is there."""
    base_url: str = "https://models.github.ai"
    """API root of the (retired) inference service."""
    rate_limit_url: str = "https://api.github.com/rate_limit"
    """Where the account's hourly limit is read, unmetered."""


class HuggingFaceSettings(Section):
    """The legacy section of the provider ``hugging_face``."""

    enabled: bool = True
    """False: the provider is not used."""
    cache_dir: str = "logs/ml_cache"
    """Holds Hub downloads; GGUF files found there can be served by ``local``."""
    download_limit_buffer: Annotated[int, Field(ge=0)] = 1000
    """Downloads of the monthly 10,000 that are kept free."""
    upload_limit_buffer: Annotated[int, Field(ge=0)] = 500
    """Megabytes of the monthly 5,000 MB of uploads that are kept free."""
    api_key: KeyReference | None = None
    """Where the token is found; absent: ``HF_TOKEN``, then the Hub client's own token file."""
    base_url: str = "https://router.huggingface.co/v1"
    """API root of Inference Providers."""
    bill_to: str | None = None
    """Organisation that pays (``X-HF-Bill-To``)."""
    monthly_credit_usd: NonNegative = 0.10
    """Included inference credit a month (Free 0.10, PRO 2.00)."""
    models: dict[str, ModelSettings] = {}
    """Models with context and price."""
    preferred_models: dict[str, str] = {}
    """Task to model: that model comes first among this provider's for the task."""


class AlertThresholds(Section):
    """When to warn."""

    github_requests: Annotated[int, Field(ge=0)] = 100
    """Warn when fewer GitHub requests are left."""
    hf_downloads: Annotated[int, Field(ge=0)] = 1000
    """Warn when fewer Hugging Face downloads are left."""
    hf_uploads_mb: NonNegative = 500
    """Warn when fewer megabytes of Hugging Face uploads are left."""
    local_latency_seconds: NonNegative = 180
    """Warn when the median latency of local models is above this."""
    paid_usd_per_hour: NonNegative = 5
    """Warn when more than this is spent within an hour."""


class MonitoringSettings(Section):
    """The checks every few seconds."""

    enabled: bool = True
    """False: no checks, no alerts, no samples."""
    check_interval_seconds: Annotated[float, Field(gt=0)] = 30
    """Seconds between two checks."""
    alert_thresholds: AlertThresholds = AlertThresholds()
    """When to warn."""
    retention_days: Annotated[int, Field(gt=0)] = 90
    """Requests, calls, samples, feedback and resolved alerts older than this are deleted; rollups by day stay."""


class OptimizationSettings(Section):
    """How the router may help itself."""

    auto_fallback: bool = True
    """False: the first provider's error is returned; nothing else is tried."""
    cost_optimization: bool = True
    """True: ``provider:*`` and ``auto`` order equal candidates by price; False: in the order given."""
    local_cache_enabled: bool = True
    """Answers to identical, deterministic requests (temperature 0 or a seed) come from memory."""
    cache_ttl_seconds: NonNegative = 3600
    """How long a cached answer lives."""
    cache_max_mb: NonNegative = 16
    """Memory for cached answers."""
    max_attempts: Annotated[int, Field(gt=0)] = 5
    """Upstream attempts of one request, fallbacks included."""
    timeout_seconds: Annotated[float, Field(gt=0)] = 120
    """Time budget of one request, fallbacks included."""


class LocalModelSettings(Section):
    """How one local model is loaded, where it differs from the rest."""

    goal: Literal["quality", "context", "throughput"] | None = None
    """What its plan is for; absent: ``local.goal``."""
    context: Annotated[int, Field(gt=0)] | None = None
    """Context length in tokens; absent: ``local.context``."""
    parallel: Annotated[int, Field(gt=0, le=256)] | None = None
    """Requests answered at the same time; absent: ``local.parallel``."""
    keep_alive_seconds: NonNegative | None = None
    """Seconds it stays in memory after its last call; absent: ``local.idle_stop_seconds``."""


class LocalSettings(Section):
    """Local GGUF models."""

    enabled: bool = True
    """False: the provider ``local`` is not used."""
    vram_limit_mb: Annotated[int, Field(gt=0)] = 4096
    """Video memory that models may use together."""
    ram_limit_mb: Annotated[int, Field(gt=0)] | None = None
    """Main memory that models may use together; absent: what is free."""
    max_loaded: Annotated[int, Field(gt=0)] | None = None
    """Models that may be loaded at the same time; absent: as many as fit."""
    models_dir: str | None = None
    """Folder of GGUF files; absent: ``models`` in the data directory."""
    default_model: str | None = None
    """File stem or path of the model that ``local`` alone means; absent: the only one, or the first by name."""
    goal: Literal["quality", "context", "throughput"] = "quality"
    """What plans are for: the best answers, the longest context, or the most requests at the same time."""
    context: Annotated[int, Field(gt=0)] | None = None
    """Context length to load models with; absent: what the plan finds for the goal."""
    parallel: Annotated[int, Field(gt=0, le=256)] | None = None
    """Requests that one model answers at the same time; absent: what the plan finds for the goal."""
    idle_stop_seconds: NonNegative | None = 600
    """A model's worker stops, and its memory is freed, after that many seconds without a call."""
    models: dict[str, LocalModelSettings] = {}
    """Models, by file stem, that are loaded differently."""


class SpecialistsSettings(Section):
    """The built-in scikit-learn specialists."""

    enabled: bool = True
    """False: the provider ``specialists`` is not used."""
    idle_stop_seconds: NonNegative | None = 300
    """The process stops after that many seconds without a call."""


class Flags(Section):
    """Switches changed without a restart."""

    use_ollama: bool = True
    """False: a provider named ``ollama`` is passed over."""
    enable_caching: bool = True
    """False: no answer comes from the cache."""
    a_b_test_active: bool = False
    """True: experiments choose among feasible candidates."""
    ollama_percentage: Fraction = 0.8
    """Share of requests an 80/20 split sends to Ollama."""
    enable_monitoring: bool = True
    """False: checks pause."""


class ExperimentSettings(Section):
    """One A/B experiment."""

    unit: Literal["user", "request"] = "user"
    """What is assigned to an arm: a user for good, or each request."""
    salt: str = ""
    """Changes the assignment; a new experiment needs a new one."""
    arms: Annotated[dict[str, Annotated[float, Field(gt=0)]], Field(min_length=1)]
    """Candidate to weight."""
    tasks: list[str] = []
    """Tasks it applies to; empty: all."""


class ServerSettings(Section):
    """The socket."""

    max_in_flight: Annotated[int, Field(gt=0)] = 512
    """Routed calls at once; more wait."""
    max_waiting: Annotated[int, Field(ge=0)] = 2048
    """Calls that may wait for a place; more are refused."""
    max_wait_seconds: NonNegative = 30
    """The longest a call waits for a place."""
    max_body_mb: Annotated[float, Field(gt=0)] = 32
    """Largest request body."""
    shutdown_seconds: NonNegative = 10
    """How long a graceful stop waits for calls in flight."""


class TuiSettings(Section):
    """The dashboard (``hybridd tui``)."""

    theme: str | None = None
    """``hybridd``, ``hybridd-light``, ``hybridd-contrast``, ``hybridd-safe``, ``ansi-dark``, ``ansi-light`` or another
    theme of Textual's; absent: ``hybridd``."""
    keymap: dict[str, str] = {}
    """Binding id to keys, separated by commas (``{"app.quit": "ctrl+q"}``); docs/dashboard.md lists the ids."""
    language: str | None = None
    """Of the texts, for example ``pt-BR``; absent: the environment's."""
    read_only: bool = False
    """True: the dashboard changes nothing at the daemon."""


class Settings(Section):
    """The whole configuration file."""

    github_models: GithubModelsSettings = GithubModelsSettings()
    """The provider ``github_models``."""
    hugging_face: HuggingFaceSettings = HuggingFaceSettings()
    """The provider ``hugging_face``."""
    monitoring: MonitoringSettings = MonitoringSettings()
    """Checks and alerts."""
    optimization: OptimizationSettings = OptimizationSettings()
    """Fallback, cost and cache."""
    providers: dict[str, ProviderSettings] = {}
    """Providers by name."""
    tasks: dict[str, list[str] | TaskSettings] = {}
    """Tasks by name: candidates in order, or an object with defaults."""
    local: LocalSettings = LocalSettings()
    """The provider ``local``."""
    specialists: SpecialistsSettings = SpecialistsSettings()
    """The provider ``specialists``."""
    flags: Flags = Flags()
    """Switches."""
    experiments: dict[str, ExperimentSettings] = {}
    """Experiments by name."""
    server: ServerSettings = ServerSettings()
    """Socket and admission."""
    tui: TuiSettings = TuiSettings()
    """The dashboard."""
