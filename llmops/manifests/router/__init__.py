"""The objects of the router in front of all models: LiteLLM's proxy, its configuration and its network policy.

One ConfigMap, named by its content, has the whole configuration: the files of a running pod never change, and a new
configuration rolls the Deployment. All new pods start at once, and the old pods end after their last answer. A change
takes as long as LiteLLM's start, which is half a minute on a slow machine.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterable, Mapping
from importlib.resources import files

import yaml

from llmops.config import names
from llmops.config.schema import SecretKey
from llmops.config.settings import Settings
from llmops.config.settings.network import Peer
from llmops.manifests import drain, pods
from llmops.manifests.companions.exposure import Backend, WayIn, way_in
from llmops.manifests.companions.network import LINK_LOCAL, LINK_LOCAL_IPV6, ROUTER_COMPONENT, peers
from llmops.manifests.pods import TEMPORARY_MOUNT, Manifest, mount, variable
from llmops.manifests.router.plan import RouterPlan

LABELS = {
    names.SURROUNDS_LABEL: names.ROUTER,
    "app.kubernetes.io/name": names.ROUTER,
    names.COMPONENT_LABEL: ROUTER_COMPONENT,
    "app.kubernetes.io/part-of": "llmops",
    "app.kubernetes.io/managed-by": "llmops",
}
SELECTOR = {"app.kubernetes.io/part-of": "llmops", names.COMPONENT_LABEL: ROUTER_COMPONENT}
PORT_NAME = "http"
READY_PATH = "/health/readiness"
CONFIG_FILE = "config.yaml"
TENANTS_FILE = "tenants.json"
MODULE_FILES = ("llmops_router.py", "llmops_gate.py", "llmops_tracks.py")
DRAIN_VARIABLE = "LLMOPS_ROUTER_DRAIN"
CONFIG_MOUNT = "/etc/llmops-router"
MODULES = "modules"
KEYS_MOUNT = "/etc/llmops-router-keys"
STARTUP_SECONDS = 300
"""Longest time in which LiteLLM starts: it takes 13 s on a fast machine, 45 s with little CPU and no bytecode."""
SHUTDOWN_MARGIN = 15
IDLE_CONNECTION_SECONDS = 2
"""How long the router keeps an idle connection to an engine. The engine keeps it longer, so the router closes first."""

_MODULES = {name: files(__name__).joinpath(name).read_text() for name in MODULE_FILES}


def grace_seconds(settings: Settings) -> int:
    """Seconds from a pod's deletion until the kubelet kills it: new requests stop, old ones end, the proxy ends."""
    return settings.router.unroute_seconds + settings.router.drain_seconds + SHUTDOWN_MARGIN


def drain_path(deployment: Manifest | None) -> str:
    """The path that drains a pod of the router: its Deployment's, or a new one of 192 random bits: nobody guesses it.

    Whoever knows it can have each answer close its connection. The kubelet takes no Secret for a hook, so that it is in
    the pod's template, where those read it who may read pods.
    """
    if deployment is not None:
        for container in deployment["spec"]["template"]["spec"]["containers"]:
            for declared in container.get("env") or ():
                if declared["name"] == DRAIN_VARIABLE and declared.get("value"):
                    return declared["value"]
    return f"{drain.PATH}/{secrets.token_urlsafe(24)}"


def objects(plan: RouterPlan, settings: Settings, hidden: str) -> list[Manifest]:
    """All objects of the router, in the order to apply them: the Deployment, which starts the change, comes last.

    Args:
        plan: Its configuration.
        settings: The installation.
        hidden: The path that drains a pod; see `drain_path`.

    Raises:
        BadInput: The installation's ingress controller lacks a feature that the exposure declares.
    """
    config = config_map(plan, settings)
    return [
        config,
        _service(settings),
        _disruption_budget(settings),
        *([_network_policy(plan, settings)] if settings.network.enforce else []),
        *way_in(_way_in(settings), settings),
        _deployment(plan, config["metadata"]["name"], settings, hidden),
    ]


def _way_in(settings: Settings) -> WayIn:
    return WayIn(
        name=names.ROUTER,
        labels=LABELS,
        exposure=settings.router.exposure,
        stable=Backend(names.ROUTER, names.ROUTER_PORT),
        health_path=READY_PATH,
    )


def config_map(plan: RouterPlan, settings: Settings) -> Manifest:
    """The configuration, the modules that let tenants in, and the module that drains a pod. No secrets."""
    data = {
        CONFIG_FILE: yaml.safe_dump(plan.config, sort_keys=False, allow_unicode=True, width=120),
        TENANTS_FILE: json.dumps(plan.tenants, indent=1, sort_keys=True),
        **_MODULES,
        drain.FILE: drain.SOURCE,
    }
    mark = hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:10]
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _metadata(settings, f"{names.ROUTER}-{mark}"),
        "immutable": True,
        "data": data,
    }


