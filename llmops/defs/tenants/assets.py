"""The asset of all tenants: materialize it after a tenant's file has changed."""

from collections.abc import Generator
from typing import Any

import dagster as dg

from llmops.defs.running import error_metadata
from llmops.errors import LlmopsError
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
        declared = platform.all_tenants
    except LlmopsError as error:
        raise dg.Failure(str(error), metadata=error_metadata(error), allow_retries=False) from error
    rows = "\n".join(f"| {tenant.name} | {tenant.home} | {', '.join(tenant.models)} |" for tenant in declared.values())
    yield dg.MaterializeResult(
        metadata={
            "tenants": dg.MetadataValue.md(f"| tenant | namespace | models |\n|---|---|---|\n{rows}"),
            "left": dg.MetadataValue.md("\n".join(f"- {line}" for line in left) or "none"),
        }
    )
