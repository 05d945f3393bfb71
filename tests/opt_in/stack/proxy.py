"""The router's pod as a process on loopback: its manifests, laid out as a kubelet would, and the real LiteLLM."""

from __future__ import annotations

import os
import re
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
from llmops_sandbox.programs.litellm import LiteLlm

from llmops.config.catalog.spec import Access, Evaluation, Gpu, ModelSpec, Resources, Rollout, SecretKey
from llmops.config.settings import Settings
from llmops.config.tenants import Tenant
from llmops.manifests.router import objects
from llmops.manifests.router.plan import RouterPlan, Serving, plan
from llmops.releases.release import EnginePin, Release, WeightsPin

MASTER = "sk-" + secrets.token_hex(24)
HIDDEN = "/llmops/drain/kept-to-itself"


def spec(name: str, **sections: Any) -> ModelSpec:
    base = {"name": name, "weights": {"repo": f"acme/{name}"}, "engine": {"version": "0.32.0"}}
    return ModelSpec.model_validate(base | sections)


def release(model: str, *, api_key: SecretKey | None = None) -> Release:
    return Release(
        model=model,
        weights=WeightsPin(repo=f"acme/{model}", commit="0" * 40, files=()),
        engine=EnginePin(image="vllm/vllm-openai", tag="v0.32.0", digest="sha256:" + "7" * 64, args=(), env=()),
        gpu=Gpu(),
        resources=Resources(),
        evaluation=Evaluation(),
        suites=(),
        rollout=Rollout(),
        access=Access(api_key=api_key),
    )


class Proxy:
    """The real proxy of one configuration.

    Args:
        plan: What it routes.
        settings: The installation's settings.
        secret_values: Content of the Secrets, by name and key.
        addresses: Host and port of each engine, by name of its Service.
    """

    def __init__(
        self,
        lite_llm: LiteLlm,
        folder: Path,
        plan: RouterPlan,
        settings: Settings,
        secret_values: Mapping[tuple[str, str], str],
        addresses: Mapping[str, str],
    ) -> None:
        manifests = objects(plan, settings, HIDDEN)
        self._pod = manifests[-1]["spec"]["template"]["spec"]
        self._config = manifests[0]["data"]
        self._secrets = secret_values
        self._addresses = addresses
        self._program = lite_llm.program
        self._image = lite_llm.environment
        self._settings = settings
        self._folder = folder
        self._mounts = {
            mount["mountPath"]: str(folder / mount["name"]) for mount in self._pod["containers"][0]["volumeMounts"]
        }
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.log = folder / "log"
        self.start_seconds = 0.0
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Proxy:
        for volume in self._pod["volumes"]:
            (self._folder / volume["name"]).mkdir(parents=True, exist_ok=True)
        (items,) = (volume["configMap"]["items"] for volume in self._pod["volumes"] if "configMap" in volume)
        for item in items:
            path = self._folder / "config" / item["path"]
            path.parent.mkdir(exist_ok=True)
            path.write_text(self._config[item["key"]])
        self.write_keys(self._secrets)
        container = self._pod["containers"][0]
        arguments = [self._local(argument).replace("0.0.0.0", "127.0.0.1") for argument in container["args"]]
        arguments[-1] = f"--port={self.port}"
        environment = {"PATH": os.environ["PATH"], **self._image}
        for variable in container["env"]:
            if (value := self._value(variable)) is not None:
                environment[variable["name"]] = value
        began = time.monotonic()
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [*self._program, *arguments], env=environment, stdout=log, stderr=subprocess.STDOUT, cwd=self._folder
            )
        while not self._ready():
            assert self._process.poll() is None, self.log.read_text()
            assert time.monotonic() - began < 300, self.log.read_text()
            time.sleep(0.1)
        self.start_seconds = time.monotonic() - began
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def write_keys(self, secret_values: Mapping[tuple[str, str], str]) -> None:
        """Replace the Secrets' files as a kubelet does, all at once."""
        folder = self._folder / "keys"
        version = folder / f"..{time.time_ns()}"
        version.mkdir()
        (sources,) = (volume["projected"]["sources"] for volume in self._pod["volumes"] if "projected" in volume)
        for source in sources:
            for item in source["secret"]["items"]:
                if (value := secret_values.get((source["secret"]["name"], item["key"]))) is not None:
                    (version / item["path"]).write_text(value)
                    link = folder / item["path"]
                    if not link.is_symlink():
                        link.symlink_to(Path("..data") / item["path"])
        (folder / "..fresh").symlink_to(version.name)
        (folder / "..fresh").replace(folder / "..data")

    def terminate(self) -> None:
        """End it as a kubelet does after its preStop hook."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)

    def ended(self, seconds: float) -> int:
        assert self._process is not None
        return self._process.wait(seconds)

    def hook(self) -> httpx2.Response:
        """Run the preStop hook, as a kubelet does before SIGTERM."""
        path = self._pod["containers"][0]["lifecycle"]["preStop"]["httpGet"]["path"]
        return httpx2.get(self.url + path, timeout=60)

    def ask(self, model: str, key: str = MASTER, path: str = "/v1/chat/completions", **body: Any) -> httpx2.Response:
        prompt = (
            {"prompt": "hello"} if path == "/v1/completions" else {"messages": [{"role": "user", "content": "hello"}]}
        )
        body = {"model": model, **prompt, "max_tokens": 5, **body}
        return httpx2.post(self.url + path, json=body, headers=bearer(key), timeout=60)

    def get(self, path: str, key: str = MASTER) -> httpx2.Response:
        return httpx2.get(self.url + path, headers=bearer(key), timeout=30)

    def _local(self, text: str) -> str:
        """Replace paths of the container by this machine's."""
        paths = "|".join(map(re.escape, sorted(self._mounts, key=len, reverse=True)))
        return re.sub(rf"(?<![\w/-])({paths})(?![\w.-])", lambda match: self._mounts[match[0]], text)

    def _value(self, declared: Mapping[str, Any]) -> str | None:
        if (source := declared.get("valueFrom")) is None:
            value: str = declared["value"]
            for service, address in self._addresses.items():
                value = value.replace(f"{service}.{self._settings.namespace}.svc:8000", address)
            return self._local(value)
        reference = source["secretKeyRef"]
        return self._secrets.get((reference["name"], reference["key"]))

    def _ready(self) -> bool:
        try:
            return httpx2.get(self.url + "/health/readiness", timeout=5).status_code == 200
        except httpx2.TransportError:
            return False


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@contextmanager
def running(
    lite_llm: LiteLlm,
    folder: Path,
    catalog: Mapping[str, ModelSpec],
    serving: Mapping[str, Serving],
    *,
    addresses: Mapping[str, str],
    tenants: Mapping[str, Tenant] | None = None,
    secret_values: Mapping[tuple[str, str], str] | None = None,
    **router: Any,
) -> Generator[Proxy]:
    """One replica of the proxy that llmops renders for these models."""
    settings = Settings.model_validate({"router": {"enabled": True, "replicas": 1, **router}})
    planned = plan(serving, catalog, tenants or {}, settings)
    values = {("llmops-router", "master-key"): MASTER, **(secret_values or {})}
    with Proxy(lite_llm, folder, planned, settings, values, addresses) as proxy:
        yield proxy
