"""The asset that stands for all tenants: to be materialized when a tenant's file has changed."""

from collections.abc import Generator
from typing import Any

import dagster as dg

from llmops.errors import LlmopsError, kind_of
from llmops.rollout.ops.routing.tenants import apply_tenants
from llmops.rollout.platform import Platform

ASSET = "tenants"


@dg.asset(name=ASSET, group_name=ASSET, kinds={"kubernetes"})
def tenants(
    context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]
) -> Generator[dg.MaterializeResult[Any]]:
    """Namespaces of the tenants, with quotas, defaults and network policies, as `tenants/` declares them."""
    try:
        left = apply_tenants(platform, context.log.info)
        known = platform.tenants
    except LlmopsError as error:
        raise dg.Failure(str(error), metadata={"error": kind_of(error)}, allow_retries=False) from error
    rows = "\n".join(f"| {each.name} | {each.home} | {', '.join(each.models)} |" for each in known.values())
    yield dg.MaterializeResult(
        metadata={
            "tenants": dg.MetadataValue.md(f"| tenant | namespace | models |\n|---|---|---|\n{rows}"),
            "left": dg.MetadataValue.md("\n".join(f"- {each}" for each in left) or "none"),
        }
    )