def _deployment(plan: RouterPlan, config: str, settings: Settings, hidden: str) -> Manifest:
    router = settings.router
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(settings, names.ROUTER),
        "spec": {
            "replicas": router.replicas,
            "revisionHistoryLimit": 2,
            "selector": {"matchLabels": SELECTOR},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "100%", "maxUnavailable": 0}},
            "template": {
                "metadata": {"labels": dict(LABELS)},
                "spec": {
                    "topologySpreadConstraints": [
                        {
                            "maxSkew": 1,
                            "topologyKey": "kubernetes.io/hostname",
                            "whenUnsatisfiable": "ScheduleAnyway",
                            "labelSelector": {"matchLabels": SELECTOR},
                        }
                    ],
                    "automountServiceAccountToken": False,
                    "enableServiceLinks": False,
                    "securityContext": pods.pod_security(router.user),
                    "terminationGracePeriodSeconds": grace_seconds(settings),
                    "containers": [_container(plan, settings, hidden)],
                    "volumes": [
                        {"name": "config", "configMap": {"name": config, "items": _items()}},
                        {"name": "keys", "projected": {"defaultMode": 0o444, "sources": _key_sources(plan)}},
                        pods.empty_volume(pods.TEMPORARY_VOLUME),
                    ],
                },
            },
        },
    }


def _items() -> list[Manifest]:
    """Paths of the files. LiteLLM would load a module beside its configuration twice, so modules have a folder."""
    paths = {name: name for name in (CONFIG_FILE, TENANTS_FILE)}
    paths |= {name: f"{MODULES}/{name}" for name in (*MODULE_FILES, drain.FILE)}
    return [{"key": key, "path": path} for key, path in paths.items()]


def _key_sources(plan: RouterPlan) -> list[Manifest]:
    """Each tenant's key as a file with the tenant's name. A missing key shuts out its tenant alone."""
    return [
        {"secret": {"name": key.name, "optional": True, "items": [{"key": key.key, "path": tenant}]}}
        for tenant, key in sorted(plan.keys.items())
    ]


def _container(plan: RouterPlan, settings: Settings, hidden: str) -> Manifest:
    router = settings.router
    ready: Manifest = {"httpGet": {"path": READY_PATH, "port": PORT_NAME}, "timeoutSeconds": 5}
    alive: Manifest = {"httpGet": {"path": "/health/liveliness", "port": PORT_NAME}, "timeoutSeconds": 10}
    return {
        "name": names.ROUTER_CONTAINER,
        "image": router.image,
        "imagePullPolicy": "IfNotPresent",
        "args": [f"--config={CONFIG_MOUNT}/{CONFIG_FILE}", "--host=0.0.0.0", f"--port={names.ROUTER_PORT}"],
        "env": _environment(plan, settings, hidden),
        "ports": [{"name": PORT_NAME, "containerPort": names.ROUTER_PORT, "protocol": "TCP"}],
        "resources": {
            "requests": {"cpu": router.cpu, "memory": router.memory},
            # No CPU limit: LiteLLM starts faster with more, and every answer passes through it.
            "limits": {"memory": router.memory},
        },
        "volumeMounts": [
            mount("config", CONFIG_MOUNT, read_only=True),
            mount("keys", KEYS_MOUNT, read_only=True),
            mount(pods.TEMPORARY_VOLUME, TEMPORARY_MOUNT),
        ],
        "startupProbe": ready | {"periodSeconds": 1, "failureThreshold": STARTUP_SECONDS},
        "readinessProbe": ready | {"periodSeconds": 2, "failureThreshold": 3},
        "livenessProbe": alive | {"periodSeconds": 10, "failureThreshold": 6},
        "lifecycle": {
            "preStop": drain.hook_within(router.unroute_seconds, router.drain_seconds, PORT_NAME, path=hidden)
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": pods.container_security(),
    }


def _environment(plan: RouterPlan, settings: Settings, hidden: str) -> list[Manifest]:
    router = settings.router
    modules = f"{CONFIG_MOUNT}/{MODULES}"
    return [
        _secret("LITELLM_MASTER_KEY", router.master_key.name, router.master_key.key, optional=False),
        variable("LITELLM_WORKER_STARTUP_HOOKS", "llmops_router:install"),
        variable("PYTHONPATH", modules),
        variable("LLMOPS_ROUTER_TENANTS", f"{CONFIG_MOUNT}/{TENANTS_FILE}"),
        variable("LLMOPS_ROUTER_KEYS", KEYS_MOUNT),
        variable("LLMOPS_ROUTER_MOST_BYTES", str(router.exposure.max_body_mb << 20)),
        variable(DRAIN_VARIABLE, hidden),
        # By default LiteLLM cuts off running requests 30 s after SIGTERM, even if the grace period is longer.
        variable("GRACEFUL_SHUTDOWN_TIMEOUT", str(router.drain_seconds)),
        # vLLM closes a connection after 5 idle seconds (VLLM_HTTP_TIMEOUT_KEEP_ALIVE). By default LiteLLM keeps one for
        # 15 s, and a request that it sends on a connection that just closes fails.
        variable("AIOHTTP_KEEPALIVE_TIMEOUT", str(IDLE_CONNECTION_SECONDS)),
        # LiteLLM fetches nothing at its start, and sends no telemetry.
        variable("LITELLM_LOCAL_MODEL_COST_MAP", "True"),
        variable("HF_HUB_OFFLINE", "1"),
        variable("DO_NOT_TRACK", "1"),
        variable("DISABLE_ADMIN_UI", "True"),
        variable("NO_DOCS", "True"),
        variable("NO_REDOC", "True"),
        variable("HOME", TEMPORARY_MOUNT),
        *(variable(name, url) for name, url in sorted(plan.urls.items())),
        # A missing key closes its own model and no other.
        *(_secret(name, key.name, key.key, optional=True) for name, key in sorted(plan.secrets.items())),
    ]


def _secret(name: str, secret: str, key: str, *, optional: bool) -> Manifest:
    reference: Manifest = {"name": secret, "key": key}
    if optional:
        reference["optional"] = True
    return {"name": name, "valueFrom": {"secretKeyRef": reference}}


def _service(settings: Settings) -> Manifest:
    port = {"name": PORT_NAME, "port": names.ROUTER_PORT, "targetPort": PORT_NAME, "protocol": "TCP"}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(settings, names.ROUTER),
        "spec": {"type": "ClusterIP", "selector": SELECTOR, "ports": [port | {"appProtocol": "http"}]},
    }


