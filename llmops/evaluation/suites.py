"""Evaluation suites: `evals/NAME.yaml`. A quality suite has its cases in `evals/NAME.jsonl` beside it; a tool suite has
its files in folders below; a fidelity suite uses the cases of quality suites; a protocol suite has built-in checks."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from operator import itemgetter
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, JsonValue, ValidationError, model_validator

from llmops.config.catalog.spec import PROTOCOL, Evaluation, Gate
from llmops.config.kinds import ProtocolTopic, SuiteName
from llmops.config.loading import Mistake, bad_input, converted, dotted, explain, read_source
from llmops.config.schema import Problem, Strict
from llmops.config.settings.allowed import Allowed
from llmops.errors import BadInput
from llmops.evaluation.formats import TOOLS, ToolName
from llmops.evaluation.patterns import PatternTooSlow
from llmops.evaluation.scorers import ScorerName, build, calls_expected, find_json

TOOL_BYTES = 4 << 20
"""Most bytes of all files of a tool suite: they travel to its Job in ConfigMaps."""
PLACEHOLDERS = ("url", "model")
"""Placeholders in braces in a tool's arguments, filled in when the tool runs."""


class Message(Strict):
    """One message of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


class Function(Strict):
    """A function that the model may call."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    description: str = ""
    parameters: dict[str, JsonValue] = Field(description="JSON Schema of its arguments.")


class Tool(Strict):
    """A tool, in the form of the OpenAI API."""

    type: Literal["function"] = "function"
    function: Function


class Sampling(Strict):
    """How the engine samples. At temperature 0 a release answers the same way twice."""

    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    seed: int = 0
    max_tokens: Annotated[int, Field(ge=1)] = 256


class Case(Strict):
    """One question. `answer` is a text that its scorer accepts, which proves that an engine can pass the case."""

    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
    prompt: str | None = Field(default=None, min_length=1)
    messages: tuple[Message, ...] | None = Field(default=None, min_length=1)
    scorer: ScorerName
    expected: JsonValue
    answer: str
    tools: tuple[Tool, ...] | None = Field(default=None, min_length=1, description="What the model may call.")
    tool_choice: str | dict[str, JsonValue] | None = Field(default=None, description="As in the OpenAI API.")
    response_format: dict[str, JsonValue] | None = Field(default=None, description="As in the OpenAI API.")

    @model_validator(mode="after")
    def _passable(self) -> Case:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("needs exactly one of prompt and messages")
        try:
            score = build(self.scorer, self.expected)
        except ValueError as error:
            raise ValueError(f"expected: scorer {self.scorer} {error}") from error
        try:
            own, empty = score(self.answer), score("")
        except PatternTooSlow as error:
            raise ValueError(f"expected: the pattern comes to no end with the case's own answer: {error}") from error
        if own < 1:
            raise ValueError(f"answer: scorer {self.scorer} does not accept it, so no engine could pass the case")
        if empty > 0:
            raise ValueError(f"expected: scorer {self.scorer} accepts an empty answer")
        self._check_calls()
        self._check_format()
        return self

    def _check_calls(self) -> None:
        """Whether the model can make the calls that are expected."""
        if self.scorer != "tool-call":
            return
        offered = {tool.function.name: tool.function.parameters for tool in self.tools or ()}
        for call in calls_expected(self.expected):
            if call.name not in offered:
                named = ", ".join(offered) or "none"
                raise ValueError(f"expected: a call of {call.name}, which is not in tools (there: {named})")
            if call.arguments is not None and not _accepts(offered[call.name], call.arguments, "tools"):
                raise ValueError(f"expected: the parameters of {call.name} do not accept the arguments")

    def _check_format(self) -> None:
        """Whether an engine that is held to the format can give the answer."""
        form = self.response_format
        if form is None or form.get("type") == "text":
            return
        try:
            value = find_json(self.answer)
        except (ValueError, RecursionError):
            raise ValueError("answer: is not JSON, as response_format wants, so no engine could pass") from None
        named = form.get("json_schema")
        schema = named.get("schema") if isinstance(named, dict) else None
        if isinstance(schema, dict) and not _accepts(schema, value, "response_format"):
            raise ValueError("answer: the schema of response_format does not accept it, so no engine could pass")

    @property
    def asking(self) -> dict[str, Any]:
        """The fields of a request that this case alone has."""
        fields = {"tool_choice": self.tool_choice, "response_format": self.response_format}
        tools = [tool.model_dump(exclude_defaults=True) | {"type": tool.type} for tool in self.tools or ()]
        return ({"tools": tools} if tools else {}) | {name: value for name, value in fields.items() if value}

    def score(self, text: str) -> float:
        """The score of an answer, 0 to 1."""
        return build(self.scorer, self.expected)(text)

    def conversation(self, system: str = "") -> list[dict[str, str]]:
        """The messages to send, in the form of the OpenAI API."""
        turns = self.messages or (Message(role="user", content=self.prompt or ""),)
        start = [{"role": "system", "content": system}] if system else []
        return start + [{"role": turn.role, "content": turn.content} for turn in turns]


