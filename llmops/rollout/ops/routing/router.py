"""After promotion: the router in front of all models knows what serves, and gives each model's users to it."""

import datetime
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx2

from llmops.clients.kubernetes.problems import Conflict
from llmops.clients.kubernetes.wait import wait_for_rollout
from llmops.config import names
from llmops.errors import BadInput, BadRelease, ClusterCannot, Unavailable
from llmops.manifests.engine import PULL_SECONDS
from llmops.manifests.pods import Manifest
from llmops.manifests.router import LABELS, STARTUP_SECONDS, configured, grace_seconds, objects
from llmops.manifests.router.plan import Serving, plan
from llmops.releases.ledger import ledgers
from llmops.rollout.ops.companions import leftovers
from llmops.rollout.outcomes import PromotionOutcome, RouterOutcome
from llmops.rollout.platform import Platform
from llmops.rollout.shown import Done

KEPT = 10
"""Configurations that are kept besides the one of now: somebody else may be about to apply one that is new."""
ROUNDS = 50
"""Attempts at a Deployment that others change at the same time: its status alone changes a few times in a rollout."""

ASK_SECONDS = 20.0

Log = Callable[[str], None]


def follow(platform: Platform, promotion: PromotionOutcome, log: Log) -> Done[RouterOutcome]:
    """Have the router lead a model's name and aliases to what was promoted. Nothing without a router."""
    began = time.monotonic()
    changed = apply_router(platform, log)
    seconds = round(time.monotonic() - began, 2)
    found = platform.cluster.get("Deployment", names.ROUTER) if platform.settings.router.enabled else None
    config = (configured(found) if found else None) or ""
    outcome = RouterOutcome(model=promotion.model, release=promotion.release, config=config, seconds=seconds)
    return Done(outcome, {"config": config, "changed": changed, "seconds": seconds})


@dataclass(frozen=True)
class Route:
    """A name that users may ask for.

    Args:
        name: Of a model, an alias, or a model at a provider.
        leads_to: What answers, with its share of the requests where two do.
        falls_back_to: What answers while that does not, in this order.
        known: Whether the running router lists it.
    """

    name: str
    leads_to: str
    falls_back_to: str
    known: bool


def routes(platform: Platform) -> list[Route]:
    """What the router has to lead to by the states of now, and whether it does.

    Raises:
        BadInput: There is no router, its master key is not there, or a name is given twice.
        Unavailable: It does not answer.
    """
    settings = platform.settings
    if not settings.router.enabled:
        raise BadInput("this installation has no router", remedy="Set router.enabled in the settings.")
    found = plan(_serving(platform), platform.catalog, platform.tenants, settings)
    known = _listed(platform)
    shares: dict[str, list[str]] = {}
    for each in found.config["model_list"]:
        weight = each["litellm_params"].get("weight", 100)
        share = "" if weight == 100 else f" {weight}%"
        shares.setdefault(each["model_name"], []).append(each["model_info"]["id"] + share)
    router_settings = found.config["router_settings"]
    others = {name: ", ".join(then) for each in router_settings["fallbacks"] for name, then in each.items()}
    names_of = {name: name for name in shares} | router_settings["model_group_alias"]
    return [
        Route(name, ", ".join(shares[model]), others.get(name, ""), name in known)
        for name, model in sorted(names_of.items())
    ]


def _listed(platform: Platform) -> set[str]:
    """The names that the running router lists."""
    settings = platform.settings
    secret = settings.router.master_key
    key = platform.cluster.secret_value(secret.name, secret.key)
    if not key:
        raise BadInput(
            f"Secret {secret.name} has no key {secret.key} in namespace {settings.namespace}",
            remedy=f"kubectl create secret generic {secret.name} -n {settings.namespace} "
            f"--from-literal={secret.key}=sk-$(openssl rand -hex 24)",
        )
    url = f"{platform.cluster.endpoint(names.ROUTER, names.ROUTER_PORT)}/v1/models"
    try:
        answer = httpx2.get(url, headers={"Authorization": f"Bearer {key}"}, timeout=ASK_SECONDS)
        answer.raise_for_status()
    except httpx2.HTTPError as error:
        raise Unavailable(
            f"the router does not list its models at {url}: {error}",
            remedy=f"kubectl get pods -n {settings.namespace} -l app.kubernetes.io/name={names.ROUTER}",
        ) from error
    return {str(each["id"]) for each in answer.json()["data"]}


def router_objects(platform: Platform) -> list[Manifest]:
    """The objects of the router as they have to be now: what each model's state says of who serves its users.

    Raises:
        BadInput: A name is given twice, or the installation can't do what the router's exposure asks for.
    """
    settings = platform.settings
    tenants = platform.tenants
    return objects(plan(_serving(platform), platform.catalog, tenants, settings), tenants, settings)


