"""A model's entry in the catalog, `models/NAME.yaml`.

All defaults are here. Unknown fields are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from llmops.config.catalog import arguments, autoscaling, exposure
from llmops.config.catalog.autoscaling import Autoscaling
from llmops.config.catalog.objectives import Objectives
from llmops.config.catalog.routing import Routing
from llmops.config.catalog.traffic import Traffic
from llmops.config.kinds import (
    LABEL_VALUE,
    Cpu,
    Cron,
    HubRepository,
    ImageRepository,
    Memory,
    ProtocolTopic,
    SuiteName,
    Zone,
    image_repository,
)
from llmops.config.schema import FOLDER, SUBDOMAIN, Consistent, Problem, SecretKey, Strict
from llmops.config.settings.access import Exposure
from llmops.config.vllm.arguments import MOST_ARGUMENTS, texts

NAME = r"^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$"
# Weights, configurations, and the vocabularies of tokenizers (`VOCAB_FILES_NAMES` of transformers 5, mistral-common).
DEFAULT_INCLUDE = (
    "*.safetensors",
    "*.json",
    "*.jinja",
    "*.tiktoken",
    "/*.model",
    "/*.model.v*",
    "merges.txt",
    "vocab.txt",
    "bpe.codes",
)
# Formats that can run code when loaded (pickle), or that vLLM loads only on request.
UNSAFE_SUFFIXES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".h5", ".msgpack")


class WeightsImage(Strict):
    """An OCI image with the weights: exactly the pinned files, in one folder."""

    repository: ImageRepository = Field(
        description="Image repository without tag; engine.image if that image has the weights."
    )
    tag: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$")] | None = Field(
        default=None, description="The release pins its digest; none for the engine's own image."
    )
    path: Annotated[str, Field(pattern=r"^/(\w[\w.-]*(/\w[\w.-]*)*)?$")] = Field(
        default="/", description="Folder in the image."
    )


class Weights(Consistent):
    """The source of the weights."""

    repo: HubRepository = Field(examples=["owner/name"], description="Hub repository, owner/name.")
    revision: Annotated[str, Field(pattern=r"^\S{1,255}$")] = Field(
        default="main", description="A commit (40 hex digits), or a branch or tag that llmops follows."
    )
    include: tuple[str, ...] = Field(
        default=DEFAULT_INCLUDE,
        min_length=1,
        description="Patterns of files to take; of the weights, those that the engine loads.",
    )
    exclude: tuple[str, ...] = Field(default=(), description="Patterns of files to leave out.")
    allow_pickle: bool = Field(default=False, description="Allow formats that can run code when loaded.")
    token: SecretKey | None = Field(default=None, description="Hub token, for gated or private repositories.")
    strategy: Literal["volume", "init", "image"] = Field(
        default="volume",
        description="volume: one copy on the shared claim; init: each pod downloads its own copy, for experiments; "
        "image: in an OCI image, for sites without a hub.",
    )
    image: WeightsImage | None = Field(default=None, description="Required with strategy image.")
    pins: Annotated[str, Field(pattern=r"^\w[\w.-]*(/\w[\w.-]*)*\.json$")] | None = Field(
        default=None,
        description="File below the catalog's folder with sizes and hashes of the revision, for sites without a hub; "
        "the revision must be a commit.",
    )

    def problems(self) -> Iterator[Problem]:
        """See `Consistent`."""
        if (self.strategy == "image") != (self.image is not None):
            yield ("image",), f"is {'required' if self.image is None else 'not'} for strategy {self.strategy}"
        if self.pins and self.strategy != "image":
            yield ("pins",), f"is for strategy image; strategy {self.strategy} takes the pins from the hub"
        if self.pins and not re.fullmatch(r"[0-9a-f]{40}", self.revision):
            yield ("revision",), f"is {self.revision}; with pins it must be their commit (40 hex digits)"
        if not self.allow_pickle:
            for index, pattern in enumerate(self.include):
                if pattern.lower().endswith(UNSAFE_SUFFIXES):
                    yield (
                        ("include", index),
                        f"{pattern!r} takes a format that can run code when loaded: set allow_pickle to allow it",
                    )


class EngineOptions(Strict):
    """The options that most models set, with vLLM's names; all others go into `args`."""

    max_model_len: Annotated[int, Field(ge=1)] | None = Field(default=None, description="Context length, tokens.")
    max_num_seqs: Annotated[int, Field(ge=1)] | None = Field(default=None, description="Concurrent sequences.")
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None, description="The engine's share of a GPU's memory."
    )
    tensor_parallel_size: Annotated[int, Field(ge=1)] = Field(
        default=1, description="GPUs that the model is split over; at most gpu.count."
    )
    dtype: Literal["auto", "bfloat16", "float16", "float32", "half", "float"] | None = Field(
        default=None, description="Type of weights and activations; none leaves it to the engine."
    )
    quantization: str | None = Field(default=None, description="Method of quantized weights, such as awq_marlin.")
    kv_cache_dtype: str | None = Field(default=None, description="Type of the KV cache, such as fp8.")
    enforce_eager: bool = Field(default=False, description="No CUDA graphs: a faster start, slower answers.")
    trust_remote_code: bool = Field(default=False, description="Run code from the repository.")