def _accepts(schema: dict[str, JsonValue], value: JsonValue, where: str) -> bool:
    from llmops.evaluation.schemas import Schema  # slow to import

    try:
        return Schema(schema).accepts(value)
    except ValueError as error:
        raise ValueError(f"{where}: is no JSON Schema; {error}") from error


ADDED = ("tools", "tool_choice", "response_format")
"""Fields that came later: a case without them is the case that it was."""


class _Hashed(Strict):
    name: str
    description: str = ""

    @cached_property
    def sha256(self) -> str:
        """Hash of what decides the measurement: definition and cases in any order, without the description."""
        content: dict[str, Any] = self.model_dump(mode="json", exclude={"name", "description"})
        if "cases" in content:
            cases = [
                {key: value for key, value in case.items() if value is not None or key not in ADDED}
                for case in content["cases"]
            ]
            content["cases"] = sorted(cases, key=itemgetter("id"))
        return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


class Suite(_Hashed):
    """A set of cases to ask one by one and score."""

    kind: Literal["quality"]
    scorer: ScorerName | None = Field(default=None, description="Scorer of cases that name none.")
    system: str = Field(default="", description="System message before every case; empty sends none.")
    sampling: Sampling = Sampling()
    timeout_seconds: Annotated[float, Field(gt=0)] = Field(default=120, description="For one answer.")
    cases: tuple[Case, ...] = Field(default=(), min_length=1)


class LoadProfile(_Hashed):
    """Traffic to measure latency and throughput under: at a concurrency (closed loop) or at a rate (open loop)."""

    kind: Literal["load"]
    requests: Annotated[int, Field(ge=1, description="Measured, besides the warm-up.")]
    concurrency: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="Requests in flight, at all times."
    )
    rate: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="Requests per second, Poisson arrivals."
    )
    prompt_tokens: Annotated[int, Field(ge=1)] = Field(default=256, description="About: one common English word each.")
    output_tokens: Annotated[int, Field(ge=1)] = 128
    ignore_eos: bool = Field(
        default=True, description="Ask vLLM for the full length, so that releases do the same work."
    )
    warmup_requests: Annotated[int, Field(ge=0)] = 4
    timeout_seconds: Annotated[float, Field(gt=0)] = Field(default=120, description="For one whole answer.")
    seed: int = Field(default=0, description="Of prompts and arrivals.")

    @model_validator(mode="after")
    def _one_pace(self) -> LoadProfile:
        if (self.concurrency is None) == (self.rate is None):
            raise ValueError("needs exactly one of concurrency and rate")
        return self


def _path_below(value: str) -> str:
    path = PurePosixPath(value)
    if path.is_absolute() or ".." in path.parts or str(path) != value:
        raise ValueError("must be a path below the suites' folder, such as lm-eval/task.yaml")
    if len(path.parts) == 1 and path.suffix == ".yaml":
        raise ValueError("must be in a folder: the .yaml files beside this one are suites")
    return value


