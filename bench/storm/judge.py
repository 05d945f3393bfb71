"""Judges what a case left behind. Pure: `python -m bench.storm` looks, and this decides."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmops.cli.exits import Exit

KILLED = -9
"""Exit code of a run that an act has killed."""
MOST_RERUNS = 3
FAULTS = ("stable was down", "canary left", "untrue record", "fault of llmops")
"""The kinds of faults for which the bench fails."""
# A trace of Python or Dagster, and how `Trial.on_error` calls a fault of llmops. The quoted output of an engine is
# indented, or within a line of JSON.
_OWN_FAULT = re.compile(
    r"^(?:Traceback \(most recent call last\)|Stack Trace):|an error of llmops itself|InternalError|bug in llmops", re.M
)
_REPAIRS = re.compile(
    r"llmops revalidate [\w-]+ --restore"
    r"|kubectl (?:rollout resume|scale) deployment/[\w-]+ --namespace [\w-]+(?: --replicas N)?"
)


@dataclass(frozen=True)
class Attempt:
    """One run of a command by the operator.

    Args:
        command: Its arguments, from the name of the program on.
        code: Its exit code; negative for a signal.
        ending: What it says in the end, with the details of the record.
        log: Everything that it printed.
    """

    command: str
    code: int
    ending: str
    log: str = ""


@dataclass(frozen=True)
class Left:
    """What the cluster has of the model after a case.

    Args:
        stable: The stable release by the model's state.
        deployed: Release of the main Deployment; None without one.
        template: Release in its pod template.
        pods: Releases of its ready pods.
        canaries: What is left of a canary, as `Kind name`.
        opened: Releases whose trial has no end.
        verdicts: Release -> the verdict in force on it.
        answers: Whether an engine of main answers.
    """

    stable: str | None
    deployed: str | None
    template: str | None
    pods: Collection[str | None]
    canaries: Sequence[str] = ()
    opened: Sequence[str] = ()
    verdicts: Mapping[str, str] = field(default_factory=dict[str, str])
    answers: bool = True


@dataclass(frozen=True)
class Gap:
    """Seconds, on the monotonic clock, in which no ready pod of main answered."""

    began: float
    ended: float


def untrue(left: Left) -> list[str]:
    """What the records say of the cluster that is not so."""
    stable, wrong = left.stable, list[str]()
    if left.deployed != stable:
        wrong.append(f"the state calls {stable} stable, and the main Deployment has {left.deployed}")
    if left.template != left.deployed:
        wrong.append(f"the main Deployment is labelled {left.deployed}, and its pods {left.template}")
    if others := sorted({str(release) for release in left.pods} - {str(left.template)}):
        wrong.append(f"the main Deployment has {left.template}, and ready pods have {', '.join(others)}")
    if stable is not None and left.verdicts.get(stable, "Passed") != "Passed":
        wrong.append(f"{stable} is stable, and its record says {left.verdicts[stable]}")
    wrong += [f"the trial of {release} has no end" for release in left.opened]
    return wrong


def is_sound(left: Left) -> bool:
    """Whether stable answers, and is what the records say."""
    return left.answers and not untrue(left)


def down_by(gaps: Sequence[Gap], acted: float | None, *, harms: bool) -> tuple[float, float]:
    """Seconds without stable that llmops answers for, and those that the actor answers for.

    Args:
        gaps: When stable did not answer.
        acted: When the act began; None if it was not done.
        harms: Whether the act alone takes stable away: whatever follows it is the actor's.
    """
    own = actors = 0.0
    for gap in gaps:
        if harms and acted is not None and gap.ended > acted:
            actors += gap.ended - gap.began
        else:
            own += gap.ended - gap.began
    return round(own, 1), round(actors, 1)


def names_actor(attempts: Sequence[Attempt], changed: Sequence[str], manager: str) -> bool | None:
    """Whether an ending that is no promotion names the actor or a changed object; None if all went well.

    Of a file its name without folders is enough.
    """
    texts = [attempt.ending for attempt in attempts if attempt.code not in (Exit.DONE, KILLED)]
    wanted = [manager, *(change.rpartition(" ")[2].rpartition("/")[2] for change in changed)]
    return any(name in text for text in texts for name in wanted) if texts else None


def ending_of(log: str) -> str:
    """The sentence of a run that printed JSON, with the details of its record; otherwise the last lines of its log."""
    start = log.rfind("\n{\n") + 1 or (0 if log.startswith("{\n") else -1)
    if start >= 0:
        try:
            ended: dict[str, Any] = json.JSONDecoder().raw_decode(log, start)[0]
        except ValueError:
            pass
        else:
            details = str((ended.get("record") or {}).get("details") or "")
            return f"{ended.get('line', '')}\n{details}".strip()
    return "\n".join(log.strip().splitlines()[-20:])


def repairs(ending: str, replicas: int) -> list[list[str]]:
    """The commands that the remedy in an ending names, with this number of replicas where it leaves the number open."""
    commands = dict.fromkeys(match.group(0) for match in _REPAIRS.finditer(ending))
    return [[str(replicas) if word == "N" else word for word in command.split()] for command in commands]


def rerun_options(ending: str) -> list[str]:
    """Options of the next `llmops rollout`: `--retry` if the ending says so."""
    return ["--retry"] if "--retry" in ending else []


def own_faults(attempts: Sequence[Attempt]) -> list[str]:
    """Endings that show a stack trace, or a fault of llmops itself."""
    problems: list[str] = []
    for attempt in attempts:
        if match := _OWN_FAULT.search(f"{attempt.log}\n{attempt.ending}"):
            problems.append(f"{attempt.command}: {match.group(0)}")
        elif attempt.code == Exit.BUG:
            problems.append(f"{attempt.command}: exit code {attempt.code}")
    return problems


def faults(left: Left, attempts: Sequence[Attempt], down_seconds: float) -> list[str]:
    """All faults of a case, each with its kind from `FAULTS` in front."""
    down = [f"{down_seconds} s"] if down_seconds else []
    down += [] if left.answers else ["nothing answers in the end"]
    by_kind = zip(FAULTS, (down, list(left.canaries), untrue(left), own_faults(attempts)), strict=True)
    return [f"{kind}: {what}" for kind, problems in by_kind for what in problems]
