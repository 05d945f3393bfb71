"""Kinds of values, each with the rule that its consumer has: what is taken here is refused nowhere later."""

from __future__ import annotations

import datetime
import re
from decimal import Decimal
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator, Field

WHOLE = 2**31 - 1
"""Largest whole number: Kubernetes' replicas, ports and seconds have 32 bits."""
NUMBER = 1e12
"""Largest number with a fraction."""

QUANTITY = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,9})?)(m|k|Ki|[MGTPE]i?)?")
_UNITS = {"m": Decimal("0.001"), "k": Decimal(1000), "": Decimal(1)} | {
    f"{letter}{suffix}": Decimal(base) ** power
    for power, letter in enumerate("KMGTPE", start=1)
    for suffix, base in (("", 1000), ("i", 1024))
}


def _amount(value: str) -> Decimal:
    """A quantity as Kubernetes reads it (apimachinery/pkg/api/resource/quantity.go)."""
    if (match := QUANTITY.fullmatch(value)) is None:
        raise ValueError("must be a quantity of Kubernetes, such as 500m, 4, 32Gi or 1.5T")
    number, unit = match.groups(default="")
    return Decimal(number) * _UNITS[unit]


def _cpu(value: str) -> str:
    amount = _amount(value)
    if not Decimal("0.001") <= amount <= 100_000 or amount % Decimal("0.001"):
        raise ValueError("must be from 1m to 100k CPUs, in whole thousandths")
    return value


def _memory(value: str) -> str:
    amount = _amount(value)
    if not 1 << 20 <= amount <= 1 << 60 or amount % 1:
        raise ValueError("must be from 1Mi to 1Ei, in whole bytes: a number without a unit is bytes")
    return value


def _cron(value: str) -> str:
    """What Dagster takes (`is_valid_cron_string`: five fields of croniter's) and cronsim takes as well.

    Only plain fields: `L`, `W`, `#` and `?` mean other things to other programs.
    """
    try:
        if len(value) > 100 or not re.fullmatch(r"[0-9a-z*,/ -]+", value, re.ASCII | re.IGNORECASE):
            raise CronSimError
        if len(value.split()) != 5 or re.search(r"(?<![a-z])l", value, re.IGNORECASE):
            raise CronSimError
        times = CronSim(value, datetime.datetime.now(datetime.UTC))
        next(times)
        # Dagster refuses this even with a day of the week beside it.
        if set(times.months) == {2} and set(times.days) in ({30}, {31}):
            raise CronSimError
    except (CronSimError, StopIteration) as error:
        raise ValueError("must be a cron expression of five fields, such as '0 3 * * *'") from error
    return value


def _zone(value: str) -> str:
    try:
        ZoneInfo(value)
        if not re.fullmatch(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*", value) or value in ("posixrules", "Factory"):
            raise ValueError(value)
    # A folder of the database, or a name that no file can have, is an OSError.
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError("must be a time zone of the IANA database, such as Europe/Berlin") from error
    return value


_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PORT = r"(?::(?P<port>[0-9]{1,5}))?"
_LABEL = r"[a-z0-9]+(?:-+[a-z0-9]+)*"
_IMAGE = re.compile(rf"(?:(?:localhost|{_LABEL}(?:\.{_LABEL})+|{_LABEL}(?=:)){_PORT}/)?{_COMPONENT}(?:/{_COMPONENT})*")
LONGEST_IMAGE = 255


def image_repository(value: str) -> str:
    """An image's repository, as container runtimes parse it (distribution/reference), in lower case."""
    if "@" in value:
        raise ValueError("must be a repository without a digest; the release pins the tag's digest")
    if ":" in value.rsplit("/", 1)[-1]:
        raise ValueError("must be a repository without a tag; the tag is a field of its own")
    match = _IMAGE.fullmatch(value) if len(value) <= LONGEST_IMAGE else None
    if match is None or not 0 < int(match["port"] or 1) < 65536:
        raise ValueError("must be an image repository in lower case, such as vllm/vllm-openai or ghcr.io/owner/name")
    return value


_PART = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?")


def _hub_repository(value: str) -> str:
    """What the hub's client takes (`validate_repo_id`), with an owner."""
    parts = value.split("/")
    if len(parts) != 2 or not all(map(_PART.fullmatch, parts)):
        raise ValueError("must be a Hub repository, owner/name, of letters, digits, '-', '_' and '.'")
    if "--" in value or ".." in value or value.endswith(".git"):
        raise ValueError("must be a Hub repository without '--' and '..', and not end with .git")
    return value


Cpu = Annotated[str, AfterValidator(_cpu)]
"""A quantity of CPUs."""
Memory = Annotated[str, AfterValidator(_memory)]
"""A quantity of bytes."""
Cron = Annotated[str, AfterValidator(_cron)]
Zone = Annotated[str, AfterValidator(_zone)]
ImageRepository = Annotated[str, AfterValidator(image_repository)]
HubRepository = Annotated[str, AfterValidator(_hub_repository)]
BaseUrl = Annotated[str, Field(pattern=r"^https?://[^/\s]\S*$")]
Namespace = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]
"""A DNS label."""
ObjectName = Annotated[
    str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$", max_length=253)
]
"""A DNS subdomain: what most objects of Kubernetes may be called."""
SuiteName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
ProtocolTopic = Literal[
    "chat", "tools", "json", "stream", "limits", "choices", "logprobs", "usage", "reasoning", "text", "errors", "turns"
]
"""Parts of the OpenAI API that the protocol's checks are about."""
LABEL_VALUE = r"^[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"
"""A label's value (RFC 1123's characters, as apimachinery/pkg/util/validation has them)."""
