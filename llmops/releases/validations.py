"""The record of a model's last validation, as a ConfigMap: it survives the loss of Dagster's database."""

from __future__ import annotations

import datetime
from typing import Literal, get_args

from pydantic import Field

from llmops.clients.kubernetes.client import Cluster
from llmops.config import names
from llmops.config.schema import Strict, VerdictValue
from llmops.releases.store import Data, Store, record_labels

CheckName = Literal["weights", "figures", "fidelity", "drift"]

CHECKS: tuple[CheckName, ...] = get_args(CheckName)
RECORD = "validation"
KEY = "last.json"


class Finding(Strict):
    """One difference from the state in which the release was promoted."""

    subject: str = Field(description="The object, such as a file, a gate or a field; the same in each validation.")
    severity: Literal["warning", "error"]
    message: str = Field(description="One line: what changed, where, and by whom if known.")
    remedy: str = Field(description="What to do next.")
    since: str = Field(default="", description="First Dagster run of the validations in a row that found it.")


class CheckResult(Strict):
    """The result of one check.

    Failed has findings. Inconclusive could not measure, or not decide: it neither speaks against the release nor
    passes it.
    """

    check: CheckName
    value: VerdictValue
    line: str = Field(description="What was checked and how it ended, in a line.")
    findings: tuple[Finding, ...] = ()
    repaired: str = Field(default="", description="What llmops repaired; empty if nothing.")
    figures: dict[str, float] = Field(
        default_factory=dict[str, float], description="Measured figures; the names have the units."
    )
    seconds: float = 0.0

    @property
    def severity(self) -> Literal["ok", "warning", "error"]:
        """The worst of its findings; a warning if it is Inconclusive or llmops repaired the findings."""
        if self.value == "Passed":
            return "ok"
        wrong = any(finding.severity == "error" for finding in self.findings)
        return "error" if wrong and not self.repaired else "warning"


class Validation(Strict):
    """One validation of a model's stable release."""

    model: str
    release: str
    run: str
    requested_by: str
    started: datetime.datetime
    finished: datetime.datetime
    checks: tuple[CheckResult, ...]
    completed: datetime.datetime | None = Field(
        default=None, description="When a validation of the model last decided every check."
    )

    @property
    def complete(self) -> bool:
        """Whether every check decided."""
        return all(check.value != "Inconclusive" for check in self.checks)

    @property
    def severity(self) -> Literal["ok", "warning", "error"]:
        """The worst severity of its checks."""
        severities = {check.severity for check in self.checks}
        return "error" if "error" in severities else "warning" if "warning" in severities else "ok"

    def summary(self) -> str:
        """The result of each check, in a few words."""
        return ", ".join(
            f"{check.check} {check.value}{' (repaired)' if check.repaired else ''}" for check in self.checks
        )

    def line(self) -> str:
        """The results, in a line."""
        return f"{self.model} {self.release}: " + "; ".join(f"{check.check}: {check.line}" for check in self.checks)


class Validations:
    """Reads and writes the last validation of each model.

    Args:
        cluster: The cluster; the ConfigMaps are in its namespace.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._store = Store(cluster)

    def last(self, model: str) -> Validation | None:
        """The model's last validation; None without one."""
        return _read(self._store.data(names.validation_name(model)))

    def all(self) -> dict[str, Validation]:
        """The last validation of every validated model, by its name."""
        validations = (_read(stored.data) for stored in self._store.list({names.RECORD_LABEL: RECORD}))
        return {validation.model: validation for validation in validations if validation is not None}

    def save(self, validation: Validation) -> Validation:
        """Keep a validation as the model's last, with the time of the last complete one.

        Returns:
            The validation with that time.
        """
        model = validation.model
        before = self.last(model)
        completed = validation.finished if validation.complete else before.completed if before else None
        saved = validation.model_copy(update={"completed": completed})
        labels = record_labels(RECORD, model, saved.release)
        self._store.merge(names.validation_name(model), labels, {KEY: saved.model_dump_json()})
        return saved


def _read(data: Data) -> Validation | None:
    return Validation.model_validate_json(data[KEY]) if KEY in data else None
