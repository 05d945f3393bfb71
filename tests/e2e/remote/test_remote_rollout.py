"""Whole rollouts in which Jobs inside the cluster measure and prove the engines.

Slow: each test is one or two rollouts.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from llmops_sandbox.sandbox import Sandbox
from ruamel.yaml import YAML

from llmops.cli.exits import Exit
from llmops.config import names
from llmops.config.catalog.spec import Evaluation
from llmops.config.settings import load_settings
from llmops.evaluation.backends.base import Session, Target
from llmops.evaluation.backends.job import JobBackend
from llmops.evaluation.suites import load_suites
from llmops.manifests.evaluation import COMPONENT
from tests.e2e.remote.apart import command, passage
from tests.support.dying import Point, Run
from tests.support.world import Model, measured, new_model


def set_up(model: Model, **settings: Any) -> None:
    """Change some of the installation's settings."""
    content = json.loads(model.settings_file.read_text())
    model.settings_file.write_text(json.dumps(content | settings))


def jobs_of(model: Model) -> list[dict[str, Any]]:
    labels = {names.MODEL_LABEL: model.name, names.COMPONENT_LABEL: COMPONENT}
    return model.cluster.list("Job", labels=labels)


def orders_of(model: Model) -> list[dict[str, Any]]:
    labels = {names.MODEL_LABEL: model.name, names.COMPONENT_LABEL: COMPONENT}
    return model.cluster.list("ConfigMap", labels=labels)


