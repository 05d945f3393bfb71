"""Every command refuses an unknown model in the same way, with a similar name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llmops.cli.app import main
from llmops.config.catalog.known import check_known
from llmops.config.settings import SETTINGS_VARIABLE
from llmops.errors import BadInput
from llmops.rollout.ops.preflight_run import examine_all
from llmops.rollout.platform import Platform

ENTRY = "name: {name}\nweights: {{repo: acme/{name}}}\nengine: {{version: 0.32.0}}\n"


@pytest.fixture
def settings_file(tmp_path: Path) -> Path:
    """The settings of an installation with two models, and no cluster."""
    models = tmp_path / "models"
    models.mkdir()
    for name in ("large", "tiny"):
        (models / f"{name}.yaml").write_text(ENTRY.format(name=name))
    file = tmp_path / "settings.yaml"
    file.write_text(json.dumps({"models_dir": str(models)}))
    return file


@pytest.fixture
def platform(settings_file: Path) -> Platform:
    return Platform(str(settings_file))


def test_an_entry_of_the_catalog_is_found(platform: Platform) -> None:
    assert platform.spec("tiny").weights.repo == "acme/tiny"


def test_an_unknown_model_is_refused_with_a_similar_name(platform: Platform) -> None:
    with pytest.raises(BadInput) as raised:
        platform.spec("tidy")
    assert (raised.value.code, raised.value.about) == ("NoSuchModel", "model tidy")
    assert str(platform.settings.models_dir) in raised.value.message
    assert "Did you mean tiny?" in raised.value.remedy
    with pytest.raises(BadInput) as several:
        examine_all(platform, ["nobody", "tiny", "lagre"])
    assert (several.value.code, several.value.about) == ("NoSuchModel", "model lagre, nobody")
    assert "Did you mean large?" in several.value.remedy
    assert "large, tiny" in several.value.remedy


def test_an_empty_catalog_has_no_such_model() -> None:
    check_known([], [], Path("models"))
    with pytest.raises(BadInput) as raised:
        check_known(["tiny"], [], Path("models"))
    assert raised.value.code == "NoSuchModel"


@pytest.mark.parametrize(
    "command", ["plan", "render", "rollout", "status", "history", "rollback", "costs", "doctor", "report"]
)
def test_every_command_refuses_an_unknown_model_with_exit_code_2(
    settings_file: Path, command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SETTINGS_VARIABLE, str(settings_file))
    with pytest.raises(SystemExit) as ended:
        main([command, "tidy"])
    assert ended.value.code == 2
    output = capsys.readouterr()
    assert "tidy" in output.err
    assert "Did you mean tiny?" in output.err
    assert not output.out


@pytest.mark.parametrize("file", ["settings", "catalog", "suites"])
def test_a_wrong_file_has_exit_code_2_and_all_its_mistakes(
    platform: Platform,
    tmp_path: Path,
    file: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = {"models_dir": str(platform.settings.models_dir), "evals_dir": str(tmp_path)}
    if file == "settings":
        settings |= {"namespaces": "a", "storage_clas": "b"}
    if file == "catalog":
        (platform.settings.models_dir / "tiny.yaml").write_text("name: tiny\nreplica: 1\n")
    if file == "suites":
        for model in ("large", "tiny"):
            (tmp_path / f"{model}.yaml").write_text("kind: load\nrequests: none\nrate: 1\n")
            entry = ENTRY.format(name=model) + f"evaluation: {{suites: [{model}]}}\n"
            (platform.settings.models_dir / f"{model}.yaml").write_text(entry)
    path = tmp_path / "other.yaml"
    path.write_text(json.dumps(settings))
    monkeypatch.setenv(SETTINGS_VARIABLE, str(path))
    with pytest.raises(SystemExit) as ended:
        main(["check"])
    assert ended.value.code == 2
    lines = capsys.readouterr().err.removeprefix("llmops: ").splitlines()
    assert len(lines) > 1
    assert all(":1: " in line or ":2: " in line or ":3: " in line for line in lines), lines
