from __future__ import annotations

from pathlib import Path

import pytest
from llmops_sandbox.cluster.nodes import load_nodes, write_default_nodes

from llmops.errors import BadInput


def test_the_packaged_declaration_has_gpus_that_are_tainted(tmp_path: Path) -> None:
    path = tmp_path / "nodes.yaml"
    write_default_nodes(path)
    declaration = load_nodes(path)
    gpus = [node for node in declaration.nodes if "nvidia.com/gpu" in node.capacity]
    assert len(gpus) == 2
    assert len(declaration.nodes) == 3
    for node in gpus:
        assert node.labels["nvidia.com/gpu.product"] == "NVIDIA-L40S"
        assert (node.taints[0].key, node.taints[0].effect) == ("nvidia.com/gpu", "NoSchedule")
    assert declaration.back_off_seconds == 10


def test_a_declaration_that_is_there_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "nodes.yaml"
    path.write_text("nodes: [{name: mine, capacity: {cpu: '1'}}]")
    write_default_nodes(path)
    assert [node.name for node in load_nodes(path).nodes] == ["mine"]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("nodes: []", r"nodes\.yaml:1: nodes: "),
        ("nodes: [{name: Upper, capacity: {}}]", r"nodes\.yaml:1: nodes\[0\]\.name: .*\'Upper\'"),
        ("nodes: [{name: a, capacity: {}, colour: red}]", r"nodes\.yaml:1: nodes\[0\]\.colour: "),
        (
            "nodes: [{name: a, capacity: {}, taints: [{key: k, effect: Never}]}]",
            r"nodes\.yaml:1: nodes\[0\]\.taints\[0\]\.effect: .*\'Never\'",
        ),
        ("nodes: [", r"nodes\.yaml"),
    ],
)
def test_an_error_names_the_field(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "nodes.yaml"
    path.write_text(text)
    with pytest.raises(BadInput, match=named):
        load_nodes(path)