class ToolFile(Strict):
    """A file of a tool suite. YAML names its path below the suites' folder; its text is part of the suite."""

    path: Annotated[str, AfterValidator(_path_below)]
    content: str


Figure = Annotated[str, Field(pattern=r"^[a-z0-9_.-]+$")]


class ToolSuite(_Hashed):
    """An evaluation tool to run against the engine; its results file has the figures."""

    kind: Literal["tool"]
    tool: ToolName
    arguments: tuple[str, ...] = Field(
        min_length=1, description="Of the tool, one by one; {url} is the engine's root and {model} its model's name."
    )
    files: tuple[ToolFile, ...] = Field(
        default=(), description="Paths of files that the tool reads, below the suites' folder; it runs in a copy of it."
    )
    score: Figure | None = Field(
        default=None, description="The figure that is the suite's score, case by case. None: the only one there is."
    )
    figures: tuple[Figure, ...] = Field(
        default=(),
        description="Figures to take besides score and error_rate; the tool has to measure each. None: all.",
    )
    image: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._/:-]*(:[\w.-]+|@sha256:[0-9a-f]{64})$")] | None = Field(
        default=None, description="Image of its Job, with tag or digest. None: the installation's evaluation_image."
    )
    timeout_seconds: Annotated[float, Field(gt=0)] = Field(default=3600, description="For the whole run.")

    @model_validator(mode="after")
    def _runnable(self) -> ToolSuite:
        reserved = TOOLS[self.tool].reserved
        for argument in self.arguments:
            if (flag := argument.partition("=")[0]) in reserved:
                raise ValueError(f"arguments: llmops sets {flag} itself, to find the results")
            for placeholder in re.findall(r"\{(\w+)\}", argument):
                if placeholder not in PLACEHOLDERS:
                    allowed = " and ".join(f"{{{known}}}" for known in PLACEHOLDERS)
                    raise ValueError(
                        f"arguments: {{{placeholder}}} in {argument!r} is no placeholder; there are {allowed}"
                    )
        paths = [file.path for file in self.files]
        if twice := next((path for path in paths if paths.count(path) > 1), None):
            raise ValueError(f"files: {twice} is named twice")
        return self


class FidelitySuite(_Hashed):
    """Asks whether two engines are the same model: both score stable's answers to the cases of quality suites."""

    kind: Literal["fidelity"]
    suites: tuple[SuiteName, ...] = Field(
        default=(), description="Quality suites whose cases it uses. None: all of the model's."
    )
    tokens: Annotated[int, Field(ge=1, le=50_000)] = Field(default=5000, description="Most answer tokens to score.")
    top: Annotated[int, Field(ge=1, le=20)] = Field(
        default=5, description="Likely tokens to compare at each position; the engine's --max-logprobs bounds it."
    )
    timeout_seconds: Annotated[float, Field(gt=0)] = Field(default=120, description="For one text.")


class ProtocolSuite(_Hashed):
    """Asks whether an engine keeps to the OpenAI API, by the checks that llmops brings."""

    kind: Literal["protocol"]
    topics: tuple[ProtocolTopic, ...] = Field(default=(), description="Topics of the checks to ask. None: all.")
    timeout_seconds: Annotated[float, Field(gt=0)] = Field(default=60, description="For one answer.")


AnySuite = Annotated[Suite | LoadProfile | ToolSuite | FidelitySuite | ProtocolSuite, Field(discriminator="kind")]


def with_unnamed(suites: Iterable[AnySuite], rules: Evaluation) -> tuple[AnySuite, ...]:
    """The suites of an entry, and those that run without being named: the protocol's, unless one is named."""
    named = tuple(suites)
    if rules.protocol is False or any(isinstance(suite, ProtocolSuite) for suite in named):
        return named
    return (*named, ProtocolSuite(name=PROTOCOL, kind="protocol"))


