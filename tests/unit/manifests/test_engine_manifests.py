"""The objects that serve a release. Each mistake of the reference article has a test."""

from __future__ import annotations

import ast
import datetime
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llmops_sandbox.engine.arguments import parse_arguments

from llmops.config.catalog.load import load_catalog
from llmops.config.catalog.spec import Access, EngineOptions, Gpu, Resources
from llmops.config.names import Track
from llmops.config.settings import Settings
from llmops.manifests import configuration, drain
from llmops.manifests.engine import (
    arguments,
    deployment,
    disruption_budget,
    grace_seconds,
    objects,
    service,
    startup_budget_seconds,
)
from llmops.releases.release import Release
from llmops.releases.resolve import render_arguments

REPOSITORY = Path(__file__).parents[3]


def stable(release: Release, settings: Settings, *, surge: bool = True) -> dict[str, Any]:
    return deployment(release, settings, "stable", 2, surge=surge)


def pod(release: Release, settings: Settings) -> dict[str, Any]:
    return stable(release, settings)["spec"]["template"]["spec"]


def container(release: Release, settings: Settings) -> dict[str, Any]:
    return pod(release, settings)["containers"][0]


def environment(release: Release, settings: Settings) -> dict[str, Any]:
    return {
        variable["name"]: variable.get("value", variable.get("valueFrom"))
        for variable in container(release, settings)["env"]
    }


# What the article got wrong


def test_weights_are_named_by_their_folder_and_not_by_the_hub(release: Release, settings: Settings) -> None:
    # The article named the hub's repository with HF_HUB_OFFLINE=1, but its folder was no cache of the hub.
    folder = f"/models/weights/tiny/{release.weights.key}"
    assert f"--model={folder}" in container(release, settings)["args"]
    mounts = {mount["mountPath"]: mount for mount in container(release, settings)["volumeMounts"]}
    assert mounts[folder]["subPath"] == f"weights/tiny/{release.weights.key}"


def test_weights_are_read_only_and_no_other_model_is_seen(release: Release, settings: Settings) -> None:
    weights = [mount for mount in container(release, settings)["volumeMounts"] if mount["name"] == "weights"]
    assert len(weights) == 1
    assert weights[0]["readOnly"] is True
    assert weights[0]["mountPath"].startswith("/models/weights/tiny/")
    assert not any("staging" in mount["mountPath"] for mount in container(release, settings)["volumeMounts"])
    (volume,) = [volume for volume in pod(release, settings)["volumes"] if volume["name"] == "weights"]
    assert volume["persistentVolumeClaim"] == {"claimName": "llmops-weights", "readOnly": True}


def command_line(release: Release, folder: Path) -> list[str]:
    """The engine's arguments, with the ConfigMap's files in a folder of this machine."""
    for name, text in configuration.config_map(release, Settings.model_validate({}))["data"].items():
        (folder / name).write_text(text)
    pod = f"{configuration.MOUNT}/{configuration.name(release)}"
    return [argument.replace(pod, str(folder)) for argument in arguments(release)]


def test_vllm_knows_every_argument(release: Release, tmp_path: Path) -> None:
    # The article's --disable-log-requests was removed: vLLM exits. The parser comes from the help of 0.32.0.
    with pytest.raises(SystemExit):
        parse_arguments([*command_line(release, tmp_path), "--disable-log-requests"], {})
    parsed = parse_arguments(command_line(release, tmp_path), {})
    assert parsed.model == f"/models/weights/tiny/{release.weights.key}"
    assert parsed.served_names == ("tiny",)
    assert (parsed.host, parsed.port) == (None, 8000)
    assert parsed.shutdown_timeout == 120
    assert (parsed.max_model_len, parsed.gpu_memory_utilization, parsed.quantization) == (8192, 0.9, "awq_marlin")


@pytest.mark.parametrize("path", sorted((REPOSITORY / "models").glob("*.yaml")), ids=lambda path: path.stem)
def test_vllm_knows_every_argument_of_the_projects_models(path: Path) -> None:
    spec = load_catalog(path.parent)[path.stem]
    rendered = render_arguments(spec.engine.options, spec.engine.args)
    given = parse_arguments(rendered, {}).given
    assert given["max_model_len"] == spec.engine.options.max_model_len
    assert given["tensor_parallel_size"] == spec.engine.options.tensor_parallel_size == spec.gpu.count
    assert len(given) >= len(rendered)


