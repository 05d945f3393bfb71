"""What a Job answers, as lines of its log, and how its reader knows that none is missing or altered.

The pod's log is best effort: it is rotated, cut, and mixed with what libraries write. So the answer's length and hash
are in the termination message, which is kept with the pod's status, and whatever does not match them is no answer.
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
from llmops.evaluation.measurements import Measurements

LINE_BYTES = 8 << 10
"""Of the answer in one line; container runtimes cut lines at 16 KiB."""
LONGEST_LOG = 4 << 20
"""Bytes of an answer's lines: kubelets begin a new log file at 10 MiB by default, and give out the newest alone."""
LONGEST = 64 << 20
"""Bytes of an answer unpacked."""


class _Line(Strict):
    event: Literal["answer"] = "answer"
    line: int
    data: str


class Answer(Strict):
    """What was found out.

    Args:
        measurements: Of the engine and, of a comparison, of the other.
        text: The completion that proves the engine.
        seconds: That it took, without what the Job around it takes.
    """

    measurements: tuple[Measurements, ...] = ()
    text: str = ""
    seconds: float = 0


class Seal(Strict):
    """What the answer's lines are held against."""

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    bytes: int
    lines: int


def write_answer(answer: Answer) -> tuple[list[str], Seal]:
    """The answer as lines of JSON, and its seal.

    Raises:
        MeasurementFailed: It is longer than a log can be trusted to keep.
    """
    packed = zlib.compress(answer.model_dump_json().encode(), 9)
    encoded = base64.b64encode(packed).decode()
    if len(encoded) > LONGEST_LOG:
        raise MeasurementFailed(
            f"what was measured is {len(encoded)} bytes, packed, of at most {LONGEST_LOG}",
            remedy="Split the suites, or set evaluate_from: here.",
        )
    parts = [encoded[start : start + LINE_BYTES] for start in range(0, len(encoded), LINE_BYTES)]
    lines = [_Line(line=index, data=part).model_dump_json() for index, part in enumerate(parts)]
    return lines, Seal(sha256=hashlib.sha256(packed).hexdigest(), bytes=len(packed), lines=len(lines))


def read_answer(log: str, seal: Seal) -> Answer:
    """The answer in a log.

    Raises:
        MeasurementFailed: Lines are missing, or are not what was written.
    """
    parts = _parts(log)
    missing = [index for index in range(seal.lines) if index not in parts]
    if missing:
        raise MeasurementFailed(f"{len(missing)} of {seal.lines} lines of the answer are missing in the log")
    try:
        packed = base64.b64decode("".join(parts[index] for index in range(seal.lines)), validate=True)
    except binascii.Error as error:
        raise MeasurementFailed(f"the answer in the log is damaged: {error}") from error
    if len(packed) != seal.bytes or hashlib.sha256(packed).hexdigest() != seal.sha256:
        raise MeasurementFailed(
            f"the answer in the log is damaged: {len(packed)} bytes of {seal.bytes}, or their SHA-256 differs"
        )
    try:
        return Answer.model_validate_json(zlib.decompressobj().decompress(packed, LONGEST))
    except (zlib.error, ValidationError) as error:
        raise MeasurementFailed(
            f"the answer is not understood: {error}",
            remedy="Set evaluation_image to the image of the version that runs the stages.",
        ) from error


def _parts(log: str) -> dict[int, str]:
    """The data of the answer's lines, by their numbers; everything else in the log is passed over."""
    data: dict[int, str] = {}
    for line in log.splitlines():
        try:
            part = _Line.model_validate_json(line)
        except ValidationError:
            continue
        data[part.line] = part.data
    return data
