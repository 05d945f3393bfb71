"""Renders every object of random models: both tracks, the Jobs before them, and objects that models share."""

from __future__ import annotations

import datetime
from typing import Any

from hypothesis import strategies as st

from llmops.config import names
from llmops.config.catalog.spec import ModelSpec
from llmops.config.settings import Settings
from llmops.config.settings.access import AccessSettings
from llmops.config.settings.monitoring import MonitoringSettings
from llmops.config.settings.network import NetworkSettings
from llmops.config.settings.router import RouterSettings
from llmops.config.tenants import Tenant, Tenants
from llmops.manifests import engine, router
from llmops.manifests import tenants as homes
from llmops.manifests.companions.autoscaling import scale
from llmops.manifests.companions.objects import around
from llmops.manifests.evaluation import evaluation_job, order_config_maps
from llmops.manifests.jobs import checksum_job, collect_job, download_job, rehash_job
from llmops.manifests.records import pins_config_map
from llmops.manifests.router.plan import Serving, plan
from llmops.manifests.volume import claim, namespace
from llmops.releases.release import Release
from llmops.releases.resolve import render_arguments
from tests.support.generation import WORD, instances

EXPIRES = datetime.datetime(2026, 11, 27, 12, tzinfo=datetime.UTC)
PROMETHEUS = {"prometheus_url": "http://prometheus:9090"}
# The options of an installation that render further objects.
INSTALLATIONS: dict[str, dict[str, Any]] = {
    "as it comes": {},
    "service monitors": {"monitoring": {"monitor": "service-monitor", **PROMETHEUS}},
    "pod monitors": {"monitoring": {"monitor": "pod-monitor", **PROMETHEUS}},
    "ALB": {"access": {"ingress": {"controller": "alb", "class_name": "alb"}}},
    "gateway of yours": {"access": {"gateway": {"name": "edge", "namespace": "gateways"}}},
    "gateway of ours": {"access": {"gateway": {"class_name": "envoy", "load_balancer": "aws-nlb"}, "issuer": "le"}},
    "GKE": {"access": {"gateway": {"class_name": "gke-l7-global-external-managed", "load_balancer": "gke"}}},
    "no policies": {"network": {"enforce": False}},
    "a storage class": {"storage_class": "efs", "storage": "1Ti"},
}
KEY = {"api_key": {"name": "k", "key": "k"}}
ENTRIES: dict[str, dict[str, Any]] = {
    "as it is": {},
    "ingress": {"exposure": {"kind": "ingress", "host": "x.example.com"}, "access": KEY},
    "gateway": {"exposure": {"kind": "gateway", "host": "x.example.com"}, "access": KEY},
    "by queue": {"autoscaling": {"max": 8, "running": 4}},
    "by CPU": {"autoscaling": {"kind": "cpu", "max": 8}},
    "KEDA": {"autoscaling": {"kind": "keda", "max": 8}},
    "steps": {"traffic": {"steps": [{"percent": 10}, {"percent": 50}]}},
    "in pods": {"weights": {"strategy": "init"}},
    "in an image": {"weights": {"strategy": "image", "image": {"repository": "acme/weights", "tag": "v1"}}},
    "root": {"engine": {"user": 0}},
}


def changed(spec: ModelSpec, entry: dict[str, Any]) -> ModelSpec:
    content = spec.model_dump(mode="json", exclude_defaults=True)
    for name, value in entry.items():
        content[name] = {**content.get(name, {}), **value}
    return ModelSpec.model_validate(content)


def specs() -> st.SearchStrategy[ModelSpec]:
    """Random entries that the catalog accepts."""
    return instances(ModelSpec)


def installations() -> st.SearchStrategy[Settings]:
    """Random settings of the objects around engines; names of foreign objects are plain words."""
    access = instances(
        AccessSettings,
        {
            "ingress.class_name": WORD,
            "ingress.annotations": st.dictionaries(WORD, st.text(max_size=9), max_size=2),
            **{f"gateway.{name}": WORD for name in ("namespace", "listener", "insecure_listener", "class_name")},
            "issuer": WORD,
        },
    )
    peer = {
        f"{field}.{name}": value
        for field in NetworkSettings.model_fields
        for name, value in (("namespace", WORD), ("labels", st.dictionaries(WORD, WORD, max_size=2)))
    }
    return st.builds(
        lambda *parts: Settings.model_validate({}).model_copy(
            update=dict(zip(("access", "monitoring", "network", "router"), parts, strict=True))
        ),
        access,
        instances(
            MonitoringSettings,
            {"labels": st.dictionaries(WORD, WORD, max_size=2), "prometheus_url": st.just("http://prometheus:9090")},
        ),
        instances(NetworkSettings, peer),
        instances(RouterSettings, {"cpu": st.just("2"), "memory": st.just("4Gi")}),
    )


