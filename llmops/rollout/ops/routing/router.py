"""Configure the router in front of all models by the models' states."""

import datetime
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx2
import yaml

from llmops.alerts.left_out import lines_of
from llmops.clients.bounded import BoundedClient
from llmops.clients.kubernetes.problems import Conflict
from llmops.clients.kubernetes.wait import wait_for_rollout
from llmops.config import names
from llmops.config.catalog.load import Catalog
from llmops.config.catalog.routing import Routing
from llmops.config.catalog.spec import ModelSpec
from llmops.config.schema import SecretKey
from llmops.errors import BadInput, BadRelease, ClusterCannot, Unavailable
from llmops.manifests.engine import PULL_SECONDS
from llmops.manifests.pods import Manifest
from llmops.manifests.router import (
    CONFIG_FILE,
    LABELS,
    STARTUP_SECONDS,
    TENANTS_FILE,
    configured,
    configured_keys,
    drain_path,
    grace_seconds,
    objects,
)
from llmops.manifests.router.plan import RouterPlan, Serving, plan, routing_of
from llmops.releases.ledger import ledgers
from llmops.rollout.ops.companions import applied_companions
from llmops.rollout.outcomes import PromotionOutcome, RouterOutcome
from llmops.rollout.platform import Platform
from llmops.rollout.shown import Done
from llmops.worker.foreign import parse_json

KEPT = 10
"""Configurations that `apply_router` keeps besides the current one: another run may be about to apply a new one."""
ATTEMPTS = 50
"""Attempts to apply the Deployment while others change it: in a rollout its status changes a few times."""

REQUEST_SECONDS = 20.0
LONGEST_ANSWER = 4 << 20
"""Bytes of a list of models."""

Log = Callable[[str], None]


def follow(platform: Platform, promotion: PromotionOutcome, log: Log) -> Done[RouterOutcome]:
    """Route a model's name and aliases to the promoted release. Without a router, this does nothing."""
    began = time.monotonic()
    changed = apply_router(platform, log)
    seconds = round(time.monotonic() - began, 2)
    router = platform.cluster.get("Deployment", names.ROUTER) if platform.settings.router.enabled else None
    config = (configured(router) if router else None) or ""
    outcome = RouterOutcome(model=promotion.model, release=promotion.release, config=config, seconds=seconds)
    return Done(outcome, {"config": config, "changed": changed, "seconds": seconds})


@dataclass(frozen=True)
class Running:
    """What the router in the cluster has.

    Args:
        config: LiteLLM's configuration; empty without a router.
        secrets: Variable -> Secret and key of the API key in it.
        tenants: Namespace, models and limits of each tenant.
        keys: Tenant -> Secret and key of its API key.
    """

    config: dict[str, Any]
    secrets: dict[str, SecretKey]
    tenants: dict[str, dict[str, Any]]
    keys: dict[str, SecretKey]


NOTHING = Running({}, {}, {}, {})


@dataclass(frozen=True)
class Route:
    """A name that users may request.

    Args:
        name: Name of a model, an alias, or a model at a provider.
        leads_to: The releases that answer, with their shares of the requests if there are two.
        falls_back_to: The models that answer if those do not, in order.
        known: Whether the running router lists the name.
    """

    name: str
    leads_to: str
    falls_back_to: str
    known: bool


def routes(platform: Platform) -> list[Route]:
    """Every route that the models' states ask for, and whether the running router lists it.

    Raises:
        BadInput: The installation has no router (code NoRouter), the Secret of its master key is missing (code
            SecretMissing), or two models claim one name.
        Unavailable: The router does not answer (code RouterUnavailable).
    """
    settings = platform.settings
    if not settings.router.enabled:
        raise BadInput("this installation has no router", code="NoRouter", remedy="Set router.enabled in the settings.")
    config = _plan(platform).config
    listed = _listed_names(platform)
    targets: dict[str, list[str]] = {}
    for entry in config["model_list"]:
        weight = entry["litellm_params"].get("weight", 100)
        share = "" if weight == 100 else f" {weight}%"
        targets.setdefault(entry["model_name"], []).append(entry["model_info"]["id"] + share)
    router_settings = config["router_settings"]
    fallbacks = {
        name: ", ".join(models) for fallback in router_settings["fallbacks"] for name, models in fallback.items()
    }
    model_by_name = {name: name for name in targets} | router_settings["model_group_alias"]
    return [
        Route(name, ", ".join(targets[model]), fallbacks.get(name, ""), name in listed)
        for name, model in sorted(model_by_name.items())
    ]