def check_repeats(suites: Iterable[AnySuite], repeats: int) -> None:
    """Refuse to judge answers that are sampled at random by one answer per case.

    Raises:
        BadInput: A suite samples at a temperature above 0, and `repeats` is 1.
    """
    for suite in suites:
        if isinstance(suite, Suite) and suite.sampling.temperature > 0 and repeats < 2:
            raise BadInput(
                f"suite {suite.name} samples at temperature {suite.sampling.temperature:g} and asks each case once",
                code="SampledOnce",
                about=f"suite {suite.name}",
                remedy="Set evaluation.repeats to 2 or more, or the suite's temperature to 0.",
            )


def misfits(suites: Sequence[AnySuite], gates: Sequence[Gate]) -> Iterator[Problem]:
    """What of an evaluation asks a fidelity suite for what the others do not give.

    Args:
        suites: The suites of an evaluation, in its order.
        gates: Its gates.

    Yields:
        The field, as a path below the evaluation, and its problem.
    """
    quality = {suite.name for suite in suites if isinstance(suite, Suite)}
    fidelity = {suite.name for suite in suites if isinstance(suite, FidelitySuite)}
    for index, suite in enumerate(suites):
        if not isinstance(suite, FidelitySuite):
            continue
        if not quality:
            yield ("suites", index), f"is {suite.name!r}, which uses the cases of quality suites, and there is none"
        elif missing := [name for name in suite.suites if name not in quality]:
            names = ", ".join(missing)
            yield ("suites", index), f"is {suite.name!r}, which uses {names}: no quality suite of this model"
    for index, gate in enumerate(gates):
        if gate.max_divergence is not None and (name := gate.metric.partition("/")[0]) not in fidelity:
            yield ("gates", index, "metric"), f"is {gate.metric}, but {name!r} is no fidelity suite of this model"


def available(directory: Path) -> tuple[str, ...]:
    """Names of all suites in a directory, sorted."""
    return tuple(sorted(path.stem for path in directory.glob("*.yaml")))


def load_suites(directory: Path, names: Iterable[str], allowed: Allowed | None = None) -> tuple[AnySuite, ...]:
    """Read the suites of those names, in that order.

    Args:
        directory: The suites' folder.
        names: Names of suites.
        allowed: What suites may name; None allows all.

    Raises:
        BadInput: Files are missing or wrong. The message has all mistakes, each with file, line, field and value; code
            and object are those of the first wrong suite.
    """
    loaded: list[AnySuite] = []
    errors: list[BadInput] = []
    for name in names:
        try:
            suite = _load(directory, name)
            _check_image(directory, suite, allowed or Allowed())
            loaded.append(suite)
        except BadInput as error:
            errors.append(error)
    if errors:
        message = "\n".join(error.message for error in errors)
        raise BadInput(message, code=errors[0].code, about=errors[0].about)
    return tuple(loaded)


def _check_image(directory: Path, suite: AnySuite, allowed: Allowed) -> None:
    if isinstance(suite, ToolSuite) and suite.image is not None:
        for problem in allowed.image(suite.image):
            raise BadInput(
                f"{directory / suite.name}.yaml: image: {problem}",
                code="NotAllowed",
                about=f"suite {suite.name}",
                remedy="Name another image, or have the list in the settings extended.",
            )