LARGEST_TEMPLATE = 256 * 1024
"""Largest chat template in bytes: the ConfigMap of the release's pins holds it, and has at most 1 MiB."""
LONGEST_VERSION = 200
"""Characters of a range of versions."""

RESERVED_VARIABLES = {
    "DO_NOT_TRACK": "engines send no usage data",
    "HF_ENDPOINT": "engines run offline",
    "HF_HOME": "llmops sets a folder that the pod can write to",
    "HF_HUB_OFFLINE": "engines run offline",
    "HF_TOKEN": "use weights.token; engines run offline",
    "HOME": "llmops sets a folder that the pod can write to",
    "HUGGING_FACE_HUB_TOKEN": "use weights.token; engines run offline",
    "PYTHONPATH": "llmops sets the folder of the drain module",
    "TRANSFORMERS_OFFLINE": "engines run offline",
    "USER": "llmops sets the engine's account",
    "VLLM_USE_RUST_FRONTEND": "the drain is a middleware, which that frontend does not run",
    "VLLM_API_KEY": "use access.api_key, which keeps the secret out of the pod's specification",
    "VLLM_NO_USAGE_STATS": "engines send no usage data",
}


def _image(value: str) -> str:
    if ":" in value.rsplit("/", 1)[-1] and "@" not in value:
        repository, tag = value.rsplit(":", 1)
        raise ValueError(
            f"must be a repository without a tag: write image: {repository} and version: '{tag.lstrip('v')}'"
        )
    return image_repository(value)


def _variable(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value):
        raise ValueError("must be the name of an environment variable")
    if value in RESERVED_VARIABLES:
        raise ValueError(f"is reserved: {RESERVED_VARIABLES[value]}")
    return value


def _template(value: str, info: ValidationInfo) -> str:
    """The content of the file that an entry names. Without the entry's folder, the value is the content already."""
    folder = (info.context or {}).get(FOLDER)
    if folder is None:
        return value
    if "/" in value or not value.endswith(".jinja"):
        raise ValueError("must be the name of a file beside this one, NAME.jinja")
    try:
        text = (Path(folder) / value).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot be read: {error}") from error
    if not 0 < len(text.encode()) <= LARGEST_TEMPLATE:
        raise ValueError(f"has {len(text.encode())} bytes; 1 to {LARGEST_TEMPLATE} are allowed")
    return text


