"""A Job's answer as lines of its log, and the seal that shows that no line is missing or altered.

The pod's log is best effort: kubelets rotate and cut it, and libraries write into it. So the termination message, which
the pod's status keeps, has the answer's length and hash. The reader refuses an answer that does not match them.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import zlib
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from llmops.config.catalog.spec import Strict
from llmops.errors import MeasurementFailed
from llmops.evaluation.fidelity.distances import Distances
from llmops.evaluation.measurements import Measurements

LINE_BYTES = 8 << 10
"""Bytes of the answer per line; container runtimes cut lines at 16 KiB."""
LONGEST_LOG = 4 << 20
"""Most bytes of an answer's lines: kubelets rotate logs at 10 MiB by default, and serve the newest file alone."""
LONGEST = 64 << 20
"""Most bytes of an unpacked answer."""


class _Line(Strict):
    event: Literal["answer"] = "answer"
    line: int
    data: str


class Answer(Strict):
    """The result of an order.

    Args:
        measurements: Measurements of the engine and, after a comparison, of the other engine.
        distances: How far each replica is from the reference.
        text: The completion that proves the engine.
        seconds: How long the work took, without the Job's start.
    """

    measurements: tuple[Measurements, ...] = ()
    distances: tuple[Distances, ...] = ()
    text: str = ""
    seconds: float = 0


class Seal(Strict):
    """Hash and size of the answer, to check its lines against."""

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    bytes: int
    lines: int


def write_answer(answer: Answer) -> tuple[list[str], Seal]:
    """The answer as lines of JSON, and its seal.

    Raises:
        MeasurementFailed: The answer is longer than a log reliably keeps.
    """
    packed = zlib.compress(answer.model_dump_json().encode(), 9)
    encoded = base64.b64encode(packed).decode()
    if len(encoded) > LONGEST_LOG:
        raise MeasurementFailed(
            f"the measurements are {len(encoded)} bytes, packed, of at most {LONGEST_LOG}",
            code="AnswerTooLarge",
            remedy="Split the suites, or set evaluate_from: here.",
        )
    parts = [encoded[start : start + LINE_BYTES] for start in range(0, len(encoded), LINE_BYTES)]
    lines = [_Line(line=index, data=part).model_dump_json() for index, part in enumerate(parts)]
    return lines, Seal(sha256=hashlib.sha256(packed).hexdigest(), bytes=len(packed), lines=len(lines))


def read_answer(log: str, seal: Seal) -> Answer:
    """The answer in a log.

    Raises:
        MeasurementFailed: Lines are missing or altered.
    """
    parts = _parts(log)
    missing = [index for index in range(seal.lines) if index not in parts]
    if missing:
        raise MeasurementFailed(
            f"{len(missing)} of {seal.lines} lines of the answer are missing in the log", code="AnswerIncomplete"
        )
    try:
        packed = base64.b64decode("".join(parts[index] for index in range(seal.lines)), validate=True)
    except binascii.Error as error:
        raise MeasurementFailed(f"the answer in the log is damaged: {error}", code="AnswerDamaged") from error
    if len(packed) != seal.bytes or hashlib.sha256(packed).hexdigest() != seal.sha256:
        raise MeasurementFailed(
            f"the answer in the log is damaged: {len(packed)} bytes of {seal.bytes}, or their SHA-256 differs",
            code="AnswerDamaged",
        )
    try:
        return Answer.model_validate_json(zlib.decompressobj().decompress(packed, LONGEST))
    except (zlib.error, ValidationError) as error:
        raise MeasurementFailed(
            f"the answer is of another version of llmops: {error}",
            code="OtherVersion",
            remedy="Set evaluation_image to the image of the version that runs the stages.",
        ) from error


def _parts(log: str) -> dict[int, str]:
    """The data of the answer's lines by line number; other lines of the log are skipped."""
    data: dict[int, str] = {}
    for line in log.splitlines():
        try:
            part = _Line.model_validate_json(line)
        except ValidationError:
            continue
        data[part.line] = part.data
    return data