def apply_router(platform: Platform, log: Log = lambda line: None) -> bool:
    """Have the router go by what the models' states say now.

    It returns when no pod with an older configuration is left: from then on nobody is led to what is to serve no more.
    Whoever changes a state calls it after that. Two runs may do so at the same time: none applies what it read before
    the other one's change.

    Args:
        platform: The installation.
        log: Gets what changes.

    Returns:
        Whether anything changed; never without a router.

    Raises:
        ClusterCannot: The new configuration does not come up; the old pods go on serving.
        BadInput: See `router_objects`.
    """
    settings = platform.settings
    if not settings.router.enabled:
        return False
    began = time.monotonic()
    before, after = _apply(platform, log)
    # Of one that is as it was, too, the rollout is waited for: the run that began it may have died in the midst of it.
    try:
        wait_for_rollout(
            platform.cluster,
            names.ROUTER,
            timeout=PULL_SECONDS + STARTUP_SECONDS + grace_seconds(settings),
            drained=True,
        )
    except BadRelease as error:
        # What is bad is the router's, and says nothing of any model's release.
        raise ClusterCannot(
            f"the router does not start with its new configuration; the old one goes on: {error.message}",
            remedy=error.remedy or f"kubectl logs deployment/{names.ROUTER} -n {settings.namespace}",
        ) from error
    if changed := before != after:
        log(f"the router goes by {after} after {time.monotonic() - began:.1f} s")
    _prune(platform, after)
    return changed


def _apply(platform: Platform, log: Log) -> tuple[Any, str]:
    """Apply all objects; the Deployment's generation and configuration before, and those after."""
    cluster = platform.cluster
    for _ in range(ROUNDS):
        # First the Deployment, then the states: if another run applied later states meanwhile, its version has moved.
        found = cluster.get("Deployment", names.ROUTER)
        *around, deployment = router_objects(platform)
        for each in around:
            cluster.apply(each)
        kept = {(each["kind"], each["metadata"]["name"]) for each in around}
        for each in leftovers(cluster, names.ROUTER):
            if (each["kind"], each["metadata"]["name"]) not in kept:
                cluster.delete(each["kind"], each["metadata"]["name"], uid=each["metadata"]["uid"])
                log(f"{each['kind']} {each['metadata']['name']} removed: the router no longer has it")
        if found is not None:
            deployment["metadata"]["resourceVersion"] = found["metadata"]["resourceVersion"]
        try:
            applied = cluster.apply(deployment)
        except Conflict as conflict:
            if conflict.managers:
                raise
            continue
        return _mark(found), _mark(applied)
    raise ClusterCannot(
        f"Deployment {names.ROUTER} was changed by somebody else {ROUNDS} times while it was to be applied",
        remedy=f"`kubectl get deployment {names.ROUTER} -o yaml --show-managed-fields` says by whom.",
    )


def _mark(deployment: Mapping[str, Any] | None) -> str:
    """What changes with the Deployment's specification, for people, too."""
    if deployment is None:
        return ""
    return f"{configured(dict(deployment))} (generation {deployment['metadata']['generation']})"


def _prune(platform: Platform, current: str) -> None:
    """Remove configurations that nobody goes by any more, but the newest of them."""
    cluster = platform.cluster
    found = [
        each
        for each in cluster.list("ConfigMap", labels={names.COMPONENT_LABEL: LABELS[names.COMPONENT_LABEL]})
        if each["metadata"]["name"] != current.partition(" ")[0]
    ]
    found.sort(key=lambda each: datetime.datetime.fromisoformat(each["metadata"]["creationTimestamp"]), reverse=True)
    for each in found[KEPT:]:
        cluster.delete("ConfigMap", each["metadata"]["name"], uid=each["metadata"]["uid"])


def _serving(platform: Platform) -> dict[str, Serving]:
    """What answers the users of each model that has ever been promoted."""
    found: dict[str, Serving] = {}
    states = {model: ledger.state for model, ledger in ledgers(platform.cluster).items()}
    for main in platform.cluster.list("Deployment", labels={names.TRACK_LABEL: "stable"}):
        model = main["metadata"]["labels"][names.MODEL_LABEL]
        if model not in states or states[model].stable is None:
            # Lost, or its first release is being promoted.
            states[model] = platform.records.state(model)
    for model, state in sorted(states.items()):
        # Users of what may serve keep their way to it.
        stable = state.stable or state.unproven
        if model not in platform.catalog or stable is None:
            continue
        canary = state.candidate if state.canary_percent and state.candidate != stable else None
        found[model] = Serving(
            platform.records.release(model, stable),
            platform.records.release(model, canary) if canary else None,
            state.canary_percent if canary else 0,
        )
    return found
