"""The router's configuration: the models, their addresses, and the limits of tenants.

It is a pure function of the releases that serve. A model's name leads to stable. It leads to both tracks, with their
weights, only while the model's state gives the canary a share of users' requests.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from llmops.config import names
from llmops.config.catalog.load import Catalog
from llmops.config.catalog.routing import Routing
from llmops.config.catalog.spec import ModelSpec, SecretKey
from llmops.config.names import Track
from llmops.config.settings import Settings
from llmops.config.settings.router import Managed
from llmops.config.tenants import Tenant, Tenants
from llmops.errors import BadInput
from llmops.releases.release import Release


@dataclass(frozen=True)
class Serving:
    """The releases that answer a model's users.

    Args:
        stable: The release that serves.
        canary: The release under trial.
        canary_percent: Share of users' requests that it gets.
    """

    stable: Release
    canary: Release | None = None
    canary_percent: int = 0


@dataclass(frozen=True)
class RouterPlan:
    """The router's configuration.

    Args:
        config: LiteLLM's configuration. It reads secrets and addresses of engines from variables.
        tenants: Namespace, models and limits of each tenant.
        urls: Variable -> base URL of an engine's Service.
        secrets: Variable -> Secret and key of the API key in it.
        keys: Tenant -> Secret and key of its API key.
        leaves: Whether requests may go to providers outside the cluster.
    """

    config: dict[str, Any]
    tenants: dict[str, dict[str, Any]]
    urls: dict[str, str]
    secrets: dict[str, SecretKey]
    keys: dict[str, SecretKey]
    leaves: bool

    def keeping(self, tenants: Mapping[str, dict[str, Any]], keys: Mapping[str, SecretKey]) -> RouterPlan:
        """The same with further tenants, as a router has them already.

        Args:
            tenants: Namespace, models and limits of each.
            keys: Secret and key of the API key of each.
        """
        return replace(self, tenants=dict(tenants) | self.tenants, keys=dict(keys) | self.keys)


def plan(serving: Mapping[str, Serving], catalog: Catalog, tenants: Tenants, settings: Settings) -> RouterPlan:
    """The configuration for the releases that serve.

    Args:
        serving: Releases by model. The router gets no route to other models.
        catalog: All models.
        tenants: All tenants.
        settings: The installation.

    Raises:
        BadInput: A model of the settings has the name or an alias of one in the catalog.
    """
    check_managed(catalog, settings)
    draft = RouterPlan({}, {}, {}, {}, {tenant.name: tenant.key for tenant in tenants.values()}, leaves=False)
    routed = [spec for spec in catalog.values() if spec.name in serving]
    deployments: list[dict[str, Any]] = []
    fallbacks: list[dict[str, list[str]]] = []
    for spec in routed:
        deployments += _tracks(spec, serving[spec.name], settings, draft)
        others = [name for name in spec.routing.fallbacks if name in serving]
        for index, (name, managed) in enumerate(zip(_managed_names(spec), spec.routing.managed, strict=True)):
            variable = f"KEY_{_upper(spec.name)}_MANAGED_{index}"
            deployments.append(_managed(name, managed, variable, spec.routing.timeout_seconds, draft))
            others.append(name)
        if others:
            # LiteLLM looks them up by the name in the request, which may be an alias.
            fallbacks += [{name: others} for name in (spec.name, *spec.routing.aliases)]
    for index, (name, managed) in enumerate(sorted(settings.router.managed.items())):
        deployments.append(_managed(name, managed, f"KEY_MANAGED_{index}", None, draft))
    aliases = {alias: spec.name for spec in routed for alias in spec.routing.aliases}
    draft.config.update(_config(deployments, aliases, fallbacks, settings))
    further = {spec.name: (*spec.routing.aliases, *_managed_names(spec)) for spec in catalog.values()}
    for tenant in tenants.values():
        draft.tenants[tenant.name] = _limits(tenant, further, settings.router.replicas)
    leaves = any(spec.routing.managed for spec in routed) or bool(settings.router.managed)
    return RouterPlan(draft.config, draft.tenants, draft.urls, draft.secrets, draft.keys, leaves=leaves)


def routing_of(config: Mapping[str, Any], secrets: Mapping[str, SecretKey], model: str) -> Routing:
    """The routing of a model as a configuration has it: what `plan` made of its entry, the other way round.

    Args:
        config: LiteLLM's configuration, from `plan`.
        secrets: Variable -> the API key that it holds.
        model: Name of the model.
    """
    settings = config["router_settings"]
    prefix = f"{model}@managed-"
    others = next((named[model] for named in settings["fallbacks"] if model in named), [])
    entries = {entry["model_name"]: entry["litellm_params"] for entry in config["model_list"]}
    managed = [
        Managed(
            model=params["model"],
            api_key=secrets[params["api_key"].removeprefix("os.environ/")],
            api_base=params.get("api_base"),
        )
        for name, params in entries.items()
        if name.startswith(prefix)
    ]
    return Routing(
        aliases=tuple(alias for alias, owner in settings["model_group_alias"].items() if owner == model),
        fallbacks=tuple(name for name in others if not name.startswith(prefix)),
        managed=tuple(managed),
        timeout_seconds=entries.get(model, {}).get("timeout", Routing().timeout_seconds),
    )


def check_managed(catalog: Catalog, settings: Settings) -> None:
    """Refuse names of router.managed that are models or aliases of the catalog.

    Raises:
        BadInput: A name is in both (code NameTaken).
    """
    taken = {name: name for name in catalog} | {
        alias: name for name, spec in catalog.items() for alias in spec.routing.aliases
    }
    if both := sorted(settings.router.managed.keys() & taken.keys()):
        owners = ", ".join(f"{name!r} belongs to model {taken[name]}" for name in both)
        raise BadInput(
            f"router.managed in the settings: {owners}: the router could not tell them apart",
            code="NameTaken",
            about=f"router.managed {both[0]}",
            remedy="Give it another name, or declare it under routing.managed of that model.",
        )


def _tracks(spec: ModelSpec, serving: Serving, settings: Settings, draft: RouterPlan) -> Iterator[dict[str, Any]]:
    shares: list[tuple[Track, Release, int]] = [("stable", serving.stable, 100)]
    if serving.canary is not None and serving.canary_percent:
        share = serving.canary_percent
        shares = [("stable", serving.stable, 100 - share), ("canary", serving.canary, share)]
    for track, release, weight in shares:
        suffix = f"{_upper(spec.name)}_{track.upper()}"
        host = f"{names.engine_name(spec.name, track)}.{settings.namespace}.svc"
        draft.urls[f"URL_{suffix}"] = f"http://{host}:{names.ENGINE_PORT}/v1"
        params: dict[str, Any] = {"model": f"hosted_vllm/{spec.name}", "api_base": f"os.environ/URL_{suffix}"}
        if key := release.access.api_key:
            draft.secrets[f"KEY_{suffix}"] = key
            params["api_key"] = f"os.environ/KEY_{suffix}"
        # If the other track has weight 0, this one gets all requests.
        params |= _timeouts(spec.routing.timeout_seconds) | {"weight": weight}
        about = {"id": f"{spec.name}.{track}"} | ({"release": release.id} if track == "canary" else {})
        yield {"model_name": spec.name, "litellm_params": params, "model_info": about}


def _managed(name: str, managed: Managed, variable: str, timeout: int | None, draft: RouterPlan) -> dict[str, Any]:
    draft.secrets[variable] = managed.api_key
    params: dict[str, Any] = {"model": managed.model, "api_key": f"os.environ/{variable}"}
    if managed.api_base:
        params["api_base"] = managed.api_base
    if timeout is not None:
        params |= _timeouts(timeout)
    return {"model_name": name, "litellm_params": params, "model_info": {"id": name}}


def _timeouts(seconds: int) -> dict[str, int]:
    return {"timeout": seconds, "stream_timeout": seconds}


def _config(
    deployments: list[dict[str, Any]],
    aliases: dict[str, str],
    fallbacks: list[dict[str, list[str]]],
    settings: Settings,
) -> dict[str, Any]:
    router = settings.router
    return {
        "model_list": deployments,
        "router_settings": {
            "routing_strategy": "simple-shuffle",
            "model_group_alias": aliases,
            "fallbacks": fallbacks,
            "num_retries": router.retries,
            # A retry would take as long again, and adds to the load of the engine.
            "retry_policy": {"TimeoutErrorRetries": 0},
            "allowed_fails": router.allowed_fails,
            "cooldown_time": router.cooldown_seconds,
        },
        "litellm_settings": {
            # LiteLLM checks the limits of keys from a custom authentication only with this and
            # `custom_auth_run_common_checks`.
            "enable_post_custom_auth_checks": True,
            # LiteLLM counts tokens with its built-in tokenizer, and fetches none from the hub.
            "disable_hf_tokenizer_download": True,
            "callbacks": ["llmops_router.tracks"],
            "telemetry": False,
        },
        "general_settings": {
            "master_key": "os.environ/LITELLM_MASTER_KEY",
            "custom_auth": "llmops_router.authenticate",
            "custom_auth_run_common_checks": True,
        },
    }


def _managed_names(spec: ModelSpec) -> list[str]:
    """Names of a model at its providers. Their `@` is in no model's name and in no alias."""
    return [f"{spec.name}@managed-{index}" for index in range(len(spec.routing.managed))]


def _limits(tenant: Tenant, further: Mapping[str, tuple[str, ...]], replicas: int) -> dict[str, Any]:
    """A tenant's namespace and models, and its limits at each replica: replicas count separately, so each has a share.

    The models include their aliases and providers. They include a model to fall back on only if the tenant has it, too.
    """
    models = [name for model in tenant.models for name in (model, *further.get(model, ()))]
    limits = {
        "requests_per_minute": tenant.requests_per_minute,
        "tokens_per_minute": tenant.tokens_per_minute,
        "parallel_requests": tenant.parallel_requests,
    }
    shares = {name: math.ceil(limit / replicas) for name, limit in limits.items() if limit is not None}
    return {"namespace": tenant.home, "models": models, **shares}


def _upper(model: str) -> str:
    return model.upper().replace("-", "_")
