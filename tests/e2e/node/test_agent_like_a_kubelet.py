"""The sandbox's agent says of pods that fail what a real kubelet says.

`make e2e-containers` holds the same pods against a kubelet with containerd.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from llmops.clients.kubernetes.client import Cluster
from llmops.clients.kubernetes.diagnosis.pod import diagnose
from llmops.config.settings import load_settings
from tests.support.kubelet_pods import FAILING, RIGHT, Failing, Watched
from tests.support.planes import sandbox_at

pytestmark = [pytest.mark.full, pytest.mark.timeout(600)]

NOT_IN_PROCESSES = {
    "disk-of-pod": "the agent does not count the bytes of a pod",
    "disk-of-volume": "the agent does not count the bytes of a volume",
    "hook-fails": "SIGTERM ends the process, as it is not process 1",
    "host-unknown": "the sandbox's registry stands for all registries",
    "folder-is-a-file": "a container's own folder is none of the machine's",
    "memory-volume-full": "a volume in memory is a folder",
    "refused-by-node": "the agent takes every pod that the scheduler gives it",
    "root-read-only": "a process sees the machine's root",
    "sub-path-below-a-file": "the agent makes the folders of a subPath",
    "user-is-root": "an image of the sandbox has no user",
}
"""Kinds of pods that the agent cannot fail as a kubelet does: its containers are processes of this machine."""
CHANGES_SECONDS = 30
ALIKE = [failing for failing in FAILING if failing.name not in NOT_IN_PROCESSES]


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    with sandbox_at(tmp_path_factory.mktemp("node")) as sandbox:
        settings = load_settings(sandbox.settings_file).model_copy(update={"namespace": "probe"})
        cluster = Cluster.connect(settings)
        cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "probe"}})
        watched = Watched(cluster, ALIKE)
        watched.run()
        yield watched


@pytest.mark.parametrize("failing", ALIKE, ids=lambda failing: failing.name)
def test_the_agent_gives_the_reasons_of_a_kubelet(failing: Failing, watched: Watched) -> None:
    assert not failing.reasons - watched.said[failing.name], sorted(watched.said[failing.name])


@pytest.mark.parametrize("failing", [failing for failing in ALIKE if failing.name in RIGHT],
                         ids=lambda failing: failing.name)  # fmt: skip
def test_llmops_finds_the_same_cause_on_both(failing: Failing, watched: Watched) -> None:
    code, verdict, words = RIGHT[failing.name]
    deadline = time.monotonic() + CHANGES_SECONDS
    while True:
        finding = diagnose(watched.pods[failing.name], watched.events[failing.name])
        if (finding.code, finding.verdict) == (code, verdict) or time.monotonic() > deadline:
            break
        # A container that a probe has killed runs again for a moment.
        time.sleep(0.2)
        watched.look()
    assert (finding.code, finding.verdict) == (code, verdict), finding.message
    assert words in finding.message