def _load(directory: Path, name: str) -> AnySuite:
    path = directory / f"{name}.yaml"
    if not path.is_file():
        raise BadInput(
            f"{path}: no such suite; there are: {', '.join(available(directory)) or 'none'}",
            code="NoSuchSuite",
            about=f"suite {name}",
        )
    source = read_source(path, f"a mapping that starts with kind: {_either(_KINDS)}")
    kind = source.content.get("kind")
    model = _KINDS.get(kind) if isinstance(kind, str) else None
    if model is None:
        value = f"found {kind!r}" if "kind" in source.content else "it is not given"
        raise bad_input(source.mistakes([(("kind",), f"must be {_either(_KINDS)} ({value})")]))
    elsewhere = {"name": "it is the file's name", "cases": f"they are in {name}.jsonl"}
    problems: list[Problem] = [
        ((field,), f"does not belong here: {why}") for field, why in elsewhere.items() if field in source.content
    ]
    content = {field: value for field, value in source.content.items() if field not in elsewhere} | {"name": name}
    of_cases: list[Mistake] = []
    if model is Suite:
        cases, of_cases = _cases(path.with_suffix(".jsonl"), content.get("scorer"))
        # Mistakes in the cases must not hide those of the definition.
        content["cases"] = [_PLACEHOLDER] if of_cases else cases
    if model is ToolSuite and isinstance(names := content.get("files"), list):
        content["files"], of_files = _files(path.parent, names)
        problems.extend(of_files)
    suite = None
    try:
        suite = model.model_validate(content)
        problems.extend(converted(suite, content))
    except ValidationError as error:
        problems.extend(explain(error, model, filled_in=elsewhere))
    if suite is None or problems or of_cases:
        raise bad_input([*source.mistakes(problems), *of_cases])
    return suite


def _cases(path: Path, default: Any) -> tuple[list[Case], list[Mistake]]:
    """The cases of a file, and its mistakes."""
    if not path.is_file():
        why = "no such file; a quality suite keeps its cases there, one JSON object per line"
        return [], [Mistake(path, 1, "", why)]
    try:
        # Not splitlines: a JSON text may have U+2028 and its like.
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        return [], [Mistake(path, 1, "", f"cannot be read: {error}")]
    cases: list[Case] = []
    mistakes: list[Mistake] = []
    lines_by_id: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            content = json.loads(line, object_pairs_hook=_once)
            json.dumps(content, ensure_ascii=False).encode()  # a lone surrogate cannot be sent
        except (ValueError, RecursionError) as error:
            mistakes.append(Mistake(path, number, "", f"is not JSON: {error}"))
            continue
        if not isinstance(content, dict):
            mistakes.append(Mistake(path, number, "", f"must be a JSON object (found {line[:60]!r})"))
            continue
        if default is not None:
            content.setdefault("scorer", default)
        try:
            case = Case.model_validate(content)
        except ValidationError as error:
            mistakes += [Mistake(path, number, dotted(place), why) for place, why in explain(error, Case)]
            continue
        if case.id in lines_by_id:
            mistakes.append(Mistake(path, number, "id", f"{case.id!r} is used on line {lines_by_id[case.id]} already"))
        lines_by_id.setdefault(case.id, number)
        cases.append(case)
    if not cases and not mistakes:
        mistakes.append(Mistake(path, 1, "", "has no cases"))
    return cases, mistakes


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object's fields; JSON would silently keep the last one of a name."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} is given twice")
    return fields


def _files(directory: Path, names: list[Any]) -> tuple[list[dict[str, str]], list[Problem]]:
    """The files that a tool suite names, with their text, and the problems with them."""
    files: list[dict[str, str]] = []
    problems: list[Problem] = []
    for index, name in enumerate(names):
        try:
            files.append({"path": name, "content": _text(directory, name)})
        except (OSError, ValueError) as error:
            problems.append((("files", index), f"{error} (found {name!r})"))
    size = sum(len(file["content"].encode()) for file in files)
    if size > TOOL_BYTES:
        why = f"are {size:,} bytes together, of at most {TOOL_BYTES:,}; put larger data into an image, and set image"
        problems.append((("files",), why))
    return files, problems


def _text(directory: Path, name: Any) -> str:
    if not isinstance(name, str):
        raise ValueError("must be the path of a file")
    source = directory / _path_below(name)
    if not source.is_file():
        raise ValueError(f"{source}: no such file")
    try:
        return source.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{source} cannot be read as text: {error}") from error


def _either(words: Iterable[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} or {last}"


_KINDS: dict[str, type[AnySuite]] = {
    "quality": Suite,
    "load": LoadProfile,
    "tool": ToolSuite,
    "fidelity": FidelitySuite,
    "protocol": ProtocolSuite,
}
_PLACEHOLDER = Case(id="placeholder", prompt="-", scorer="exact", expected="-", answer="-")