def until(done: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def served(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    """A serving model whose Jobs measured it; its tests leave it serving."""
    with new_model(sandbox, tmp_path_factory.mktemp("remote")) as model:
        set_up(model, evaluate_from="cluster")
        ended = model.rollout()
        assert ended.code == Exit.DONE, ended.line
        # The Jobs prove a completion, measure the suites and watch the promotion.
        tasks = sorted(job["metadata"]["name"].split("-")[-2] for job in jobs_of(model))
        assert tasks == ["measure", "prove", "watch"]
        yield model


def test_a_worse_release_is_rejected_with_the_same_words_as_from_here(served: Model) -> None:
    good = served.serving()
    revision = served.commit(branch="worse", quality=0.8)
    there = served.rollout(revision=revision)
    assert any("-compare-" in job["metadata"]["name"] for job in jobs_of(served))
    set_up(served, evaluate_from="here")
    try:
        here = served.rollout(revision=revision, retry=True)
    finally:
        set_up(served, evaluate_from="cluster")
    assert there.code == here.code == Exit.REJECTED, (there.line, here.line)
    assert there.record is not None
    assert here.record is not None
    assert (there.record.stage, there.record.reason) == (here.record.stage, here.record.reason)
    assert "sums/score dropped" in there.record.reason
    for figure in ("sums/score", "sums/error_rate", "sums/answered", "all/score"):
        assert there.record.figures[figure] == here.record.figures[figure]
    assert there.record.figures.keys() == here.record.figures.keys()
    assert served.serving() == good
    assert served.canary_gone()


def test_a_key_reaches_the_engine_and_is_nowhere_to_be_read(served: Model) -> None:
    key = secrets.token_hex(8)
    name = f"{served.name}-access"
    meta = {"name": name, "labels": {names.MODEL_LABEL: served.name}}
    served.cluster.apply({"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": {"key": key}})
    served.declare(access={"api_key": {"name": name, "key": "key"}})
    ended = served.rollout()
    assert ended.code == Exit.DONE, ended.line
    jobs, orders = jobs_of(served), orders_of(served)
    assert "-compare-" in json.dumps(jobs)
    assert key not in json.dumps([jobs, orders, served.cluster.list("Pod", labels={names.MODEL_LABEL: served.name})])
    pod: dict[str, Any] = jobs[0]["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True


def begun(model: Model, log: Path) -> Run:
    """A rollout of a new version whose canary is being measured."""
    model.push(f"v0.{40 + int(time.time()) % 100_000}.0")
    run = Run(model, log)
    try:
        until(lambda: measured(model), 90)
    except AssertionError:
        run.send(signal.SIGKILL)
        raise AssertionError(run.text) from None
    return run


def test_a_job_that_loses_its_pod_measures_again(served: Model, tmp_path: Path) -> None:
    def measuring() -> set[str]:
        """Names of the new pods of the Job that compares."""
        pods = served.cluster.list("Pod", labels={names.MODEL_LABEL: served.name})
        return {name for pod in pods if "-compare-" in (name := pod["metadata"]["name"]) and name not in earlier}

    earlier: set[str] = set()
    earlier = measuring()
    run = begun(served, tmp_path / "log")
    [lost] = measuring()
    served.cluster.delete("Pod", lost)
    assert run.wait() == Exit.DONE, run.text
    [again] = measuring() - {lost}
    assert served.cluster.get("Pod", again)["status"]["phase"] == "Succeeded"  # type: ignore[index]


def engines(model: Model) -> list[int]:
    """Processes of the canary's engine."""
    [pod] = model.cluster.list("Pod", labels=names.engine_selector(model.name, "canary"))
    pids: list[int] = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        if "llmops_sandbox.engine" in words and pod["status"]["podIP"] in words and not words[1].endswith("shim.py"):
            pids.append(int(folder.name))
    return pids


def test_an_engine_that_dies_while_it_is_measured_does_not_pass(served: Model, tmp_path: Path) -> None:
    good = served.serving()
    run = begun(served, tmp_path / "log")
    killed = engines(served)
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    assert killed
    assert run.wait() in (Exit.REJECTED, Exit.INCONCLUSIVE), run.text
    record = served.records.history(served.name)[0]
    assert record.stage == "evaluation"
    assert "restarted" in record.reason or "error_rate" in record.reason, record.reason
    until(lambda: served.serving() == good)
    until(served.canary_gone)


def test_a_run_that_is_cancelled_takes_its_job_away(served: Model, tmp_path: Path) -> None:
    served.push(f"v0.{40 + int(time.time()) % 100_000}.0")
    run = Run(served, tmp_path / "log", Point("measured", world=measured, signal=signal.SIGTERM))
    assert run.wait() == Exit.CANCELLED, run.text
    record = served.records.history(served.name)[0]

    def left() -> list[str]:
        objects = [*jobs_of(served), *orders_of(served)]
        mine = [obj for obj in objects if obj["metadata"]["labels"][names.RUN_LABEL] == record.run]
        return [obj["metadata"]["name"] for obj in mine if "-compare-" in obj["metadata"]["name"]]

    until(lambda: not left(), 30)


def test_a_job_of_a_run_that_was_killed_gives_way_to_the_next(served: Model, tmp_path: Path) -> None:
    """The old Job would put load on the engines for nobody."""
    served.push(f"v0.{40 + int(time.time()) % 100_000}.0")
    run = Run(served, tmp_path / "log", Point("measured", world=measured, signal=signal.SIGKILL))
    assert run.wait() == -signal.SIGKILL
    again = Run(served, tmp_path / "again")
    assert again.wait() == Exit.DONE, again.text
    runs = {job["metadata"]["labels"][names.RUN_LABEL] for job in jobs_of(served)}
    state = served.records.state(served.name)
    record = served.records.record(served.name, str(state.stable))
    assert record is not None
    assert runs == {record.run}


LOSSY = """
import subprocess, sys
program = [sys.executable, "-m", "llmops.evaluation.remote", *sys.argv[1:]]
done = subprocess.run(program, stdout=subprocess.PIPE, text=True)
lines = [line for line in done.stdout.splitlines(keepends=True)]
sys.stdout.writelines(line for line in lines if '"answer"' not in line or len(line) < 1000)
sys.exit(done.returncode)
"""


def test_an_answer_that_gets_lost_on_its_way_is_no_figure(served: Model, tmp_path: Path) -> None:
    """The Job is complete, but its result is missing, as after the kubelet has rotated the log."""
    good = served.serving()
    program = tmp_path / "lossy.py"
    program.write_text(LOSSY)
    served.sandbox.images.add("ghcr.io/tests/lossy", "1", ("{python}", str(program)))
    served.push(f"v0.{40 + int(time.time()) % 100_000}.0")
    set_up(served, evaluation_image="ghcr.io/tests/lossy:1")
    try:
        ended = served.rollout()
    finally:
        set_up(served, evaluation_image=json.loads(served.sandbox.settings_file.read_text())["evaluation_image"])
    assert ended.code == Exit.INCONCLUSIVE, ended.line
    assert ended.record is not None
    assert ended.record.stage == "evaluation"
    assert "lines of the answer are missing in the log" in ended.record.reason
    assert served.serving() == good
    assert served.canary_gone()


def test_an_image_that_is_not_there_says_nothing_against_the_release(served: Model) -> None:
    served.push(f"v0.{40 + int(time.time()) % 100_000}.0")
    set_up(served, evaluation_image="ghcr.io/tests/none:1")
    try:
        ended = served.rollout()
    finally:
        set_up(served, evaluation_image=json.loads(served.sandbox.settings_file.read_text())["evaluation_image"])
    assert ended.code == Exit.INCONCLUSIVE, ended.line
    assert "ghcr.io/tests/none:1" in ended.line


def test_where_the_service_is_reached_no_job_is_made(sandbox: Sandbox, tmp_path: Path) -> None:
    with new_model(sandbox, tmp_path) as model:
        assert model.rollout().code == Exit.DONE
        assert jobs_of(model) == []


def test_where_only_the_api_server_is_reached_jobs_measure(sandbox: Sandbox, tmp_path: Path) -> None:
    """Without the setting, in its own network namespace: llmops chooses a Job by itself, and logs that once."""
    kubeconfig = YAML(typ="safe").load(sandbox.kubeconfig)
    urls = [kubeconfig["clusters"][0]["cluster"]["server"], sandbox.url("hub"), sandbox.url("registry")]
    ports = [port for url in urls if (port := urlsplit(url).port)]
    sockets = tmp_path / "s"
    sockets.mkdir()
    with new_model(sandbox, tmp_path) as model, passage(sockets, ports):
        arguments = ["--settings", str(model.settings_file), "rollout", model.name]
        done = subprocess.run(
            command(sockets, ports, arguments),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=180,
            cwd=Path(__file__).parents[3],
            env={key: value for key, value in os.environ.items() if key != "DAGSTER_HOME"},
        )
        assert done.returncode == Exit.DONE, done.stdout
        assert done.stdout.count("cannot be reached from here") == 1, done.stdout
        assert len(jobs_of(model)) == 3
        assert model.serving()
        record = model.records.history(model.name)[0]
        assert record.figures["sums/score"] == 0.95


def test_a_run_that_goes_on_takes_what_was_measured_for_it(served: Model) -> None:
    """Dagster may resume a run whose process was killed. A second measurement of the same run measures again."""
    release = served.records.release(served.name, str(served.records.state(served.name).stable))
    target, spec = Target(release, "stable"), Evaluation(suites=("sums",))
    suites = load_suites(served.evals, spec.suites)
    lines: list[str] = []
    session = Session(served.cluster, load_settings(served.settings_file), secrets.token_hex(4), lines.append)
    first, resumed = (JobBackend(session, session.settings.evaluation_image) for _ in range(2))

    def names_of_jobs() -> set[str]:
        metas = [job["metadata"] for job in jobs_of(served)]
        return {meta["name"] for meta in metas if meta["labels"][names.RUN_LABEL] == session.run}

    measured = first.measure(target, suites, spec)
    [job] = names_of_jobs()
    assert resumed.measure(target, suites, spec) == measured
    assert names_of_jobs() == {job}
    again = resumed.measure(target, suites, spec)
    assert again.scores == measured.scores
    assert len(names_of_jobs()) == 2
    # An engine that answered the first time may be dead now.
    for _ in range(2):
        assert JobBackend(session, session.settings.evaluation_image).prove(target, timeout=10)
    assert sum("-prove-" in line and "created" in line for line in lines) == 2