def test_vllm_knows_every_option() -> None:
    every = EngineOptions(
        max_model_len=1,
        max_num_seqs=1,
        gpu_memory_utilization=0.5,
        tensor_parallel_size=2,
        dtype="half",
        quantization="fp8",
        kv_cache_dtype="fp8",
        enforce_eager=True,
        trust_remote_code=True,
    )
    given = parse_arguments(render_arguments(every, []), {}).given
    assert EngineOptions.model_validate({name: given[name] for name in EngineOptions.model_fields}) == every


def test_a_startup_probe_replaces_an_initial_delay(release: Release, settings: Settings) -> None:
    engine = container(release, settings)
    assert "initialDelaySeconds" not in json.dumps(engine)
    probe = engine["startupProbe"]
    # 39.8 GB at 100 MB/s, and 300 s for the rest.
    assert startup_budget_seconds(release) == 398 + 300
    assert probe["periodSeconds"] * probe["failureThreshold"] >= 698
    assert probe["periodSeconds"] <= 5
    assert engine["readinessProbe"]["periodSeconds"] <= 5
    assert {probe["httpGet"]["path"], engine["livenessProbe"]["httpGet"]["path"]} == {"/health"}


def test_the_hub_token_is_not_in_an_engine(release: Release, settings: Settings) -> None:
    text = json.dumps(stable(release, settings))
    assert release.weights.token is not None
    assert "HF_TOKEN" not in text
    assert release.weights.token.key not in text


def test_streams_in_flight_end_whole(release: Release, settings: Settings) -> None:
    # Without --shutdown-timeout vLLM aborts streams in spite of the grace period; without preStop new ones arrive.
    engine = container(release, settings)
    assert configuration.options(release)["shutdown-timeout"] == "120"
    hook = {"httpGet": {"path": "/llmops/drain?seconds=10&idle=120", "port": "http"}}
    assert engine["lifecycle"] == {"preStop": hook}
    assert pod(release, settings)["terminationGracePeriodSeconds"] == grace_seconds(release)
    assert grace_seconds(release) >= 10 + 120 + 5


def test_the_hook_is_answered_by_a_module_in_the_engine(release: Release, settings: Settings, tmp_path: Path) -> None:
    engine, everything = container(release, settings), objects(release, settings, "stable", 2, surge=True)
    (module,) = [manifest for manifest in everything if manifest["metadata"]["name"] == drain.CONFIG_MAP]
    (volume,) = [volume for volume in pod(release, settings)["volumes"] if volume["name"] == drain.VOLUME]
    assert volume["configMap"]["name"] == module["metadata"]["name"]
    (mount,) = [mount for mount in engine["volumeMounts"] if mount["name"] == volume["name"]]
    assert mount == {"name": volume["name"], "mountPath": "/opt/llmops", "readOnly": True}
    assert environment(release, settings)["PYTHONPATH"] == mount["mountPath"]
    assert parse_arguments(command_line(release, tmp_path), {}).middleware == ("llmops_drain.Drain",)
    assert module["immutable"] is True
    assert module["metadata"]["namespace"] == "serving"
    source = module["data"]["llmops_drain.py"]
    assert hashlib.sha256(source.encode()).hexdigest().startswith(module["metadata"]["name"].rpartition("-")[2])
    # Images have different versions of Python: the module runs on 3.9 with the standard library alone.
    ast.parse(source, feature_version=(3, 9))
    assert imports(source) <= sys.stdlib_module_names
    assert f'PATH = "{engine["lifecycle"]["preStop"]["httpGet"]["path"].partition("?")[0]}"' in source


def imports(source: str) -> set[str]:
    modules = {node.module or "" for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)}
    modules |= {
        name.name for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import) for name in node.names
    }
    return {name.partition(".")[0] for name in modules}


@pytest.mark.parametrize("track", ["stable", "canary"])
def test_the_objects_of_a_pod_are_applied_before_it(release: Release, settings: Settings, track: Track) -> None:
    kinds = [manifest["kind"] for manifest in objects(release, settings, track, 1, surge=True)]
    budget = ["PodDisruptionBudget"] if track == "stable" else []
    assert kinds == ["ConfigMap", "ConfigMap", "Service", *budget, "Deployment"]


