"""docs/start/cluster.md: the test runs its commands, and its table has every setting."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

from llmops_sandbox.cluster.binaries import find_or_build, find_or_build_kubectl
from llmops_sandbox.cluster.controlplane import ControlPlane

from llmops.config.settings import Settings

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "start" / "cluster.md").read_text()
MARKED = re.compile(r"# needs (Docker|the images)$")
# tests/e2e/installation/test_installed.py tests `llmops sandbox install`.
ELSEWHERE = ("llmops sandbox",)


def commands() -> list[str]:
    blocks = re.findall(r"^ *```sh\n(.*?)^ *```", PAGE, re.MULTILINE | re.DOTALL)
    return [line.strip() for block in blocks for line in block.splitlines()]


def test_every_setting_is_on_the_page() -> None:
    table = PAGE.partition("\n## Settings\n")[2].partition("\n## ")[0]
    named = {name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    assert named == set(Settings.model_fields)


def test_the_commands_of_the_page_work_one_after_the_other(tmp_path: Path) -> None:
    """Slow: it starts a control plane. Without nodes nothing is pulled, and no pod runs."""
    plane = ControlPlane(tmp_path / "plane", find_or_build())
    project = tmp_path / "project"
    shutil.copytree(ROOT / "k8s", project / "k8s")
    (project / "DAGSTER_PG_URL").write_text("postgresql+psycopg2://user:password@database.example:5432/dagster")
    ran = 0
    try:
        plane.up()
        for line in commands():
            if MARKED.search(line) or line.startswith(ELSEWHERE):
                continue
            program, *arguments = shlex.split(line, comments=True)
            if program == "kubectl":
                program = str(find_or_build_kubectl())
            done = subprocess.run(
                [program, *arguments],
                cwd=project,
                env={"KUBECONFIG": str(plane.kubeconfig), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, f"{line}: {done.stderr}"
            ran += 1
    finally:
        plane.down()
    assert ran == 5