def _listed_names(platform: Platform) -> set[str]:
    """The names of models that the running router lists."""
    settings = platform.settings
    secret = settings.router.master_key
    key = platform.cluster.secret_value(secret.name, secret.key)
    if not key:
        create = f"create secret generic {secret.name} --from-literal={secret.key}=sk-$(openssl rand -hex 24)"
        raise platform.cluster.missing_secret(secret.name, secret.key, "router.master_key", create)
    url = f"{platform.cluster.endpoint(names.ROUTER, names.ROUTER_PORT)}/v1/models"
    try:
        with BoundedClient(LONGEST_ANSWER, REQUEST_SECONDS) as client:
            answer = client.get(url, headers={"Authorization": f"Bearer {key}"}).raise_for_status()
        return {str(model["id"]) for model in parse_json(answer.content)["data"]}
    except (httpx2.HTTPError, ValueError, LookupError, TypeError) as error:
        raise Unavailable(
            f"the router does not list its models at {url}: {error}",
            code="RouterUnavailable",
            about=f"Deployment {names.ROUTER}",
            remedy=f"See its pods: kubectl get pods -n {settings.namespace} -l app.kubernetes.io/name={names.ROUTER}",
        ) from error


def router_objects(platform: Platform, before: Manifest | None) -> list[Manifest]:
    """The objects of the router, by the models' current states.

    Args:
        platform: The installation.
        before: The router's Deployment in the cluster.

    Raises:
        BadInput: Two models claim one name, the installation cannot do what the router's exposure asks for, or the file
            of a tenant has mistakes and an older llmops has configured the router: that did not note its namespace.
    """
    return objects(_plan(platform), platform.settings, drain_path(before))


def _plan(platform: Platform) -> RouterPlan:
    """The configuration by the models' states. What a file with mistakes has declared before stays as it is."""
    running = _running(platform) if platform.left_out or platform.tenants_left_out else NOTHING
    planned = plan(_serving(platform), _entries(platform, running), platform.tenants, platform.settings)
    kept: dict[str, dict[str, Any]] = {}
    for tenant, mistakes in platform.tenants_left_out.items():
        if tenant in running.tenants:
            if tenant not in running.keys or "namespace" not in running.tenants[tenant]:
                raise mistakes
            kept[tenant] = running.tenants[tenant]
    return planned.keeping(kept, {tenant: running.keys[tenant] for tenant in kept})


def apply_router(platform: Platform, log: Log = lambda line: None) -> bool:
    """Apply the router's configuration by the models' current states. Call this after every change of a state.

    This returns when no pod has an older configuration: from then on the router sends no request to a release that no
    longer serves. Two runs may call it at the same time: neither applies states older than the other's change.

    Args:
        platform: The installation.
        log: Gets a line for each change.

    Returns:
        Whether the router changed; False without a router.

    Raises:
        ClusterCannot: The new pods do not start (code RouterNotReady): the old pods keep serving. Or others keep
            changing the Deployment (code TooManyConflicts).
        BadInput: See `router_objects`.
    """
    settings = platform.settings
    if not settings.router.enabled:
        return False
    began = time.monotonic()
    for line in lines_of(platform.tenants_left_out):
        log(f"the router keeps what it has for a tenant: {line}")
    before, after = _apply(platform, log)
    # Wait even if nothing changed: a killed run may have left its rollout unfinished.
    try:
        wait_for_rollout(
            platform.cluster,
            names.ROUTER,
            timeout=PULL_SECONDS + STARTUP_SECONDS + grace_seconds(settings),
            drained=True,
        )
    except BadRelease as error:
        # A router that does not start is no fault of a model's release.
        raise ClusterCannot(
            f"the router does not start with its new configuration, its old pods keep serving: {error.message}",
            code="RouterNotReady",
            about=f"Deployment {names.ROUTER}",
            remedy=error.remedy or f"See its log: kubectl logs deployment/{names.ROUTER} -n {settings.namespace}",
        ) from error
    if changed := before != after:
        log(f"the router runs {after} after {time.monotonic() - began:.1f} s")
    _prune(platform, after)
    return changed


