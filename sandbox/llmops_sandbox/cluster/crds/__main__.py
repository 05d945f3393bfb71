"""Makes the definitions anew from the published Go modules: `python -m llmops_sandbox.cluster.crds`. Needs `go`."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml

from llmops_sandbox.cluster.binaries import find_or_build_kubectl
from llmops_sandbox.cluster.crds import FOLDER


@dataclass(frozen=True)
class Source:
    """A module and the definitions to take from it: `folder` holds manifests or a kustomization."""

    module: str
    version: str
    folder: str
    names: tuple[str, ...]


SOURCES = (
    Source(
        "sigs.k8s.io/gateway-api",
        "v1.6.3",
        "config/crd/standard",
        tuple(f"{plural}.gateway.networking.k8s.io" for plural in ("gatewayclasses", "gateways", "httproutes")),
    ),
    Source(
        "github.com/prometheus-operator/prometheus-operator",
        "v0.85.0",
        "example/prometheus-operator-crd",
        tuple(f"{plural}.monitoring.coreos.com" for plural in ("podmonitors", "prometheusrules", "servicemonitors")),
    ),
    Source("github.com/kedacore/keda/v2", "v2.21.0", "config/crd", ("scaledobjects.keda.sh",)),
    Source(
        "github.com/cert-manager/cert-manager",
        "v1.21.2",
        "deploy/crds",
        tuple(f"{plural}.cert-manager.io" for plural in ("certificates", "clusterissuers", "issuers")),
    ),
)


class _Loader(yaml.CSafeLoader):
    """Reads a plain `=`, an operator of matchers, as text: YAML 1.1 gives it a special type."""


def _text(loader: yaml.Loader, node: yaml.ScalarNode) -> str:
    return str(node.value)


_Loader.add_constructor("tag:yaml.org,2002:value", cast("Any", _text))


def without_descriptions(node: Any) -> Any:
    """A schema without its descriptions; a field with the name `description` is no string, and stays."""
    if isinstance(node, dict):
        return {
            key: without_descriptions(value)
            for key, value in cast(dict[str, Any], node).items()
            if not (key == "description" and isinstance(value, str))
        }
    return [without_descriptions(item) for item in cast(list[Any], node)] if isinstance(node, list) else node


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def _manifests(folder: Path) -> list[dict[str, Any]]:
    if (folder / "kustomization.yaml").is_file():
        text = _output(str(find_or_build_kubectl()), "kustomize", str(folder))
    else:
        text = "\n---\n".join(path.read_text() for path in sorted(folder.glob("*.yaml")))
    return [document for document in yaml.load_all(text, _Loader) if document]


def main() -> None:
    """Write one file per definition, named as the modules name theirs."""
    for source in SOURCES:
        module = json.loads(_output("go", "mod", "download", "-json", f"{source.module}@{source.version}"))
        manifests = {
            manifest["metadata"]["name"]: manifest for manifest in _manifests(Path(module["Dir"]) / source.folder)
        }
        for name in source.names:
            plural, _, group = name.partition(".")
            kept = without_descriptions(manifests[name])
            note = f"# {source.module} {source.version}, Apache-2.0; descriptions left out\n"
            path = FOLDER / f"{group}_{plural}.yaml"
            path.write_text(note + yaml.dump(kept, Dumper=yaml.CSafeDumper, sort_keys=False, width=120))


if __name__ == "__main__":
    main()
