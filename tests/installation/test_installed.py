"""The installed system: Dagster's parts and runs as pods, PostgreSQL beside them."""

from __future__ import annotations

import pytest

from llmops import names
from tests.installation.conftest import Installed


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_launched_in_the_ui_is_a_pod_that_rolls_a_model_out(installed: Installed) -> None:
    """Slow: four Dagster processes start, and a run's pod after them; on two cores that is a minute."""
    run = installed.dagster.launch("rollout", installed.model.name)

    assert installed.dagster.wait_end(run, 240) == "SUCCESS", installed.dagster.messages(run)[-8:]

    job = installed.cluster.get("Job", f"dagster-run-{run}")
    assert job is not None
    pod = job["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == "llmops"
    assert pod["terminationGracePeriodSeconds"] == 300
    main = installed.model.deployment()
    assert main is not None
    assert installed.model.serving() == main["metadata"]["labels"][names.RELEASE_LABEL]