def test_nothing_is_installed_at_run_time_and_the_image_is_pinned(release: Release, settings: Settings) -> None:
    engine = container(release, settings)
    assert engine["image"] == f"vllm/vllm-openai@sha256:{'7' * 64}"
    assert "command" not in engine
    assert "pip" not in json.dumps(engine)


# Other properties


def test_canary_and_stable_run_the_same_pod(release: Release, settings: Settings) -> None:
    canary = deployment(
        release, settings, "canary", 1, surge=True, run="r", expires_at=datetime.datetime.now(datetime.UTC)
    )
    main = stable(release, settings)
    one, other = canary["spec"]["template"]["spec"], main["spec"]["template"]["spec"]
    assert one.pop("topologySpreadConstraints") != other.pop("topologySpreadConstraints")
    assert one == other


def test_canary_and_stable_never_mix(release: Release, settings: Settings) -> None:
    canary = deployment(release, settings, "canary", 1, surge=True)
    labels = canary["spec"]["template"]["metadata"]["labels"]
    for selecting in (
        stable(release, settings)["spec"]["selector"]["matchLabels"],
        service(release, settings, "stable")["spec"]["selector"],
        disruption_budget(release, settings)["spec"]["selector"]["matchLabels"],
    ):
        assert not selecting.items() <= labels.items()
        assert selecting.items() <= stable(release, settings)["spec"]["template"]["metadata"]["labels"].items()


def test_a_selector_does_not_change_from_release_to_release(release: Release, settings: Settings) -> None:
    other = release.model_copy(update={"gpu": Gpu(count=2)})
    assert other.id != release.id
    assert stable(other, settings)["spec"]["selector"] == stable(release, settings)["spec"]["selector"]
    assert service(other, settings, "stable")["spec"] == service(release, settings, "stable")["spec"]


def test_another_run_of_the_same_release_restarts_no_pod(release: Release, settings: Settings) -> None:
    now = datetime.datetime(2026, 11, 25, 12, tzinfo=datetime.UTC)
    one = deployment(release, settings, "canary", 1, surge=True, run="one", expires_at=now)
    two = deployment(
        release, settings, "canary", 1, surge=True, run="two", expires_at=now + datetime.timedelta(hours=1)
    )
    assert one["spec"] == two["spec"]
    assert "llmops.dev/run" not in one["spec"]["template"]["metadata"]["labels"]
    assert one["metadata"]["labels"]["llmops.dev/run"] == "one"
    assert one["metadata"]["annotations"] == {"llmops.dev/expires-at": "2026-11-25T12:00:00+00:00"}
    assert (
        service(release, settings, "canary", run="one", expires_at=now)["metadata"]["labels"]["llmops.dev/run"] == "one"
    )


def test_objects_of_stable_do_not_expire(release: Release, settings: Settings) -> None:
    for manifest in (
        stable(release, settings),
        service(release, settings, "stable"),
        disruption_budget(release, settings),
    ):
        assert "annotations" not in manifest["metadata"]
        assert "llmops.dev/run" not in manifest["metadata"]["labels"]


