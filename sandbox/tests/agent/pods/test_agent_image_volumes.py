"""Image volumes, and images with files, as containers see them."""

from __future__ import annotations

from pathlib import Path

from sandbox.tests.agent.agent_machine import Cluster, Object, eventually, python, shell


def weights_image(cluster: Cluster, folder: Path, tag: str) -> str:
    (folder / "models" / "tiny").mkdir(parents=True)
    (folder / "models" / "tiny" / "a.txt").write_text("from the image")
    return cluster.machine.images.add("r.example/weights", tag, root=folder).reference


def volume(reference: str) -> Object:
    return {"volumes": [{"name": "w", "image": {"reference": reference, "pullPolicy": "IfNotPresent"}}]}


def test_an_image_volume_is_there_by_its_digest_and_cannot_be_written_to(cluster: Cluster, tmp_path: Path) -> None:
    reference = weights_image(cluster, tmp_path, "seen")
    script = "cat /m/a.txt; touch /m/b.txt 2>/dev/null && echo written || echo refused"
    mounted = [{"name": "w", "mountPath": "/m", "subPath": "models/tiny"}]
    cluster.pod("p", shell("c", script, volumeMounts=mounted), restartPolicy="Never", **volume(reference))
    cluster.wait_phase("p", "Succeeded")
    assert cluster.log("p") == "from the imagerefused\n"
    assert not (tmp_path / "models" / "tiny" / "b.txt").exists()


def test_an_image_volume_that_is_nowhere_is_waited_for_as_an_image_is(cluster: Cluster, tmp_path: Path) -> None:
    mounted = [{"name": "w", "mountPath": "/m"}]
    missing = "r.example/weights:late"
    cluster.pod("p", shell("c", "ls /m", volumeMounts=mounted), restartPolicy="Never", **volume(missing))

    def waits() -> str | None:
        waiting = cluster.state("p").get("state", {}).get("waiting", {})
        return waiting.get("message") if waiting.get("reason") in ("ErrImagePull", "ImagePullBackOff") else None

    assert missing in eventually(waits)
    weights_image(cluster, tmp_path, "late")
    cluster.wait_phase("p", "Succeeded")
    assert cluster.log("p") == "models\n"


def test_an_images_own_files_are_where_it_has_them(cluster: Cluster, tmp_path: Path) -> None:
    weights_image(cluster, tmp_path, "unused")
    program = cluster.machine.images.resolve("python:3")
    assert program is not None
    cluster.machine.images.add("r.example/baked", "1", program.program, program.env, tmp_path)
    script = "import sys; print(open(sys.argv[1].partition('=')[2] + '/a.txt').read())"
    container = python("c", script)
    own = {"image": "r.example/baked:1", "args": [*container["args"], "--model=/models/tiny"]}
    cluster.pod("p", container | own, restartPolicy="Never")
    cluster.wait_phase("p", "Succeeded")
    assert cluster.log("p") == "from the image\n"