def tenants() -> st.SearchStrategy[Tenants]:
    """Random tenants, each in its own namespace."""
    drawn = instances(Tenant, {"namespace": WORD.map("ns-{}".format)})
    tenants = st.lists(drawn, max_size=2, unique_by=(lambda tenant: tenant.name, lambda tenant: tenant.home))
    return tenants.map(lambda drawn_tenants: {tenant.name: tenant for tenant in drawn_tenants})


def pinned(spec: ModelSpec) -> Release:
    """The release of an entry, with pins as from a hub and a registry."""
    shared = set(Release.model_fields) & set(ModelSpec.model_fields) - {"weights", "engine"}
    content: dict[str, Any] = {name: getattr(spec, name) for name in shared}
    digest = f"sha256:{'a' * 64}"
    weights: dict[str, Any] = {
        "repo": spec.weights.repo,
        "commit": "0" * 40,
        "files": [{"path": "model.safetensors", "size": 39_800_000_000, "sha256": "b" * 64}],
        "token": spec.weights.token,
        "strategy": spec.weights.strategy,
    }
    if image := spec.weights.image:
        weights["image"] = {"repository": image.repository, "tag": image.tag or "v0.32.0", "digest": digest}
        weights["image"]["path"] = image.path
    pin = {
        "image": spec.engine.image,
        "tag": "v0.32.0",
        "digest": digest,
        "args": render_arguments(spec.engine.options, spec.engine.args),
        "env": tuple(sorted(spec.engine.env.items())),
        "user": spec.engine.user,
        "chat_template": spec.engine.chat_template,
    }
    suites = [{"name": name, "sha256": "c" * 64} for name in spec.evaluation.suites]
    return Release.model_validate(content | {"model": spec.name, "weights": weights, "engine": pin, "suites": suites})


def base(settings: Settings) -> list[dict[str, Any]]:
    """The objects that an installation has before any model."""
    return [namespace(settings), claim(settings)]


def everything(spec: ModelSpec, settings: Settings) -> list[dict[str, Any]]:
    """Every object of a model, in the order to apply them."""
    release = pinned(spec)
    labels = names.labels(spec.name, release.id, "evaluation", run="run")
    pins = pins_config_map(release)
    keys = {"KEY": key} if (key := spec.access.api_key) else {}
    job = evaluation_job("measure", labels, 1, keys, settings.evaluation_image, settings, EXPIRES)
    return [
        {**pins, "metadata": {**pins["metadata"], "namespace": settings.namespace}},
        download_job(release, settings, "run"),
        checksum_job(release, settings, 3, "run"),
        rehash_job(release, settings, "run", read_mb_per_second=100),
        collect_job(spec.name, ["k1"], settings, "run", release.id),
        *order_config_maps(job, [("order", b"{}")]),
        job,
        *engine.objects(release, settings, "canary", 1, surge=True, run="run", expires_at=EXPIRES),
        *engine.objects(release, settings, "stable", scale(spec), surge=spec.rollout.strategy != "in-place"),
        *around(spec, release, settings, canary_percent=20 if spec.traffic.steps else 0),
    ]


def beside(spec: ModelSpec, tenants: Tenants, settings: Settings) -> list[dict[str, Any]]:
    """The objects beside a model, in the order to apply them: tenants' namespaces, and the router."""
    release = pinned(spec)
    serving = Serving(release, release, 20) if spec.traffic.steps else Serving(release)
    router_plan = plan({spec.name: serving}, {spec.name: spec}, tenants, settings)
    return [
        *(manifest for tenant in tenants.values() for manifest in homes.objects(tenant, settings)),
        *router.objects(router_plan, settings, "/llmops/drain/kept-to-itself"),
    ]
