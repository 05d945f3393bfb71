"""The rights of the installation: none is missing, and none is superfluous.

The test runs the whole path once as the service account; the API server's audit log has its requests. Then it asks the
API server's authorizer about the same roles without one right at a time, and runs the path without some of them.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from llmops_sandbox.cluster.binaries import find_or_build, find_or_build_kubectl
from llmops_sandbox.cluster.controlplane import ControlPlane
from llmops_sandbox.cluster.crds import install_crds
from llmops_sandbox.sandbox import Sandbox

from llmops.alerts.delivery import deliver
from llmops.alerts.outbox import Outbox
from llmops.cli.exits import Exit
from llmops.cli.rollouts import run_revalidation
from llmops.clients.kubernetes.client import Cluster
from llmops.clients.kubernetes.kinds import KINDS
from llmops.config import names
from llmops.config.catalog.spec import ModelSpec
from llmops.config.settings import load_settings
from llmops.errors import ClusterCannot
from llmops.manifests.companions import objects as around
from llmops.preflight.snapshot import survey
from llmops.rollout.ops.companions import applied_companions, apply_companions, remove_companions
from llmops.rollout.ops.routing.router import apply_router
from llmops.rollout.reaper import reap_all
from tests.e2e.installation.rights import (
    BASE,
    Authorizer,
    Request,
    Rule,
    account_kubeconfig,
    entries,
    granted,
    objects,
    requests,
    rules,
)
from tests.support.world import NODES, Model, new_model, put_faults

SERVING = "rights-serving.yaml"
ACCOUNT = "system:serviceaccount:llmops:llmops"
UNJUDGED: dict[str, Any] = {"suites": [], "gates": [], "protocol": False}

PROMETHEUS = "http://prometheus.monitoring:9090"
WAYS_TO_STAND_AROUND: tuple[tuple[dict[str, Any], dict[str, Any]], ...] = (
    (
        {"monitoring": {"monitor": "service-monitor"}},
        {"exposure": {"kind": "ingress", "host": "m.example.com"}, "autoscaling": {"kind": "queue"}},
    ),
    (
        {
            "monitoring": {"monitor": "pod-monitor", "prometheus_url": PROMETHEUS},
            "access": {"gateway": {"class_name": "gke-l7-regional-external-managed", "load_balancer": "gke"}},
        },
        {"exposure": {"kind": "gateway", "host": "m.example.com"}, "autoscaling": {"kind": "keda"}},
    ),
)
"""Settings and entries that together need every kind of companion."""

pytestmark = pytest.mark.timeout(900)


@dataclass(frozen=True)
class World:
    """A sandbox with only the installation's accounts and rights."""

    sandbox: Sandbox
    folder: Path

    @property
    def admin(self) -> Cluster:
        return Cluster.connect(load_settings(self.sandbox.settings_file))

    @property
    def audit_log(self) -> Path:
        return ControlPlane(self.sandbox.folder, find_or_build()).audit_log

    def kubectl(self, *arguments: str, given: str | None = None) -> str:
        command = [str(find_or_build_kubectl()), "--kubeconfig", str(self.sandbox.kubeconfig), *arguments]
        return subprocess.run(command, input=given, capture_output=True, text=True, check=True).stdout

    @contextmanager
    def acting_as(self, model: Model, account: str) -> Generator[None]:
        """During the block, act on the model as an account of the namespace llmops."""
        token = self.kubectl("create", "token", account, "--namespace", "llmops").strip()
        kubeconfig = account_kubeconfig(model.folder / f"{account}.kubeconfig", self.sandbox.kubeconfig, token)
        before = model.settings_file.read_text()
        settings = json.loads(before) | {"kubeconfig": str(kubeconfig), "history_limit": 2}
        model.settings_file.write_text(json.dumps(settings))
        try:
            yield
        finally:
            model.settings_file.write_text(before)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("rights")
    nodes = folder / "declared-nodes.yaml"
    nodes.write_text(json.dumps(NODES))
    sandbox = Sandbox(folder / "state", project=folder, nodes=nodes)
    sandbox.up()
    try:
        world = World(sandbox, folder)
        for name in ("namespaces.yaml", "accounts.yaml", SERVING):
            world.kubectl("apply", "--server-side", "--force-conflicts", "--filename", str(BASE / name))
        install_crds(world.admin)
        world.kubectl("apply", "--filename", "-", given=json.dumps(gke_definitions()))
        yield world
    finally:
        sandbox.down(erase=True)