def test_surge_adds_a_pod_first_and_in_place_removes_one_first(release: Release, settings: Settings) -> None:
    assert stable(release, settings)["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    in_place = stable(release, settings, surge=False)["spec"]["strategy"]["rollingUpdate"]
    assert in_place == {"maxSurge": 0, "maxUnavailable": 1}


def test_a_rollout_has_time_to_drain_pull_and_load(release: Release, settings: Settings) -> None:
    deadline = stable(release, settings)["spec"]["progressDeadlineSeconds"]
    assert deadline > grace_seconds(release) + startup_budget_seconds(release)


def test_an_engines_pod_has_few_rights(release: Release, settings: Settings) -> None:
    spec, engine = pod(release, settings), container(release, settings)
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == 2000
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert engine["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert engine["securityContext"]["readOnlyRootFilesystem"] is True
    assert engine["terminationMessagePolicy"] == "FallbackToLogsOnError"


def test_every_folder_that_an_engine_writes_is_mounted(release: Release, settings: Settings) -> None:
    engine = container(release, settings)
    mounts = {mount["mountPath"]: mount["name"] for mount in engine["volumeMounts"]}
    home = environment(release, settings)["HOME"]
    assert mounts.keys() >= {home, "/tmp", "/dev/shm"}
    assert environment(release, settings)["HF_HOME"].startswith(f"{home}/")
    # PyTorch asks for the name of the user, and the image may have no account with this id.
    assert environment(release, settings)["USER"]
    volumes = {volume["name"]: volume.get("emptyDir") for volume in pod(release, settings)["volumes"]}
    assert volumes[mounts["/dev/shm"]] == {"medium": "Memory", "sizeLimit": "8Gi"}
    assert volumes[mounts[home]] == {}


def test_an_image_may_run_as_root(release: Release, settings: Settings) -> None:
    engine = release.engine.model_copy(update={"user": 0})
    security = pod(release.model_copy(update={"engine": engine}), settings)["securityContext"]
    assert security["runAsUser"] == 0
    assert security["runAsNonRoot"] is False


def test_an_engine_is_offline_and_sends_no_telemetry(release: Release, settings: Settings) -> None:
    variables = environment(release, settings)
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "VLLM_NO_USAGE_STATS", "DO_NOT_TRACK"):
        assert variables[name] == "1"
    assert variables["VLLM_LOGGING_LEVEL"] == "INFO"


def test_an_api_key_comes_from_its_secret(release: Release, settings: Settings) -> None:
    assert environment(release, settings)["VLLM_API_KEY"] == {"secretKeyRef": {"name": "key", "key": "api-key"}}
    assert "VLLM_API_KEY" not in environment(release.model_copy(update={"access": Access()}), settings)
    assert not any(argument.startswith("--api-key") for argument in arguments(release))


def test_a_pod_requests_gpus_on_nodes_that_have_them(release: Release, settings: Settings) -> None:
    spec = pod(release, settings)
    assert spec["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-L40S"}
    assert spec["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    resources = container(release, settings)["resources"]
    assert resources["limits"] == {"memory": "48Gi", "nvidia.com/gpu": "1"}
    assert resources["requests"] == {"cpu": "6", "memory": "48Gi", "nvidia.com/gpu": "1"}


def test_both_tracks_have_the_priority_class_and_by_default_none(release: Release, settings: Settings) -> None:
    assert "priorityClassName" not in pod(release, settings)
    important = release.model_copy(update={"resources": Resources(priority_class="serving")})
    for track in ("stable", "canary"):
        manifest = deployment(important, settings, track, 1, surge=True)
        assert manifest["spec"]["template"]["spec"]["priorityClassName"] == "serving"


def test_a_model_on_cpu_asks_for_no_gpu(release: Release, settings: Settings) -> None:
    text = json.dumps(stable(release.model_copy(update={"gpu": Gpu(count=0)}), settings))
    assert "nvidia" not in text


def test_a_node_drain_takes_one_replica_at_a_time(release: Release, settings: Settings) -> None:
    assert disruption_budget(release, settings)["spec"]["maxUnavailable"] == 1


@given(size=st.integers(0, 10**13), speed=st.floats(1, 10_000), startup=st.integers(5, 3600))
def test_the_startup_probe_covers_loading(size: int, speed: float, startup: int) -> None:
    release = sized(size, speed, startup)
    probe = container(release, Settings.model_validate({}))["startupProbe"]
    covered = probe["periodSeconds"] * probe["failureThreshold"]
    needed = size / (speed * 1e6) + startup
    assert needed <= covered <= needed + 2 * probe["periodSeconds"] + 1


def sized(size: int, speed: float, startup: int) -> Release:
    return Release.model_validate(
        {
            "model": "tiny",
            "weights": {"repo": "a/b", "commit": "0" * 40, "files": [{"path": "m.safetensors", "size": size}]},
            "engine": {"image": "a/b", "tag": "v1", "digest": f"sha256:{'0' * 64}"},
            "gpu": {},
            "resources": {},
            "evaluation": {},
            "suites": [],
            "rollout": {"load_mb_per_second": speed, "startup_seconds": startup},
            "access": {},
        }
    )


def test_rendering_is_pure(release: Release, settings: Settings) -> None:
    before = json.dumps(stable(release, settings), sort_keys=True)
    first = stable(release, settings)
    first["spec"]["template"]["spec"]["tolerations"][0]["key"] = "other"
    first["spec"]["template"]["spec"]["containers"][0]["startupProbe"]["httpGet"]["path"] = "/other"
    first["spec"]["selector"]["matchLabels"]["other"] = "x"
    assert json.dumps(stable(release, settings), sort_keys=True) == before