def _apply(platform: Platform, log: Log) -> tuple[str, str]:
    """Apply all objects; the Deployment's version before and after."""
    cluster = platform.cluster
    for _ in range(ATTEMPTS):
        # Read the Deployment before the states: if another run then applies later states, this apply conflicts.
        before = cluster.get("Deployment", names.ROUTER)
        *others, deployment = router_objects(platform, before)
        for obj in others:
            cluster.apply(obj)
        kept = {(obj["kind"], obj["metadata"]["name"]) for obj in others}
        for leftover in applied_companions(cluster, names.ROUTER):
            kind, name = leftover["kind"], leftover["metadata"]["name"]
            if (kind, name) not in kept:
                cluster.delete(kind, name, uid=leftover["metadata"]["uid"])
                log(f"{kind} {name} removed: the router no longer needs it")
        if before is not None:
            deployment["metadata"]["resourceVersion"] = before["metadata"]["resourceVersion"]
        try:
            after = cluster.apply(deployment)
        except Conflict as conflict:
            if conflict.managers:
                raise
            continue
        return _version(before), _version(after)
    raise ClusterCannot(
        f"cannot apply Deployment {names.ROUTER}: another manager changed it {ATTEMPTS} times meanwhile",
        code="TooManyConflicts",
        about=f"Deployment {names.ROUTER}",
        remedy=f"`kubectl get deployment {names.ROUTER} -o yaml --show-managed-fields` names the manager: stop it.",
    )


def _version(deployment: Mapping[str, Any] | None) -> str:
    """Configuration and generation of the Deployment, as a text to compare and to log."""
    if deployment is None:
        return ""
    return f"{configured(dict(deployment))} (generation {deployment['metadata']['generation']})"


def _prune(platform: Platform, version: str) -> None:
    """Remove all configurations but the current one and the newest of the others."""
    cluster = platform.cluster
    old = [
        config_map
        for config_map in cluster.list("ConfigMap", labels={names.COMPONENT_LABEL: LABELS[names.COMPONENT_LABEL]})
        if config_map["metadata"]["name"] != version.partition(" ")[0]
    ]
    old.sort(key=_created, reverse=True)
    for config_map in old[KEPT:]:
        cluster.delete("ConfigMap", config_map["metadata"]["name"], uid=config_map["metadata"]["uid"])


def _created(obj: Mapping[str, Any]) -> datetime.datetime:
    return datetime.datetime.fromisoformat(obj["metadata"]["creationTimestamp"])


def _entries(platform: Platform, running: Running) -> Catalog:
    """The models' entries. A model whose file has mistakes keeps the routing that the router has: it serves on."""
    kept = {
        model: ModelSpec.model_construct(
            name=model, routing=routing_of(running.config, running.secrets, model) if running.config else Routing()
        )
        for model in platform.left_out
    }
    return kept | dict(platform.catalog)


def _running(platform: Platform) -> Running:
    """What the router in the cluster has; nothing without a router."""
    router = platform.cluster.get("Deployment", names.ROUTER)
    name = configured(dict(router)) if router is not None else None
    stored = platform.cluster.get("ConfigMap", name) if name else None
    if router is None or stored is None:
        return NOTHING
    variables = router["spec"]["template"]["spec"]["containers"][0].get("env") or []
    references = {
        variable["name"]: variable["valueFrom"]["secretKeyRef"]
        for variable in variables
        if "secretKeyRef" in variable.get("valueFrom", {})
    }
    return Running(
        yaml.safe_load(stored["data"][CONFIG_FILE]),
        {name: SecretKey(name=reference["name"], key=reference["key"]) for name, reference in references.items()},
        json.loads(stored["data"][TENANTS_FILE]),
        configured_keys(dict(router)),
    )


def _serving(platform: Platform) -> dict[str, Serving]:
    """The releases that answer the users of each promoted model."""
    serving: dict[str, Serving] = {}
    states = {model: ledger.state for model, ledger in ledgers(platform.cluster).items()}
    for main in platform.cluster.list("Deployment", labels={names.TRACK_LABEL: "stable"}):
        model = main["metadata"]["labels"][names.MODEL_LABEL]
        if model not in states or states[model].stable is None:
            # The state was lost, or the model's first promotion is under way.
            states[model] = platform.records.state(model)
    for model, state in sorted(states.items()):
        # An unproven release keeps its users.
        stable = state.stable or state.unproven
        if stable is None or (model not in platform.catalog and model not in platform.left_out):
            continue
        canary = state.candidate if state.canary_percent and state.candidate != stable else None
        serving[model] = Serving(
            platform.records.release(model, stable),
            platform.records.release(model, canary) if canary else None,
            state.canary_percent if canary else 0,
        )
    return serving
