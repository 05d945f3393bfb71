"""A name that is no model's: one answer, with what may have been meant."""

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
    """Of an installation with two models, and no cluster."""
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


def test_a_model_that_is_there_is_found(platform: Platform) -> None:
    assert platform.spec("tiny").weights.repo == "acme/tiny"


def test_a_model_that_is_not_there_is_refused_with_what_may_have_been_meant(platform: Platform) -> None:
    folder = platform.settings.models_dir
    with pytest.raises(BadInput) as refused:
        platform.spec("tidy")
    assert str(refused.value) == (
        f"tidy: there is no such model in {folder} Remedy: Did you mean tiny? There is large, tiny."
    )
    with pytest.raises(BadInput) as several:
        examine_all(platform, ["nobody", "tiny", "lagre"])
    assert str(several.value) == (
        f"lagre, nobody: there is no such model in {folder} Remedy: Did you mean large? There is large, tiny."
    )


def test_a_catalog_of_nothing_has_no_such_model() -> None:
    check_known([], [], Path("models"))
    with pytest.raises(BadInput, match=r"There is none\."):
        check_known(["tiny"], [], Path("models"))


@pytest.mark.parametrize(
    "command", ["plan", "render", "rollout", "status", "history", "rollback", "costs", "doctor", "report"]
)
def test_every_command_says_the_same_and_ends_with_2(
    settings_file: Path, command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SETTINGS_VARIABLE, str(settings_file))
    with pytest.raises(SystemExit) as ended:
        main([command, "tidy"])
    assert ended.value.code == 2
    told = capsys.readouterr()
    assert "tidy: there is no such model in" in told.err
    assert "Did you mean tiny? There is large, tiny." in told.err
    assert not told.out


@pytest.mark.parametrize("file", ["settings", "catalog", "suites"])
def test_a_wrong_file_ends_a_command_with_2_and_has_all_mistakes(
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
