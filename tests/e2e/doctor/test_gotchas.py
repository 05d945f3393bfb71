"""The doctor finds each usual mistake of a first installation, with a remedy, and nothing in a clean sandbox.

docs/start/doctor.md has the table of the findings: WRITE_DOCTOR_TABLE=1 writes it again.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from llmops_sandbox.sandbox import Sandbox

from llmops.cli.exits import Exit
from llmops.preflight.finding import Finding
from tests.e2e.doctor.gotchas import BAD, BAD_SETTINGS, GROWN, Gotcha, table
from tests.e2e.doctor.world import Ran, World
from tests.e2e.installation.rights import BASE

PAGE = Path(__file__).parents[3] / "docs" / "start" / "doctor.md"
BETWEEN = re.compile(r"(?<=<!-- gotchas -->\n).*(?=\n<!-- /gotchas -->)", re.DOTALL)
ENOUGH_SECONDS = 5.0
"""Of processor time, as other tests share the machine's clock."""

pytestmark = pytest.mark.timeout(600)


@dataclass(frozen=True)
class Seen:
    """What the doctor said: of a clean sandbox, as the installation and as an account that may see nothing of it; with
    everything wrong, and when an autoscaler may help."""

    clean: Ran
    installed: Ran
    blind: Ran
    bad: Ran
    grown: Ran

    def ran(self, gotcha: Gotcha) -> Ran:
        return self.grown if gotcha in GROWN else self.bad


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    folder = tmp_path_factory.mktemp("doctor")
    sandbox = Sandbox(folder / "state", project=folder)
    sandbox.up()
    try:
        world = World(sandbox, folder)
        world.prepare()
        world.declare("good")
        clean = world.doctor()
        for name in ("namespaces.yaml", "accounts.yaml", "rights-serving.yaml"):
            world.kubectl("apply", "--server-side", "--force-conflicts", "--filename", str(BASE / name))
        world.acting_as("llmops")
        installed = world.doctor()
        world.acting_as("dagster")
        blind = world.doctor()
        world.set()
        for gotcha in BAD:
            gotcha.make(world)
        world.set(**BAD_SETTINGS)
        world.settle()
        bad = world.doctor()
        for gotcha in GROWN:
            gotcha.make(world)
        grown = world.doctor("good", "full")
        yield Seen(clean, installed, blind, bad, grown)
    finally:
        sandbox.down(erase=True)


def test_a_clean_sandbox_is_clean(seen: Seen) -> None:
    """Starts a sandbox, makes every mistake in it, and runs the command five times."""
    assert {finding.severity for finding in seen.clean.findings} == {"ok"}
    assert (seen.clean.code, seen.clean.severity) == (Exit.DONE, "ok")
    assert seen.clean.seconds < ENOUGH_SECONDS
    assert {finding.model for finding in seen.clean.findings} == {"", "good"}


def test_the_installation_may_look_at_all_of_it(seen: Seen) -> None:
    assert seen.installed.findings == seen.clean.findings


def test_who_may_not_look_is_told_which_rights_are_missing(seen: Seen) -> None:
    findings = [finding for finding in seen.blind.findings if finding.severity != "ok"]
    assert {finding.severity for finding in findings} == {"unknown"}
    assert seen.blind.code == Exit.INCONCLUSIVE
    assert {finding.check for finding in findings} >= {"gpus.device-plugin", "volume.shared"}
    assert all(
        "apiGroups" in finding.remedy and "system:serviceaccount:llmops:dagster" in finding.remedy
        for finding in findings
    )


@pytest.mark.parametrize("gotcha", [*BAD, *GROWN], ids=lambda gotcha: f"{gotcha.check}-{gotcha.model}")
def test_it_is_found(seen: Seen, gotcha: Gotcha) -> None:
    """Once for all."""
    finding = gotcha.find(seen.ran(gotcha))
    assert finding.severity == gotcha.severity
    assert finding.remedy
    assert not [finding for finding in seen.clean.of(gotcha.check, gotcha.model) if finding.severity != "ok"]


def test_what_is_wrong_with_one_model_is_not_said_of_another(seen: Seen) -> None:
    """An unreadable entry does not hide the cluster's problems."""
    assert not [finding for finding in seen.bad.findings if finding.model == "good" and finding.severity == "error"]
    assert (seen.bad.code, seen.bad.severity) == (Exit.FOUND, "error")
    expected = {gotcha.model for gotcha in BAD if gotcha.severity == "error"}
    assert {finding.model for finding in seen.bad.findings if finding.severity == "error"} == expected


def test_the_page_has_what_was_found(seen: Seen) -> None:
    rows: list[tuple[Gotcha, Finding]] = [(gotcha, gotcha.find(seen.ran(gotcha))) for gotcha in (*BAD, *GROWN)]
    wanted = "\n".join(table(rows))
    if os.environ.get("WRITE_DOCTOR_TABLE"):
        PAGE.write_text(BETWEEN.sub(lambda _: wanted, PAGE.read_text()))
    (written,) = BETWEEN.findall(PAGE.read_text())
    assert written == wanted
