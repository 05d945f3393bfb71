"""What the last validation of a model found, kept in the cluster: losing Dagster's database loses none of it."""

from __future__ import annotations

import datetime
from typing import Literal, get_args

from pydantic import Field

from llmops.clients.kubernetes.client import Cluster
from llmops.config import names
from llmops.config.schema import Strict, VerdictValue
from llmops.releases.store import Data, Store, record_labels

CheckName = Literal["weights", "figures", "drift"]

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
    value: VerdictValue
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
        severities = {check.severity for check in self.checks}
        return "error" if "error" in severities else "warning" if "warning" in severities else "ok"

    def summary(self) -> str:
        """How each check ended, in a few words."""
        return ", ".join(
            f"{check.check} {check.value}{' (repaired)' if check.repaired else ''}" for check in self.checks
        )

    def line(self) -> str:
        """How it ended, in a line."""
        return f"{self.model} {self.release}: " + "; ".join(f"{check.check}: {check.line}" for check in self.checks)


class Validations:
    """Reads and writes the last validation of each model.

    Args:
        cluster: Where they are kept; the ConfigMaps stand in its namespace.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._store = Store(cluster)

    def last(self, model: str) -> Validation | None:
        """The model's last validation; None if there was none."""
        return _read(self._store.data(names.validation_name(model)))

    def all(self) -> dict[str, Validation]:
        """The last validation of every model that has had one, by its name."""
        validations = (_read(stored.data) for stored in self._store.list({names.RECORD_LABEL: RECORD}))
        return {validation.model: validation for validation in validations if validation is not None}

    def save(self, validation: Validation) -> Validation:
        """Keep a validation as the model's last, with the time of the last one that was complete.

        Returns:
            What is kept.
        """
        model = validation.model
        before = self.last(model)
        completed = validation.finished if validation.complete else before.completed if before else None
        kept = validation.model_copy(update={"completed": completed})
        labels = record_labels(RECORD, model, kept.release)
        self._store.merge(names.validation_name(model), labels, {KEY: kept.model_dump_json()})
        return kept


def _read(data: Data) -> Validation | None:
    return Validation.model_validate_json(data[KEY]) if KEY in data else None
