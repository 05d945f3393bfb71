"""Requests to Dagster's webserver, as a browser or a user's script sends them."""

from __future__ import annotations

import time
from typing import Any

from llmops_sandbox.ui import Ui

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
EVENTS = """
query ($id: ID!) {
  logsForRun(runId: $id) { ... on EventConnection { events { __typename ... on MessageEvent { message } } } }
}
"""


class Dagster(Ui):
    """The webserver at a URL."""

    def launch(self, job: str, partition: str | None = None, config: Any = None) -> str:
        """Launch a run; returns its id."""
        selector = {"repositoryLocationName": "llmops", "repositoryName": "__repository__", "jobName": job}
        tags = [{"key": "dagster/partition", "value": partition}] if partition else []
        params = {"selector": selector, "runConfigData": config or {}, "executionMetadata": {"tags": tags}}
        answer = self.ask(LAUNCH, {"params": params})["launchRun"]
        assert answer["__typename"] == "LaunchRunSuccess", answer
        return answer["run"]["runId"]

    def status(self, run: str) -> str:
        """Status of a run."""
        return self.ask(RUN, {"id": run})["runOrError"]["status"]

    def messages(self, run: str) -> list[str]:
        """Messages in a run's log."""
        events = self.ask(EVENTS, {"id": run})["logsForRun"]["events"]
        return [event["message"] for event in events if event.get("message")]

    def wait_end(self, run: str, seconds: float) -> str:
        """Wait for the end of a run; returns its status."""
        deadline = time.monotonic() + seconds
        while (status := self.status(run)) not in ENDED:
            log = self.messages(run)[-8:]
            assert time.monotonic() < deadline, f"run {run} is {status} after {seconds} s: {log}"
            time.sleep(0.3)
        return status
