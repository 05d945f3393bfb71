"""What the last validation of a model found, kept in the cluster: losing Dagster's database loses none of it."""

from __future__ import annotations

import datetime
from typing import Literal, get_args

from pydantic import Field

from llmops.clients.kubernetes.client import Cluster
from llmops.clients.kubernetes.problems import AlreadyExists, NotFound
from llmops.config import names
from llmops.config.catalog.spec import Strict

CheckName = Literal["weights", "figures", "drift"]
CheckValue = Literal["Passed", "Failed", "Inconclusive"]

CHECKS: tuple[CheckName, ...] = get_args(CheckName)
RECORD = "validation"
KEY = "last.json"


class Finding(Strict):
    """One thing that is not as it was when the release was promoted."""

    subject: str = Field(
        description="What it is about, such as a file, a gate or a field: the same one time after time."
    )
    severity: Literal["warning", "error"]
    message: str = Field(description="One line: what, where, and by whom if that is known.")
    remedy: str = Field(description="What to do next.")
    since: str = Field(default="", description="Dagster run that found it first, and since when it was always found.")


class CheckResult(Strict):
    """How one check ended.

    Failed is a check with findings. Inconclusive could not be made, or could not tell: it says nothing against the
    release, and is no pass.
    """

    check: CheckName
    value: CheckValue
    line: str = Field(description="What was checked and how it ended, in a line.")
    findings: tuple[Finding, ...] = ()
    repaired: str = Field(default="", description="What was set right because of the findings; empty if nothing was.")
    figures: dict[str, float] = Field(
        default_factory=dict[str, float], description="What was measured; units are part of the names."
    )
    seconds: float = 0.0

    @property
    def severity(self) -> Literal["ok", "warning", "error"]:
        """The worst of its findings; a warning where it could not tell, or where what was found is set right."""
        if self.value == "Passed":
            return "ok"
        wrong = any(finding.severity == "error" for finding in self.findings)
        return "error" if wrong and not self.repaired else "warning"


class Validation(Strict):
    """One validation of what serves of a model."""

    model: str
    release: str
    run: str
    requested_by: str
    started: datetime.datetime
    finished: datetime.datetime
    checks: tuple[CheckResult, ...]
    completed: datetime.datetime | None = Field(
        default=None, description="When a validation of the model last came to a conclusion in every check."
    )

    @property
    def complete(self) -> bool:
        """Whether every check could tell."""
        return all(check.value != "Inconclusive" for check in self.checks)

    @property
    def severity(self) -> Literal["ok", "warning", "error"]:
        """The worst of its checks."""
        found = {check.severity for check in self.checks}
        return "error" if "error" in found else "warning" if "warning" in found else "ok"

    def summary(self) -> str:
        """How each check ended, in a few words."""
        return ", ".join(f"{each.check} {each.value}{' (repaired)' if each.repaired else ''}" for each in self.checks)

    def line(self) -> str:
        """How it ended, in a line."""
        return f"{self.model} {self.release}: " + "; ".join(f"{check.check}: {check.line}" for check in self.checks)


class Validations:
    """Reads and writes the last validation of each model.

    Args:
        cluster: Where they are kept; the ConfigMaps stand in its namespace.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    def last(self, model: str) -> Validation | None:
        """The model's last validation; None if there was none."""
        found = self.cluster.get("ConfigMap", names.validation_name(model))
        return _validation(found) if found is not None else None

    def all(self) -> dict[str, Validation]:
        """The last validation of every model that has had one, by its name."""
        found = map(_validation, self.cluster.list("ConfigMap", labels={names.RECORD_LABEL: RECORD}))
        return {each.model: each for each in found}

    def save(self, validation: Validation) -> Validation:
        """Keep a validation as the model's last, with the time of the last one that was complete.

        Returns:
            What is kept.
        """
        before = self.last(validation.model)
        completed = validation.finished if validation.complete else before.completed if before else None
        kept = validation.model_copy(update={"completed": completed})
        labels = names.labels(kept.model, kept.release, "record") | {names.RECORD_LABEL: RECORD}
        body = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": names.validation_name(kept.model), "labels": labels},
            "data": {KEY: kept.model_dump_json()},
        }
        change = {"metadata": {"labels": labels}, "data": body["data"]}
        try:
            self.cluster.patch("ConfigMap", names.validation_name(kept.model), change)
        except NotFound:
            try:
                self.cluster.create(body)
            except AlreadyExists:
                self.cluster.patch("ConfigMap", names.validation_name(kept.model), change)
        return kept


def _validation(found: dict[str, dict[str, str]]) -> Validation:
    return Validation.model_validate_json(found["data"][KEY])
