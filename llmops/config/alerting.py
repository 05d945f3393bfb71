"""The kinds of alerts, and the targets that get them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal, get_args

from pydantic import Field, model_validator

from llmops.config.schema import SecretKey, Strict

AlertKind = Literal[
    "rejected",
    "rolled_back",
    "inconclusive",
    "validation_finding",
    "run_failed",
    "run_stuck",
    "run_cancelled",
    "sensor_failing",
    "left_out",
    "costs",
    "promoted",
]
Severity = Literal["info", "warning", "error"]

ALERT_KINDS: tuple[AlertKind, ...] = get_args(AlertKind)
SEVERITIES: tuple[Severity, ...] = get_args(Severity)
"""Least first."""

TARGET_KINDS: Mapping[str, str] = {
    "slack": "an incoming webhook of Slack, or of what speaks like it",
    "webhook": "signed JSON after the Standard Webhooks specification",
    "apprise": "any service that apprise knows, by its URL",
}
"""Kinds of targets, for people. To add one, add a line here and its file `llmops/alerts/targets/KIND.py`."""

if TYPE_CHECKING:
    TargetKind = str
else:
    # Pydantic refuses other kinds and names these.
    TargetKind = Literal[tuple(TARGET_KINDS)]


class AlertTarget(Strict):
    """One place that alerts are sent to."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?$")] = Field(
        description="Name for logs and for the marks of what was delivered; a target with a new name is a new one."
    )
    kind: TargetKind = Field(
        description="; ".join(f"{kind}: {meaning}" for kind, meaning in TARGET_KINDS.items()) + "."
    )
    url: SecretKey = Field(description="Where to send to; in a Secret, since such a URL is a password.")
    signing_key: SecretKey | None = Field(
        default=None, description="Key that a webhook's messages are signed with: whsec_ and base64 of 24 to 64 bytes."
    )
    kinds: tuple[AlertKind, ...] = Field(
        default=tuple(kind for kind in ALERT_KINDS if kind != "promoted"), description="Alerts that it gets."
    )
    min_severity: Severity = Field(default="info", description="Least severity of those.")

    @model_validator(mode="after")
    def _signed(self) -> AlertTarget:
        if (self.kind == "webhook") != (self.signing_key is not None):
            raise ValueError("signing_key is for kind webhook, and that needs one")
        return self

    def wants(self, kind: AlertKind, severity: Severity) -> bool:
        """Whether it gets alerts of this kind and severity."""
        return kind in self.kinds and SEVERITIES.index(severity) >= SEVERITIES.index(self.min_severity)
