from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from llmops_sandbox.containers import cgroups, requirements
from llmops_sandbox.containers.address import CGROUP
from llmops_sandbox.containers.requirements import CONTROLLERS, UNIFIED_CONTROLLERS, Machine, lacks

ABLE = Machine()


def test_a_machine_that_can_lacks_nothing() -> None:
    assert lacks(ABLE) == []


@pytest.mark.parametrize(
    ("machine", "what", "how"),
    [
        (replace(ABLE, platform="darwin"), "darwin", "virtual machine"),
        (replace(ABLE, root=False), "root", "sudo"),
        (replace(ABLE, missing_tools=("ip",)), "`ip`", "iproute2"),
        (replace(ABLE, namespaces="unshare: EPERM"), "unshare: EPERM", "CAP_SYS_ADMIN"),
        (replace(ABLE, missing_cgroups=("memory", "pids")), "memory, pids", "cgroups"),
        (replace(ABLE, free_bytes=3 << 30), "3 GiB", "XDG_CACHE_HOME"),
    ],
)
def test_what_it_lacks_is_told_with_the_way_to_get_it(machine: Machine, what: str, how: str) -> None:
    (sentence,) = lacks(machine)
    assert what in sentence
    assert how in sentence


def test_all_that_is_missing_is_told_at_once() -> None:
    assert len(lacks(replace(ABLE, missing_tools=("ip", "mount"), missing_cgroups=("cpu",), free_bytes=0))) == 4


def test_this_machine_is_looked_at_without_a_change() -> None:
    assert isinstance(lacks(requirements.look()), list)


@pytest.fixture
def version_1(tmp_path: Path) -> Path:
    for controller in CONTROLLERS:
        (tmp_path / controller).mkdir()
    (tmp_path / "cpuset" / CGROUP).mkdir()
    (tmp_path / "cpuset" / "cpuset.cpus").write_text("0-1")
    (tmp_path / "cpuset" / "cpuset.mems").write_text("0")
    return tmp_path


def test_the_node_has_all_processors_of_the_machine(version_1: Path) -> None:
    cgroups.make(version_1)
    assert (version_1 / "memory" / CGROUP).is_dir()
    assert (version_1 / "cpuset" / CGROUP / "cpuset.cpus").read_text() == "0-1"


def test_the_cgroups_go_with_what_pods_left_in_them(version_1: Path) -> None:
    (version_1 / "memory" / CGROUP / "kubepods" / "pod1").mkdir(parents=True)
    (version_1 / "cpuset" / CGROUP).rmdir()
    cgroups.remove(version_1, seconds=0)
    assert not (version_1 / "memory" / CGROUP).exists()


def test_version_2_gives_the_node_its_controllers(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text(" ".join(UNIFIED_CONTROLLERS))
    cgroups.make(tmp_path)
    for folder in (tmp_path, tmp_path / CGROUP):
        assert "+memory" in (folder / "cgroup.subtree_control").read_text().split()