def gke_definitions() -> dict[str, Any]:
    """Definitions of GKE's kinds that accept any content: Google publishes none."""
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    definitions: list[dict[str, Any]] = []
    for kind in (kind for kind in KINDS.values() if kind.group == "networking.gke.io"):
        version = kind.api.rpartition("/")[2]
        spec = {
            "group": kind.group,
            "scope": "Namespaced",
            "names": {"kind": kind.name, "plural": kind.plural},
            "versions": [{"name": version, "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}],
        }
        name = f"{kind.plural}.{kind.group}"
        api = "apiextensions.k8s.io/v1"
        metadata = {"name": name}
        definitions.append({"apiVersion": api, "kind": "CustomResourceDefinition", "metadata": metadata, "spec": spec})
    return {"apiVersion": "v1", "kind": "List", "items": definitions}


@pytest.fixture(scope="module")
def path_requests(world: World, tmp_path_factory: pytest.TempPathFactory) -> set[Request]:
    """Run the whole path as the account; returns its requests."""
    with new_model(world.sandbox, tmp_path_factory.mktemp("path")) as model:
        world.sandbox.hub_store.add_token("hf-x")
        world.kubectl("create", "secret", "generic", "hub", "--namespace", "llm-serving", "--from-literal=token=hf-x")
        with world.acting_as(model, "llmops"):
            do_everything(model, world.sandbox)
        return requests(world.audit_log, ACCOUNT)


def do_everything(model: Model, sandbox: Sandbox) -> None:
    """Everything that stages and automation do with a cluster, on success and failure."""
    weights = {"token": {"name": "hub", "key": "token"}}
    quick = {"keep_weights": 0, "stabilization_seconds": 1}

    # The first release fails after its promotion, and leaves nothing behind.
    model.declare(weights=weights, evaluation=UNJUDGED, rollout={"stabilization_seconds": 20})
    model.push("v0.32.0", die_after_seconds=4)
    ended = model.rollout()
    assert ended.code == Exit.REJECTED, ended.line

    # The next ones serve. llmops removes the weights and the record of the oldest.
    model.push("v0.33.0")
    for seed in range(3):
        commit = model.commit(branch=f"b{seed}", seed=seed)
        model.declare(weights=weights, evaluation=UNJUDGED, rollout=quick)
        if seed == 1:
            # A download fails; the next run replaces its Job.
            put_faults(sandbox, [{"path": "*.safetensors", "status": 403}])
            ended = model.rollout(revision=commit)
            assert ended.code not in (Exit.DONE, Exit.REJECTED), ended.line
            put_faults(sandbox, [])
        ended = model.rollout(revision=commit)
        assert ended.code == Exit.DONE, ended.line

    # A dead run holds the lease: llmops watches it before it takes it over.
    admin = Cluster.connect(load_settings(sandbox.settings_file))
    (lease,) = admin.list("Lease", labels={names.MODEL_LABEL: model.name})
    dead = {"holderIdentity": "a-dead-run", "renewTime": "2026-01-01T00:00:00.000000Z", "leaseDurationSeconds": 15}
    admin.patch("Lease", lease["metadata"]["name"], {"spec": dead})

    # A rollout with measurements, a rollback, and a validation.
    judged = {"suites": ["sums"], "gates": [{"metric": "sums/score", "min": 0.5}]}
    model.declare(weights=weights, evaluation=judged, rollout=quick)
    ended = model.rollout(revision=model.commit(branch="judged", seed=9))
    assert ended.code == Exit.DONE, ended.line
    ended = model.rollback()
    assert ended.code == Exit.DONE, ended.line
    looked = run_revalidation(model.records, model.name, repair=True, restore=True)
    assert looked.code == Exit.DONE, looked.line
    assert list(reap_all(model.platform, print, ended=lambda run: True)) == []
    deliver(Outbox(model.cluster), load_settings(model.settings_file))
    look_around(model)
    stand_around(model)
    try_router(model)


def look_around(model: Model) -> None:
    """The API server answers every question of the doctor's survey."""
    platform = model.platform
    assert survey(platform.cluster, platform.settings, platform.catalog.values()).unseen == {}


def stand_around(model: Model) -> None:
    """llmops applies each kind, finds it, and removes it when the entry no longer wants it."""
    stable = model.records.state(model.name).stable
    assert stable is not None
    release = model.records.release(model.name, stable)
    applied: set[str] = set()
    for settings, entry in WAYS_TO_STAND_AROUND:
        with changed_settings(model, settings):
            access = {"api_key": {"name": "vllm-api-key", "key": "key"}}
            spec = ModelSpec.model_validate(model.spec | entry | {"access": access})
            apply_companions(model.platform, spec, release, print)
            applied |= {obj["kind"] for obj in applied_companions(model.cluster, model.name)}
    assert applied == set(around.KINDS)
    remove_companions(model.platform, model.name, print)


def try_router(model: Model) -> None:
    """llmops applies the router and its objects, and waits. The router never starts: its image does not exist."""
    image = f"{model.image}:v0.0.0"
    key = {"name": "llmops-router", "key": "key"}
    router = {"enabled": True, "image": image, "master_key": key}
    with changed_settings(model, {"router": router}), pytest.raises(ClusterCannot, match="the router does not start"):
        apply_router(model.platform)


@contextmanager
def changed_settings(model: Model, changes: dict[str, Any]) -> Generator[None]:
    before = model.settings_file.read_text()
    model.settings_file.write_text(json.dumps(json.loads(before) | changes))
    try:
        yield
    finally:
        model.settings_file.write_text(before)


def test_the_whole_path_needs_no_right_that_the_account_lacks(world: World, path_requests: set[Request]) -> None:
    """Slow: the path has six rollouts."""
    assert path_requests
    refused = [
        f"{entry['verb']} {entry['requestURI']}"
        for entry in entries(world.audit_log, ACCOUNT)
        if entry["annotations"].get("authorization.k8s.io/decision") != "allow"
        or entry.get("responseStatus", {}).get("code") == 403
    ]
    assert refused == []


@pytest.mark.parametrize("rule", rules(SERVING), ids=str)
def test_without_any_one_right_the_path_breaks(world: World, path_requests: set[Request], rule: Rule) -> None:
    """Without the right, the same roles refuse requests of the path that need it, and no others."""
    authorizer, admin = Authorizer(world.sandbox.kubeconfig), world.admin
    user = f"without-{rule.verb}-{rule.resource}-{rule.role}".replace("/", "-")
    for obj in granted(SERVING, user, rule):
        admin.apply(obj)
    # The authorizer reads new roles a moment later: until then it refuses more.
    deadline = time.monotonic() + 10
    only = {(rule.verb, rule.group, rule.resource)}
    while (refused := kinds_of(authorizer.refused(path_requests, user))) != only and time.monotonic() < deadline:
        time.sleep(0.1)
    assert refused, f"nothing that the path asks for needs: {rule}"
    assert refused == only


def kinds_of(requests: set[Request]) -> set[tuple[str, str, str]]:
    return {(request.verb, request.group, request.resource) for request in requests}


@pytest.mark.parametrize(
    "right",
    [("create", "batch", "jobs"), ("list", "", "nodes"), ("create", "coordination.k8s.io", "leases")],
    ids=lambda right: "-".join(right),
)
def test_a_run_without_a_right_says_which_one_it_lacks(
    world: World, tmp_path: Path, right: tuple[str, str, str]
) -> None:
    """Slow: each starts a rollout."""
    verb, group, resource = right
    rule = next(
        candidate for candidate in rules(SERVING) if (candidate.verb, candidate.group, candidate.resource) == right
    )
    account = f"without-{verb}-{resource}"
    world.kubectl("create", "serviceaccount", account, "--namespace", "llmops")
    for obj in granted(SERVING, account, rule):
        if "subjects" in obj:
            obj["subjects"] = [{"kind": "ServiceAccount", "name": account, "namespace": "llmops"}]
        world.kubectl("apply", "--filename", "-", given=json.dumps(obj))
    with new_model(world.sandbox, tmp_path) as model:
        with world.acting_as(model, account):
            ended = model.rollout()
        assert ended.code in (Exit.CANNOT, Exit.INCONCLUSIVE), ended.line
        assert f'apiGroups: ["{group}"], resources: ["{resource}"], verbs: ["{verb}"]' in ended.line
        assert f"system:serviceaccount:llmops:{account}" in ended.line


def test_the_account_of_the_daemon_may_not_touch_a_model(world: World) -> None:
    """An account that only starts and ends runs has no right in the engines' namespace."""
    for obj in objects("rights-dagster.yaml"):
        world.kubectl("apply", "--filename", "-", given=json.dumps(obj))
    authorizer = Authorizer(world.sandbox.kubeconfig)
    user = "system:serviceaccount:llmops:dagster"
    for verb, group, resource in (("get", "", "configmaps"), ("get", "", "secrets"), ("create", "batch", "jobs")):
        assert not authorizer.allows(Request(user, verb, group, resource, "llm-serving"))