class Engine(Consistent):
    """The serving program: image repository, allowed versions, options."""

    image: Annotated[str, AfterValidator(_image)] = Field(
        default="vllm/vllm-openai", description="Image repository without tag."
    )
    version: Annotated[str, Field(min_length=1)] = Field(
        examples=["0.32.0"],
        description="Allowed PEP 440 versions: '0.32.0' or '==0.32.0' (pinned), '>=0.31,<0.40' (the newest of them).",
    )
    variant: Annotated[str, Field(pattern=r"^[a-z0-9_.-]{0,64}$")] = Field(
        default="", description="Tag suffix, such as 'cu130'."
    )
    prereleases: bool = Field(
        default=False, description="Follow pre-releases as well. A pre-release in `version` is always allowed."
    )
    options: EngineOptions = EngineOptions()
    args: tuple[Annotated[str, AfterValidator(arguments.one_argument)], ...] = Field(
        default=(),
        max_length=MOST_ARGUMENTS,
        description="Further arguments of the engine: '--flag' or '--flag=value'.",
    )
    allow: tuple[arguments.Allowance, ...] = Field(
        default=(),
        description="Arguments that need your word. code: they load code that no release pins; files: they name files "
        "of the pod; flags: vLLM's own release does not have them, but this image does.",
    )
    env: dict[Annotated[str, AfterValidator(_variable)], str] = Field(
        default_factory=dict[str, str], description="Further environment variables; never a secret."
    )
    chat_template: Annotated[str, AfterValidator(_template)] | None = Field(
        default=None,
        description="File in this folder with a Jinja chat template; its content is part of the release. None: the "
        "repository's own.",
    )
    user: Annotated[int, Field(ge=0)] = Field(
        default=2000,
        description="User id of the engine: vLLM's image has 2000; 0 for an image that needs root.",
    )

    def problems(self) -> Iterator[Problem]:
        """See `Consistent`."""
        versions = arguments.Versions.allowed(self.version)
        trusted = self.options.trust_remote_code
        for place, problem in arguments.problems(self.args, versions, self.allow, trust_remote_code=trusted):
            yield ("args", *place), problem
        if self.chat_template is not None:
            for index, argument in enumerate(self.args):
                if "--chat-template" in texts((argument,), versions.nearest):
                    yield ("args", index), "sets the template that chat_template sets: remove one"

    @field_validator("version")
    @classmethod
    def _version(cls, value: str) -> str:
        text = value if re.search(r"[<>=!~]", value) else f"=={value}"
        if len(text) > LONGEST_VERSION:
            raise ValueError(f"must have at most {LONGEST_VERSION} characters")
        try:
            SpecifierSet(text)
        except InvalidSpecifier as error:
            raise ValueError("must be a version (0.32.0) or a PEP 440 range (>=0.31,<0.40)") from error
        return text


class Gpu(Strict):
    """GPUs of one replica."""

    product: Annotated[str, Field(pattern=LABEL_VALUE)] | None = Field(
        default=None, description="Value of the node label nvidia.com/gpu.product."
    )
    count: Annotated[int, Field(ge=0)] = Field(default=1, description="nvidia.com/gpu of one replica; 0 runs on CPU.")
    memory: Memory | None = Field(default=None, description="Memory of one GPU, such as 48Gi.")


class Resources(Strict):
    """Resources and priority of one replica, as Kubernetes quantities."""

    cpu: Cpu = Field(default="4", description="CPU request; there is no limit.")
    memory: Memory = Field(default="32Gi", description="Memory request and limit.")
    shm: Memory = Field(
        default="8Gi",
        description="Shared memory of the engine's processes, part of memory; the default of 64 MB crashes vLLM.",
    )
    priority_class: Annotated[str, Field(pattern=SUBDOMAIN, max_length=253)] | None = Field(
        default=None,
        description="PriorityClass of stable and canary: it decides evictions when room is short. None: the cluster's "
        "default. A rollout counts room without evictions.",
    )


RULES = ("min", "max", "max_drop", "max_ratio", "max_divergence")


class Gate(Consistent):
    """A rule on a measured figure. Exactly one of `min`, `max`, `max_drop`, `max_ratio` and `max_divergence`."""

    metric: Annotated[str, Field(pattern=r"^[a-z0-9_.-]+(/[a-z0-9_.-]+)?$")] = Field(
        description="SUITE/FIGURE: 'arithmetic/score', 'chat/p95_ttft_ms', 'chat/error_rate'; "
        "'all/score' covers every case; 'cost/usd_per_million_tokens' uses the first load profile."
    )
    min: float | None = Field(default=None, description="Absolute floor.")
    max: float | None = Field(default=None, description="Absolute ceiling.")
    max_drop: Annotated[float, Field(ge=0)] | None = Field(
        default=None,
        description="Largest drop below stable on the same cases (0.03 = 3 points).",
    )
    max_ratio: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="Largest ratio canary/stable under the same load."
    )
    max_divergence: Annotated[float, Field(ge=0)] | Literal["auto"] | None = Field(
        default=None,
        description="Of a fidelity suite: largest distance from stable's log-probabilities over the null, nats a "
        "token; auto follows the null.",
    )
    dry: bool = Field(default=False, description="Report only, never block: for a new gate.")

    def problems(self) -> Iterator[Problem]:
        """See `Consistent`."""
        given = [name for name in RULES if getattr(self, name) is not None]
        if len(given) != 1:
            yield (), f"needs exactly one of {', '.join(RULES)}; found {', '.join(given) or 'none'}"
        if self.max_divergence is not None and self.metric.partition("/")[2] not in ("", "divergence"):
            yield ("metric",), f"is {self.metric}; max_divergence judges SUITE/divergence of a fidelity suite"

    @property
    def relative(self) -> bool:
        """Whether the gate compares with stable."""
        return self.max_drop is not None or self.max_ratio is not None or self.max_divergence is not None


