"""Dagster's webserver, as a browser or a script of the user's asks it."""

from __future__ import annotations

import json
import time
import urllib.request
from typing import Any

ENDED = {"SUCCESS", "FAILURE", "CANCELED"}
LAUNCH = """
mutation ($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
    ... on RunConfigValidationInvalid { errors { message } }
  }
}
"""
RUN = """
query ($id: ID!) {
  runOrError(runId: $id) { ... on Run { status tags { key value } } }
}
"""
RUNS = """
query ($job: String) {
  runsOrError(filter: {pipelineName: $job}) { ... on Runs { results { runId status tags { key value } } } }
}
"""
EVENTS = """
query ($id: ID!) {
  logsForRun(runId: $id) { ... on EventConnection { events { __typename ... on MessageEvent { message } } } }
}
"""
TERMINATE = """
mutation ($id: String!) {
  terminateRun(runId: $id) { __typename ... on PythonError { message } ... on TerminateRunFailure { message } }
}
"""
DAEMONS = "{ instance { daemonHealth { allDaemonStatuses { daemonType required healthy } } } }"
LOCATIONS = """
{ workspaceOrError { ... on Workspace { locationEntries { name locationOrLoadError {
    __typename ... on PythonError { message } } } } } }
"""


class Dagster:
    """The webserver at a URL."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        """The data of an answer."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(f"{self.url}/graphql", data=body, headers={"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            found = json.loads(answer.read())
        assert "errors" not in found, found["errors"]
        return found["data"]

    def launch(self, job: str, partition: str | None = None, config: Any = None) -> str:
        """Ask for a run; its id."""
        selector = {"repositoryLocationName": "llmops", "repositoryName": "__repository__", "jobName": job}
        tags = [{"key": "dagster/partition", "value": partition}] if partition else []
        params = {"selector": selector, "runConfigData": config or {}, "executionMetadata": {"tags": tags}}
        answer = self.ask(LAUNCH, params=params)["launchRun"]
        assert answer["__typename"] == "LaunchRunSuccess", answer
        return answer["run"]["runId"]

    def status(self, run: str) -> str:
        """Of a run."""
        return self.ask(RUN, id=run)["runOrError"]["status"]

    def runs(self, job: str) -> list[dict[str, Any]]:
        """Runs of a job, newest first; tags as a mapping."""
        found = self.ask(RUNS, job=job)["runsOrError"]["results"]
        return [{**run, "tags": {tag["key"]: tag["value"] for tag in run["tags"]}} for run in found]

    def messages(self, run: str) -> list[str]:
        """What a run's log says."""
        events = self.ask(EVENTS, id=run)["logsForRun"]["events"]
        return [event["message"] for event in events if event.get("message")]

    def terminate(self, run: str) -> None:
        """As the button does."""
        answer = self.ask(TERMINATE, id=run)["terminateRun"]
        assert answer["__typename"] == "TerminateRunSuccess", answer

    def wait_end(self, run: str, seconds: float) -> str:
        """Its status once it has ended."""
        deadline = time.monotonic() + seconds
        while (status := self.status(run)) not in ENDED:
            log = self.messages(run)[-8:]
            assert time.monotonic() < deadline, f"run {run} is {status} after {seconds} s: {log}"
            time.sleep(0.3)
        return status

    def unhealthy(self) -> list[str]:
        """Daemons that should run and don't."""
        found = self.ask(DAEMONS)["instance"]["daemonHealth"]["allDaemonStatuses"]
        return [each["daemonType"] for each in found if each["required"] and not each["healthy"]]
