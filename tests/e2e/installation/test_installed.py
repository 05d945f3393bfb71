"""The installed system: Dagster and runs as pods, PostgreSQL beside them. Sensors start all runs.

Slow: four Dagster processes start, and one more for each run. The tests build on each other, in this order.
"""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
from llmops_sandbox.cluster.binaries import find_or_build
from llmops_sandbox.cluster.controlplane import ControlPlane
from llmops_sandbox.ui import Run

from llmops.clients.kubernetes.lease import holders
from tests.e2e.installation.conftest import Installed
from tests.e2e.installation.rights import entries, requests, rules

pytestmark = pytest.mark.timeout(900)
WAIT_SECONDS = 300.0
T = TypeVar("T")


def await_(what: Callable[[], T | None], installed: Installed, seconds: float = WAIT_SECONDS) -> T:
    """Wait until the value is truthy; returns it."""
    deadline = time.monotonic() + seconds
    while not (result := what()):
        runs = installed.dagster.runs()
        if time.monotonic() > deadline:
            log = installed.dagster.messages(runs[-1].id)[-8:] if runs else []
            raise AssertionError(f"not within {seconds} s; runs: {runs}; the last one's log: {log}")
        time.sleep(0.5)
    return result


def serving(installed: Installed, tag: str) -> Callable[[], str | None]:
    """For `await_`: the id of the release with this tag once it serves and its run has ended; None before."""
    model = installed.model

    def look() -> str | None:
        stable = model.records.state(model.name).stable
        if stable is None or model.serving() != stable or not model.canary_gone():
            return None
        return stable if model.records.release(model.name, stable).engine.tag == tag else None

    return look


def last_run(installed: Installed) -> Run:
    return installed.dagster.runs()[-1]


def pod_of(installed: Installed, run: str) -> dict[str, Any]:
    """The pod's spec in the Job that the launcher made for a run."""
    job = installed.cluster.get("Job", f"dagster-run-{run}")
    assert job is not None
    return job["spec"]["template"]["spec"]


def test_a_model_in_the_catalog_is_rolled_out_by_a_pod_with_nobody_touching_anything(installed: Installed) -> None:
    await_(serving(installed, "v0.32.0"), installed)
    run = next(run for run in installed.dagster.runs() if run.job == "rollout")
    assert run.model == installed.model.name
    assert "sensor" in run.requested_by
    pod = pod_of(installed, run.id)
    assert pod["serviceAccountName"] == "llmops"
    assert pod["terminationGracePeriodSeconds"] == 300
    assert pod["containers"][0]["securityContext"]["readOnlyRootFilesystem"]


def test_a_new_tag_is_promoted_and_a_bad_one_is_rejected_and_told(installed: Installed) -> None:
    model = installed.model
    model.push("v0.33.0")
    good = await_(serving(installed, "v0.33.0"), installed)

    model.push("v0.34.0", completions="error")
    alert = await_(lambda: next(iter(installed.receiver.alerts.values()), None), installed)

    assert model.serving() == good
    assert model.name in str(alert)
    assert "500" in str(alert)


def test_a_run_that_is_launched_in_the_ui_rolls_back(installed: Installed) -> None:
    model = installed.model
    back = model.records.state(model.name).previous
    # No sensor rolls the release out again: the rollback rejected its tag.
    run = installed.dagster.launch("rollback", config={"ops": {"roll_back": {"config": {"model": model.name}}}})
    assert installed.dagster.wait_end(run, WAIT_SECONDS) == "SUCCESS", installed.dagster.messages(run)[-8:]
    assert model.serving() == back


def test_a_run_that_is_terminated_in_the_ui_cleans_up(installed: Installed) -> None:
    model = installed.model
    before = model.serving()
    # Its canary never gets ready: there is time to terminate the run.
    model.push("v0.35.0", hang_on_load=True)
    await_(lambda: model.deployment("canary"), installed)
    run = last_run(installed)

    installed.dagster.terminate(run.id)

    await_(lambda: installed.dagster.status(run.id) == "CANCELED", installed, 120)
    await_(model.canary_gone, installed, 60)
    assert model.name not in holders(model.cluster)
    assert model.serving() == before
    assert installed.cluster.get("Job", f"dagster-run-{run.id}") is None


def test_metrics_and_reports_are_served(installed: Installed) -> None:
    service = installed.cluster.get("Service", "service")
    assert service is not None
    url = f"http://{service['spec']['clusterIP']}:8080"
    model = installed.model.name
    with urllib.request.urlopen(f"{url}/metrics", timeout=30) as answer:
        assert model in answer.read().decode()
    with urllib.request.urlopen(f"{url}/reports/{model}/{installed.model.serving()}", timeout=30) as answer:
        assert model in answer.read().decode()


def test_the_daemon_and_the_code_location_lack_no_right(installed: Installed) -> None:
    """The API server allowed every request of sensors, launcher and webserver in the tests above."""
    log = ControlPlane(installed.sandbox.folder, find_or_build()).audit_log
    for account in ("llmops", "dagster", "dagster-webserver", "llmops-service"):
        logged = entries(log, f"system:serviceaccount:llmops:{account}")
        assert logged
        refused = [
            f"{entry['verb']} {entry['requestURI']}"
            for entry in logged
            if entry.get("responseStatus", {}).get("code") == 403
        ]
        assert refused == []
    accounts = ("dagster", "dagster-webserver")
    sent = [request for account in accounts for request in requests(log, f"system:serviceaccount:llmops:{account}")]
    unused = {(rule.verb, rule.group, rule.resource) for rule in rules("rights-dagster.yaml")} - {
        (request.verb, request.group, request.resource) for request in sent
    }
    # Requests about a run that died.
    served = requests(log, "system:serviceaccount:llmops:llmops-service")
    assert {(rule.verb, rule.group, rule.resource) for rule in rules("service.yaml")} == {
        (request.verb, request.group, request.resource) for request in served
    }
    assert unused <= {("list", "batch", "jobs"), ("get", "", "pods/log"), ("list", "", "events")}
