"""The program of the image `prom/prometheus` in the sandbox: Debian's Prometheus, with discovery of pods.

Debian builds Prometheus without Kubernetes' service discovery. This program carries out the `kubernetes_sd_configs` of
role pod, with Prometheus' labels, and writes the targets to a file that the server watches. When the configuration or a
rule file changes, it reloads the server, as the Prometheus Operator's reloader does.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from ruamel.yaml import YAML, YAMLError

from llmops.errors import BadInput, LlmopsError
from llmops_sandbox.programs import debian

PROGRAM = ("{python}", "-m", "llmops_sandbox.programs.prometheus", "--host", "{pod_ip}")
PACKAGE = "prometheus"
PORT = 9090
LOOK_SECONDS = 0.5
_META = "__meta_kubernetes_"

log = logging.getLogger(__name__)


def find_or_unpack() -> Path:
    """The folder with `prometheus` and `promtool`.

    Raises:
        ClusterCannot: PackageUnavailable.
    """
    if (program := shutil.which("prometheus")) and shutil.which("promtool"):
        return Path(program).resolve().parent
    return debian.unpacked(PACKAGE) / "usr" / "bin"


def environment(programs: Path) -> dict[str, str]:
    """What the image sets: the path of the programs."""
    return {"PATH": f"{programs}:{os.environ.get('PATH', os.defpath)}"}


def targets(pods: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The targets of Prometheus' discovery of role pod: one for each port of each container, with its labels.

    Args:
        pods: Objects of the API.
    """
    discovered: list[dict[str, Any]] = []
    for pod in pods:
        status = pod.get("status", {})
        if not (address := status.get("podIP")):
            continue
        labels = _labels(pod)
        for container in pod["spec"]["containers"]:
            common = {**labels, f"{_META}pod_container_name": container["name"],
                      f"{_META}pod_container_image": container["image"]}  # fmt: skip
            if not container.get("ports"):
                discovered.append({"targets": [address], "labels": common})
            for port in container.get("ports", []):
                number = str(port["containerPort"])
                ported = {
                    f"{_META}pod_container_port_number": number,
                    f"{_META}pod_container_port_name": port.get("name", ""),
                    f"{_META}pod_container_port_protocol": port.get("protocol", "TCP"),
                }
                discovered.append({"targets": [f"{address}:{number}"], "labels": common | ported})
    return discovered


def translate(config: Mapping[str, Any], folder: Path, discovered: Path) -> dict[str, Any]:
    """A configuration that Debian's Prometheus reads: discovery of pods becomes discovery by file.

    Args:
        config: With `kubernetes_sd_configs` of role pod.
        folder: The folder of the configuration, to which its paths are relative.
        discovered: The file with the targets.

    Raises:
        BadInput: DiscoveryNotSupported.
    """
    rules = [str(folder / pattern) for pattern in config.get("rule_files", [])]
    jobs: list[dict[str, Any]] = []
    for job in config.get("scrape_configs", []):
        changed = dict(job)
        for discovery in changed.pop("kubernetes_sd_configs", []):
            if set(discovery) != {"role"} or discovery["role"] != "pod":
                raise BadInput(
                    f"scrape job {job['job_name']}: the sandbox discovers {{role: pod}} alone, not {discovery}",
                    code="DiscoveryNotSupported",
                    about=f"scrape job {job['job_name']}",
                )
            files = {"files": [str(discovered)], "refresh_interval": "1s"}
            changed["file_sd_configs"] = [*changed.get("file_sd_configs", []), files]
        jobs.append(changed)
    return {**config, "rule_files": rules, "scrape_configs": jobs}


def serve(host: str, config: Path, arguments: Sequence[str]) -> int:
    """Run the server until SIGTERM; return its exit code.

    Args:
        host: Address to listen on.
        config: The configuration file; its rules are files beside it.
        arguments: Further arguments of Prometheus.

    Raises:
        BadInput: FileMalformed or DiscoveryNotSupported.
    """
    # Imported here: tests that use the program alone need no client of Kubernetes.
    from llmops.clients.kubernetes.client import Cluster
    from llmops.config.settings import Settings

    cluster = Cluster.connect(Settings.model_validate({"kubeconfig": os.environ["KUBECONFIG"]}))
    with tempfile.TemporaryDirectory() as scratch:
        discovered, translated = Path(scratch) / "targets.json", Path(scratch) / "prometheus.yml"
        _replace(discovered, targets(cluster.list("Pod", namespace="")))
        seen = _content(config.parent)
        _replace(translated, translate(_read(config), config.parent, discovered))
        command = ["prometheus", f"--config.file={translated}", f"--web.listen-address={host}:{PORT}", *arguments]
        with subprocess.Popen(command) as server:
            signal.signal(signal.SIGTERM, lambda number, frame: server.terminate())
            while server.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    server.wait(LOOK_SECONDS)
                try:
                    _replace(discovered, targets(cluster.list("Pod", namespace="")))
                    if (content := _content(config.parent)) != seen:
                        _replace(translated, translate(_read(config), config.parent, discovered))
                        server.send_signal(signal.SIGHUP)
                        seen = content
                except (LlmopsError, OSError) as error:
                    # Keep the last targets and configuration, as Prometheus does.
                    log.warning("%s", error)
                    time.sleep(LOOK_SECONDS)
            return server.returncode


def _labels(pod: Mapping[str, Any]) -> dict[str, str]:
    metadata, status = pod["metadata"], pod["status"]
    ready = next(
        (condition["status"] for condition in status.get("conditions", []) if condition["type"] == "Ready"), "Unknown"
    )
    labels = {
        "namespace": metadata["namespace"],
        "pod_name": metadata["name"],
        "pod_ip": status["podIP"],
        "pod_ready": ready.lower(),
        "pod_phase": status.get("phase", ""),
        "pod_node_name": pod["spec"].get("nodeName", ""),
        "pod_host_ip": status.get("hostIP", ""),
        "pod_uid": metadata["uid"],
    }
    for owner in metadata.get("ownerReferences", []):
        if owner.get("controller"):
            labels |= {"pod_controller_kind": owner["kind"], "pod_controller_name": owner["name"]}
    for kind in ("label", "annotation"):
        for name, value in metadata.get(f"{kind}s", {}).items():
            known = re.sub(r"[^a-zA-Z0-9_]", "_", name)
            labels |= {f"pod_{kind}_{known}": value, f"pod_{kind}present_{known}": "true"}
    return {f"{_META}{name}": value for name, value in labels.items()}


def _read(config: Path) -> Mapping[str, Any]:
    try:
        content: Any = YAML(typ="safe").load(config)
    except YAMLError as error:
        raise BadInput(f"{config}: not YAML: {error}", code="FileMalformed", about=str(config)) from error
    if not isinstance(content, dict):
        raise BadInput(f"{config}: a configuration is a mapping", code="FileMalformed", about=str(config))
    return cast("Mapping[str, Any]", content)


def _content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def _replace(path: Path, content: object) -> None:
    """Replace the file as a whole, if its content differs. JSON is YAML."""
    text = json.dumps(content)
    if path.exists() and path.read_text() == text:
        return
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    fresh.rename(path)


def main() -> None:
    """Run the server."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--host", required=True)
    arguments.add_argument("--config.file", dest="config", type=Path, default=Path("/etc/prometheus/prometheus.yml"))
    known, rest = arguments.parse_known_args()
    sys.exit(serve(known.host, known.config, rest))


if __name__ == "__main__":
    main()
