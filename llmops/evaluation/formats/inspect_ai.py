"""Logs of inspect-ai: the `.eval` file (a zip), or the same log as `.json`.

llmops reads the header and the scores of a `.eval` file, and skips its transcripts.
"""

from __future__ import annotations

import io
import lzma
import zipfile
import zlib
from typing import Literal

from pydantic import Field, TypeAdapter, ValidationError

from llmops.config.words import in_words
from llmops.evaluation.formats.reading import (
    Count,
    Files,
    Part,
    Reading,
    check_version,
    figure_name,
    mean,
    number,
    only,
    put,
    read,
    refuse,
    same,
)
from llmops.evaluation.formats.tool import RESULTS_PLACE, Tool
from llmops.worker.foreign import BadBytes, check_json

NAME = "inspect-ai"
RESULTS = "*.eval"
MEANS = ("accuracy", "mean")
"""Metrics that are the mean of a scorer's scores."""
DISPERSION = ("stderr", "std", "var", "bootstrap_stderr")
"""Metrics that are no figures: gates compute their own from the cases."""
LONGEST = 32 << 20
"""Most bytes of a part of a `.eval` file, unpacked."""
WINDOW = 32 << 20
"""Most bytes that an unpacker looks back: inspect-ai's level needs 2 MiB."""
ZSTANDARD = 93
"""Compression method of `.eval` files; zipfile knows it from Python 3.14 on."""


class _Packages(Part):
    inspect_ai: str


class _Spec(Part):
    task: str
    packages: _Packages


class _Metric(Part):
    value: float


class _Score(Part):
    name: str
    scorer: str
    scored_samples: Count
    unscored_samples: Count
    metrics: dict[str, _Metric] = Field(min_length=1)


class _Results(Part):
    total_samples: Count
    completed_samples: Count
    scores: tuple[_Score, ...]


class _Case(Part):
    value: object
    answer: str | None = None
    id: int | str = Field(alias="sample_id")


class _Reduction(Part):
    scorer: str
    samples: tuple[_Case, ...]


class _Error(Part):
    message: str


class _Log(Part):
    version: Literal[2]
    status: Literal["started", "success", "cancelled", "error"]
    eval: _Spec
    results: _Results | None = None
    error: _Error | None = None
    invalidated: bool = False
    reductions: tuple[_Reduction, ...] | None = None


_REDUCTIONS: TypeAdapter[tuple[_Reduction, ...]] = TypeAdapter(tuple[_Reduction, ...])


def parse(files: Files) -> Reading:
    """Read the log of one task. A figure is SCORER.METRIC, such as `match.accuracy`.

    Raises:
        MeasurementFailed: It is damaged, not inspect-ai's, or of an incomplete run.
    """
    name, content = only(files, RESULTS)
    log = _unpack(name, content) if content.startswith(b"PK") else read(_Log, name, content, _WHAT)
    version = log.eval.packages.inspect_ai
    check_version(name, NAME, version, "0.3.")
    results = _results(name, log)
    cases = {reduction.scorer: _values(name, reduction) for reduction in log.reductions or ()}
    figures: dict[str, float] = {}
    scores: dict[str, dict[str, float]] = {}
    for score in results.scores:
        if score.unscored_samples:
            refuse(name, "RunIncomplete", f"scorer {score.name} left {score.unscored_samples} samples without a score")
        for metric, measured in score.metrics.items():
            if metric in DISPERSION:
                continue
            figure = figure_name(score.name, metric)
            put(figures, name, figure, measured.value)
            if by_case := _scores(name, metric, measured.value, cases.get(score.name, {})):
                scores[figure] = by_case
    if not figures:
        refuse(name, "NothingMeasured", "has no metric")
    put(figures, name, "error_rate", 0.0)
    answers = {str(case.id): case.answer or "" for reduction in log.reductions or () for case in reduction.samples}
    ids = {case for by_case in cases.values() for case in by_case}
    return Reading(
        tool=f"{NAME} {version}",
        figures=figures,
        scores=scores,
        answers=answers,
        cases=len(ids) or results.total_samples,
    )


_WHAT = "log of inspect-ai"


def _results(name: str, log: _Log) -> _Results:
    """The results of a complete run."""
    if log.status != "success" or log.invalidated:
        why = f": {log.error.message}" if log.error else ""
        status = "invalidated" if log.invalidated else log.status
        refuse(name, "RunIncomplete", f"task {log.eval.task} ended as {status}{why}")
    if log.results is None:
        refuse(name, "RunIncomplete", f"task {log.eval.task} has no results")
    if log.results.completed_samples != log.results.total_samples or not log.results.total_samples:
        why = f"{log.results.completed_samples} of {log.results.total_samples} samples were completed"
        refuse(name, "RunIncomplete", why)
    if not log.results.scores:
        refuse(name, "NothingMeasured", f"task {log.eval.task} has no scores")
    return log.results