def _disruption_budget(settings: Settings) -> Manifest:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": _metadata(settings, names.ROUTER),
        "spec": {
            "maxUnavailable": 1,
            "selector": {"matchLabels": SELECTOR},
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }


def _network_policy(plan: RouterPlan, settings: Settings) -> Manifest:
    """Tenants, entrances, clients and the pipeline reach the router. It reaches engines, DNS and any providers."""
    network = settings.network
    allowed = [
        *(Peer(namespace=tenant["namespace"]) for tenant in plan.tenants.values()),
        *network.pipeline,
        *network.clients,
    ]
    if settings.router.exposure.kind != "none":
        allowed += network.entrances
    engines = {"podSelector": {"matchLabels": {names.COMPONENT_LABEL: "engine", "app.kubernetes.io/part-of": "llmops"}}}
    egress: list[Manifest] = [{"to": [engines], "ports": _ports(names.ENGINE_PORT)}]
    if network.dns:
        ports = [{"port": 53, "protocol": "UDP"}, *_ports(53)]
        egress.append({"to": peers(network.dns), "ports": ports})
    if plan.leaves:
        world = [
            {"ipBlock": {"cidr": "0.0.0.0/0", "except": [LINK_LOCAL]}},
            {"ipBlock": {"cidr": "::/0", "except": list(LINK_LOCAL_IPV6)}},
        ]
        egress.append({"to": world, "ports": _ports(443)})
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": _metadata(settings, names.ROUTER),
        "spec": {
            "podSelector": {"matchLabels": SELECTOR},
            "policyTypes": ["Ingress", "Egress"],
            # An empty list of peers would allow everybody.
            "ingress": [{"from": peers(allowed), "ports": _ports(names.ROUTER_PORT)}] if allowed else [],
            "egress": egress,
        },
    }


def _ports(*ports: int) -> list[Manifest]:
    return [{"port": port, "protocol": "TCP"} for port in ports]


def _metadata(settings: Settings, name: str) -> Manifest:
    return {"name": name, "namespace": settings.namespace, "labels": dict(LABELS)}


def configured_keys(deployment: Manifest) -> dict[str, SecretKey]:
    """Tenant -> Secret and key of its API key, as a Deployment of the router mounts them."""
    volumes: Iterable[Mapping[str, Manifest]] = deployment["spec"]["template"]["spec"].get("volumes", [])
    sources = next((volume["projected"]["sources"] for volume in volumes if "projected" in volume), None) or []
    mounted = [(item, source["secret"]["name"]) for source in sources for item in source["secret"]["items"]]
    return {item["path"]: SecretKey(name=name, key=item["key"]) for item, name in mounted}


def configured(deployment: Manifest) -> str | None:
    """Name of the ConfigMap that a Deployment of the router mounts; None if it mounts none."""
    volumes: Iterable[Mapping[str, Manifest]] = deployment["spec"]["template"]["spec"].get("volumes", [])
    return next((volume["configMap"]["name"] for volume in volumes if "configMap" in volume), None)
