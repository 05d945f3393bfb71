"""A client of Dagster's webserver in a sandbox: lists runs, and terminates them."""

from __future__ import annotations

import json
import urllib.request
from dataclasses import dataclass
from typing import Any

from llmops.errors import Unavailable

RUNS = """query { runsOrError(limit: 100) { ... on Runs { results {
  runId jobName status tags { key value } } } } }"""
WORK = """{
  instance { daemonHealth { allDaemonStatuses { daemonType required healthy } } }
  workspaceOrError { ... on Workspace { locationEntries { name locationOrLoadError { __typename } } } }
}"""
TERMINATE = """mutation($run: String!) { terminateRun(runId: $run) { __typename } }"""
REQUESTED_BY = "llmops.dev/requested-by"
_SECONDS = 30.0


@dataclass(frozen=True)
class Run:
    """A run, as the UI lists it."""

    id: str
    job: str
    status: str
    model: str
    requested_by: str


class Ui:
    """Queries a Dagster webserver in GraphQL.

    Args:
        url: Base URL.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    def runs(self) -> list[Run]:
        """The newest 100 runs, oldest first; raises as `ask` does."""
        results = self.ask(RUNS)["runsOrError"].get("results") or []
        return [_run(result) for result in reversed(results)]

    def terminate(self, run: str) -> None:
        """End a run, as the UI's button does; raises as `ask` does."""
        self.ask(TERMINATE, {"run": run})

    def missing(self) -> list[str]:
        """What does not work yet: daemons without a report, definitions that are not loaded; raises as `ask` does."""
        data = self.ask(WORK)
        daemons = data["instance"]["daemonHealth"]["allDaemonStatuses"]
        locations = data["workspaceOrError"].get("locationEntries") or [{"name": "workspace"}]
        return [
            *(
                f"{daemon['daemonType']} has not reported"
                for daemon in daemons
                if daemon["required"] and not daemon["healthy"]
            ),
            *(f"{location['name']} is not loaded" for location in locations if not _is_loaded(location)),
        ]

    def ask(self, query: str, variables: dict[str, Any] | None = None) -> dict[str, Any]:
        """Send a query, and return the data of the answer.

        Raises:
            Unavailable: DagsterUnreachable or QueryRefused.
        """
        body = json.dumps({"query": query, "variables": variables or {}}).encode()
        request = urllib.request.Request(  # noqa: S310 - the address is the sandbox's own
            f"{self.url}/graphql", data=body, headers={"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=_SECONDS) as answer:  # noqa: S310 - as above
                content = json.load(answer)
        except (OSError, ValueError) as error:
            raise Unavailable(
                f"the Dagster UI at {self.url} does not answer: {error}", code="DagsterUnreachable", about=self.url
            ) from error
        if "errors" in content:
            raise Unavailable(
                f"the Dagster UI at {self.url} refuses the query: {content['errors']}",
                code="QueryRefused",
                about=self.url,
            )
        return content["data"]


def _is_loaded(location: dict[str, Any]) -> bool:
    return (location.get("locationOrLoadError") or {}).get("__typename") == "RepositoryLocation"


def _run(result: dict[str, Any]) -> Run:
    tags = {tag["key"]: tag["value"] for tag in result["tags"]}
    return Run(
        id=result["runId"],
        job=result["jobName"],
        status=result["status"].lower(),
        model=tags.get("dagster/partition", ""),
        requested_by=tags.get(REQUESTED_BY, ""),
    )