PROTOCOL = "protocol"
"""The suite that runs where an entry names none of its kind."""
COST = "cost"
COST_METRIC = f"{COST}/usd_per_million_tokens"


class Evaluation(Strict):
    """The suites and gates that judge a release."""

    suites: tuple[SuiteName, ...] = Field(default=(), description="Suites in evals/: quality suites and load profiles.")
    gates: tuple[Gate, ...] = Field(default=(), description="All have to hold.")
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = Field(
        default=0.95,
        description="Of relative gates: how rarely they pass a release beyond a limit, or reject an equal one.",
    )
    concurrency: Annotated[int, Field(ge=1)] = Field(default=8, description="Parallel requests of the quality suites.")
    repeats: Annotated[int, Field(ge=1, le=100)] = Field(
        default=1,
        description="Requests per case; its score is their mean. A temperature above 0 needs 2.",
    )
    max_rounds: Annotated[int, Field(ge=1, le=20)] = Field(
        default=4,
        description="Most runs of a load profile on canary and stable while one of its gates is undecided.",
    )
    protocol: Literal[False] | tuple[ProtocolTopic, ...] = Field(
        default=(),
        description="Parts of the API that have to hold even if stable fails them. The others are compared with "
        "stable; false: ask nothing of the API.",
    )
    complete: bool = Field(
        default=False,
        description="Measure the rest as well after a gate has failed for certain: a whole report, for more GPU time.",
    )

    @property
    def unnamed(self) -> tuple[SuiteName, ...]:
        """Suites that run without being named."""
        return () if self.protocol is False else (PROTOCOL,)


class Rollout(Strict):
    """How a release replaces another."""

    strategy: Literal["surge", "in-place", "auto"] = Field(
        default="auto",
        description="surge: canary and rolling update use the GPUs of one more replica; in-place: they take a replica "
        "from stable, which needs two or more; auto: surge if the GPUs are free, else in-place if possible.",
    )
    stabilization_seconds: Annotated[float, Field(ge=0)] = Field(
        default=60, description="How long promotion watches the new pods before it is final."
    )
    load_mb_per_second: Annotated[float, Field(ge=1)] = Field(
        default=100, description="Slowest expected load speed; it sizes the startup probe."
    )
    startup_seconds: Annotated[int, Field(ge=5)] = Field(
        default=300, description="Start-up time besides loading: compilation, warm-up."
    )
    drain_seconds: Annotated[int, Field(ge=1)] = Field(
        default=120, description="How long running requests may continue after unroute_seconds before the engine ends."
    )
    unroute_seconds: Annotated[int, Field(ge=1)] = Field(
        default=10, description="How long routers may take to forget a terminating pod."
    )
    on_inconclusive: Literal["reject", "hold"] = Field(
        default="hold",
        description="hold: stable stays, and the release may be tried again; reject: the release counts as Failed.",
    )
    keep_weights: Annotated[int, Field(ge=0)] = Field(
        default=1, description="Older weights to keep, besides those of stable and the previous release."
    )


def _clock(value: str) -> str:
    if not re.fullmatch("([01][0-9]|2[0-3]):[0-5][0-9]", value):
        raise ValueError("must be a time of day, HH:MM, from 00:00 to 23:59")
    return value


DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
Clock = Annotated[str, AfterValidator(_clock)]


class Window(Strict):
    """A time of the week in which an automatic rollout may start."""

    days: tuple[Day, ...] = Field(default=DAYS, min_length=1, description="Days on which the window begins.")
    start: Clock = Field(description="HH:MM.")
    end: Clock = Field(description="HH:MM; at or before start means the next day.")


class Automation(Strict):
    """What llmops does unasked, and when. Not part of the release."""

    follow: bool = Field(
        default=True, description="Roll out new image tags, new model revisions and changes of this file."
    )
    windows: tuple[Window, ...] = Field(
        default=(),
        description="When such a rollout may start; empty is always. A started rollout continues after its window.",
    )
    timezone: Zone = Field(default="UTC", description="Time zone of windows and revalidate.")
    revalidate: Cron | None = Field(
        default="0 3 * * *", description="Cron expression: when llmops checks stable's weights, figures and Deployment."
    )
    revalidate_mb_per_second: Annotated[float, Field(gt=0)] = Field(
        default=200, description="Highest speed of reading weights back, to spare serving."
    )
    validation_max_age_hours: Annotated[float, Field(gt=0)] = Field(
        default=50, description="Age of the last validation above which the model counts as stale."
    )
    repair: tuple[Literal["weights", "rollback"], ...] = Field(
        default=(),
        description="Automatic repairs of findings. weights: download damaged bytes again; rollback: return to the "
        "previous good release when stable fails its gates.",
    )