def _values(name: str, reduction: _Reduction) -> dict[str, float]:
    """Case -> score over its epochs; empty unless all scores of the scorer are numbers."""
    scores = {str(case.id): case.value for case in reduction.samples}
    if len(scores) != len(reduction.samples):
        refuse(name, "ResultsAmbiguous", f"scorer {reduction.scorer} scored a sample twice")
    if not all(isinstance(value, int | float) for value in scores.values()):
        return {}
    return {
        case: number(name, f"the score of sample {case}", int(value) if isinstance(value, bool) else value)
        for case, value in scores.items()
    }


def _scores(name: str, metric: str, value: float, by_case: dict[str, float]) -> dict[str, float]:
    """The scores behind a metric that is their mean; empty for other metrics, or if a score is no share."""
    if metric not in MEANS or not by_case or not all(0 <= score <= 1 for score in by_case.values()):
        return {}
    if not same(mean(by_case.values()), value):
        refuse(name, "ResultsInconsistent", f"{metric} is {value}, and {mean(by_case.values())} over its samples")
    return by_case


def _unpack(name: str, content: bytes) -> _Log:
    """The log in a `.eval` file. A run that did not succeed may lack its scores; `_results` refuses it."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            log = read(_Log, f"{name}/header.json", _part(name, archive, "header.json"), _WHAT)
            if log.status != "success" or log.results is None or not log.results.scores:
                return log
            reductions = _part(name, archive, "reductions.json")
    except (zipfile.BadZipFile, EOFError, OSError, ValueError, RuntimeError, zlib.error, lzma.LZMAError) as error:
        # Beside the first, what the unpackers raise: of encrypted parts, unknown methods, and damage.
        refuse(name, "ResultsUnreadable", f"is no complete .eval file: {error}")
    try:
        check_json(reductions, longest=LONGEST)
        return log.model_copy(update={"reductions": _REDUCTIONS.validate_json(reductions)})
    except BadBytes as error:
        refuse(f"{name}/reductions.json", "ResultsUnreadable", f"is no part of a {_WHAT}: {error}")
    except ValidationError as error:
        refuse(
            f"{name}/reductions.json", "ResultsUnreadable", f"is no part of a {_WHAT}: {in_words(error.errors()[0])}"
        )


def _part(name: str, archive: zipfile.ZipFile, part: str) -> bytes:
    try:
        info = archive.getinfo(part)
    except KeyError:
        refuse(name, "RunIncomplete", f"has no {part}: its run is incomplete, or it is no {_WHAT}")
    if info.file_size > LONGEST:
        refuse(name, "ResultsUnreadable", f"{part} is {info.file_size} bytes long, of at most {LONGEST}")
    if info.compress_type != ZSTANDARD:
        # zipfile stops at the size that it states, and compares the checksum.
        return archive.read(part)
    return _decompress(name, archive, info)


def _decompress(name: str, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """A part that zipfile cannot unpack, checked against its checksum."""
    import zstandard  # of the extra `evaluation`

    assert archive.fp is not None
    archive.fp.seek(info.header_offset)
    start = archive.fp.read(_LOCAL_HEADER)
    skipped = int.from_bytes(start[26:28], "little") + int.from_bytes(start[28:30], "little")
    archive.fp.seek(skipped, io.SEEK_CUR)
    packed = archive.fp.read(info.compress_size)
    try:
        unpacker = zstandard.ZstdDecompressor(max_window_size=WINDOW)
        # One byte more tells whether the part is longer than it states.
        content = unpacker.stream_reader(packed).read(info.file_size + 1)
    except zstandard.ZstdError as error:
        refuse(name, "ResultsUnreadable", f"{info.filename} cannot be unpacked: {error}")
    if len(content) != info.file_size or zlib.crc32(content) != info.CRC:
        refuse(name, "ResultsUnreadable", f"{info.filename} is damaged")
    return content


_LOCAL_HEADER = 30
"""Bytes of the fixed part of a zip's local file header; its last four are the lengths of name and extra field."""


TOOL = Tool(
    name=NAME,
    program=("inspect", "eval"),
    saving=("--log-dir", RESULTS_PLACE, "--log-format", "eval", "--display", "plain"),
    reserved=("--log-dir", "--log-format", "--display"),
    patterns=(RESULTS,),
    parse=parse,
)