class Access(Strict):
    """Who may call the engine."""

    api_key: SecretKey | None = Field(default=None, description="API key of the engine.")


class Preflight(Strict):
    """Findings of the preflight that do not stop a rollout of this model."""

    accept: tuple[Annotated[str, Field(pattern=r"^[a-z]+\.[a-z-]+$")], ...] = Field(
        default=(),
        description="Ids of checks, such as memory.fit: their errors become warnings. The record of each trial keeps "
        "what it accepted.",
    )


class ModelSpec(Consistent):
    """One entry of the catalog: `name`, `weights.repo` and `engine.version` are required, the rest has defaults."""

    name: Annotated[str, Field(pattern=NAME, description="DNS label, at most 40 characters; the file's name.")] = Field(
        examples=["name"]
    )
    description: str = Field(default="", description="For people.")
    replicas: Annotated[int, Field(ge=1)] = Field(default=1, description="Pods that serve, each with gpu.count GPUs.")
    weights: Weights
    engine: Engine
    gpu: Gpu = Gpu()
    resources: Resources = Resources()
    evaluation: Evaluation = Evaluation()
    rollout: Rollout = Rollout()
    automation: Automation = Automation()
    access: Access = Access()
    exposure: Exposure = Exposure()
    traffic: Traffic = Traffic()
    autoscaling: Autoscaling | None = Field(default=None, description="None: `replicas` stays fixed.")
    objectives: Objectives = Objectives()
    routing: Routing = Routing()
    preflight: Preflight = Preflight()

    def problems(self) -> Iterator[Problem]:
        """See `Consistent`."""
        if self.name.endswith("-canary"):
            yield ("name",), f"is {self.name}, but NAME-canary is the canary of a model NAME"
        tensor, gpus = self.engine.options.tensor_parallel_size, self.gpu.count
        if gpus and tensor > gpus:
            yield ("engine", "options", "tensor_parallel_size"), f"is {tensor}, but gpu.count is {gpus}"
        if self.gpu.product and not gpus:
            yield ("gpu", "product"), f"is {self.gpu.product}, but gpu.count is 0"
        yield from self._problems_of_weights()
        if self.rollout.strategy == "in-place" and self.replicas < 2:
            yield ("rollout", "strategy"), "in-place takes a replica from stable and needs replicas of 2 or more"
        yield from exposure.problems(self.exposure, self.access.api_key, self.engine.env)
        yield from autoscaling.problems(
            self.autoscaling, self.replicas, self.rollout.strategy, self.engine.options.max_num_seqs
        )
        for index, gate in enumerate(self.evaluation.gates):
            suite = gate.metric.split("/", 1)[0]
            if gate.metric == COST_METRIC:
                if gate.max is None and gate.max_ratio is None:
                    yield ("evaluation", "gates", index, "metric"), f"{COST_METRIC} needs max or max_ratio"
            elif suite not in (named := (*self.evaluation.suites, "all", *self.evaluation.unnamed)):
                allowed = ", ".join(named)
                yield (
                    ("evaluation", "gates", index, "metric"),
                    f"{gate.metric} names suite {suite!r}, which is not in evaluation.suites (allowed: {allowed})",
                )

    def _problems_of_weights(self) -> Iterator[Problem]:
        if self.weights.strategy == "init" and self.autoscaling is not None:
            yield (
                ("weights", "strategy"),
                "is init, but pods that autoscaling adds would download at once, and the hub refuses that (429): use "
                "volume",
            )
        if (image := self.weights.image) is None:
            return
        if image.repository != self.engine.image:
            if image.tag is None:
                yield ("weights", "image", "tag"), "is required, as the image is not the engine's own"
        elif image.tag is not None:
            yield (
                ("weights", "image", "tag"),
                "is given, but engine.version picks the tag of the engine's own image",
            )
        elif image.path == "/":
            yield ("weights", "image", "path"), "is /, but the engine's own image has more than weights there"
