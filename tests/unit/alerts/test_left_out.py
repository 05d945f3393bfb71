"""One file of the catalog with mistakes: its model is left out, loudly, and all others go on."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmops.alerts.left_out import lines_of
from llmops.cli.app import main
from llmops.config.catalog.load import read_catalog
from llmops.config.settings import Settings
from llmops.config.settings.allowed import Allowed
from llmops.definitions import defs
from llmops.errors import BadInput
from llmops.rollout.ops.preflight_run import _specs  # pyright: ignore[reportPrivateUsage]
from llmops.rollout.platform import Platform

GOOD = "name: {name}\nweights: {{repo: acme/tiny}}\nengine: {{version: 0.32.0}}\n"
BROKEN = {
    "merge": "name: other\n<<<<<<< HEAD\nweights: {repo: a/b}\n",
    "cut": "name: other\nweights: {repo: a/b\n",
    "field": GOOD.format(name="other") + "replicas: 0\n",
    "bytes": "name: \xff",
    "empty": "",
}


@pytest.fixture(params=BROKEN)
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "models").mkdir()
    for name in ("tiny", "third"):
        (tmp_path / "models" / f"{name}.yaml").write_text(GOOD.format(name=name))
    (tmp_path / "models" / "other.yaml").write_bytes(BROKEN[request.param].encode("latin-1"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LLMOPS_SETTINGS", raising=False)
    return tmp_path


def test_the_other_models_are_there(folder: Path) -> None:
    platform = Platform()
    assert list(platform.catalog) == ["third", "tiny"]
    assert platform.spec("tiny").name == "tiny"
    with pytest.raises(BadInput, match=r"other\.yaml"):
        platform.spec("other")
    (line,) = lines_of(platform.left_out)
    assert line.startswith("other is left out: models/other.yaml:")
    assert "llmops check" in line


def test_definitions_load_without_it(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    repository = defs().get_repository_def()
    assert {"rollout", "rollback", "revalidation"} <= set(repository.job_names)
    assert {"reaper", "image_tags"} <= {sensor.name for sensor in repository.sensor_defs}
    assert len(repository.schedule_defs) == 2
    partitions = repository.get_job("rollout").partitions_def
    assert partitions is not None
    assert partitions.get_partition_keys() == ["other", "third", "tiny"]
    assert "other is left out of all jobs, sensors and schedules: models/other.yaml:" in caplog.text


def test_definitions_load_if_no_file_is_valid(folder: Path) -> None:
    for name in ("tiny", "third"):
        (folder / "models" / f"{name}.yaml").unlink()
    assert "reaper" in {sensor.name for sensor in defs().get_repository_def().sensor_defs}


def test_doctor_examines_the_others(folder: Path) -> None:
    specs, (finding,) = _specs(folder / "models", frozenset(), Allowed())
    assert [spec.name for spec in specs] == ["third", "tiny"]
    assert (finding.severity, finding.model) == ("error", "other")


def test_tenants_keep_the_model_that_is_left_out(folder: Path) -> None:
    (folder / "tenants").mkdir()
    (folder / "tenants" / "acme.yaml").write_text("name: acme\nmodels: [other, tiny]\nkey: {name: acme, key: key}\n")
    assert Platform().tenants["acme"].models == ("other", "tiny")


def test_check_names_all_mistakes_and_fails(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "tenants").mkdir()
    (folder / "tenants" / "acme.yaml").write_text("name: acme\nmodels: [nobody]\nkey: {name: acme, key: key}\n")
    (folder / "evals").mkdir()
    (folder / "evals" / "load.yaml").write_text("kind: load\nrequests: 0\nrate: 1.0\n")
    (folder / "models" / "third.yaml").write_text(
        GOOD.format(name="third") + "evaluation:\n  suites:\n    - load\n    - laod\n"
    )
    with pytest.raises(SystemExit) as ended:
        main(["check"])
    assert ended.value.code
    text = capsys.readouterr().err
    assert "models/other.yaml:" in text
    assert "models/third.yaml:7: evaluation.suites[1]: is 'laod', but there is no suite evals/laod.yaml" in text
    assert "evals/load.yaml:2: requests" in text
    assert "tenants/acme.yaml:2: models[0]" in text


def test_check_names_what_a_fidelity_suite_cannot_use(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "evals").mkdir()
    (folder / "evals" / "load.yaml").write_text("kind: load\nrequests: 1\nrate: 1.0\n")
    (folder / "evals" / "same.yaml").write_text("kind: fidelity\n")
    (folder / "evals" / "sums-again.yaml").write_text("kind: fidelity\nsuites: [sums, load]\n")
    (folder / "evals" / "sums.yaml").write_text("kind: quality\nscorer: exact\n")
    (folder / "evals" / "sums.jsonl").write_text('{"id": "a", "prompt": "1 + 1", "expected": "2", "answer": "2"}\n')
    (folder / "models" / "other.yaml").unlink()
    (folder / "models" / "tiny.yaml").write_text(
        GOOD.format(name="tiny")
        + "evaluation:\n  suites: [sums, load, same, sums-again]\n"
        + "  gates:\n    - {metric: sums, max_divergence: 0.01}\n"
    )
    (folder / "models" / "third.yaml").write_text(GOOD.format(name="third") + "evaluation:\n  suites: [load, same]\n")
    with pytest.raises(SystemExit):
        main(["check"])
    text = capsys.readouterr().err
    unusable = "uses load: no quality suite of this model"
    assert f"tiny.yaml:5: evaluation.suites[3]: is 'sums-again', which {unusable}" in text
    assert "tiny.yaml:7: evaluation.gates[0].metric: is sums, but 'sums' is no fidelity suite of this model" in text
    assert "third.yaml:5: evaluation.suites[1]: is 'same', which uses the cases of quality suites" in text
    assert "'same', which uses load" not in text


def test_one_file_of_two_spellings_takes_the_model_of_neither(tmp_path: Path) -> None:
    for name in ("tiny.yaml", "tiny.yml"):
        (tmp_path / name).write_text(GOOD.format(name="tiny"))
    catalog, left_out = read_catalog(tmp_path)
    assert Platform.of(Settings.model_validate({}), catalog, left_out).spec("tiny").name == "tiny"
    assert list(left_out) == ["tiny"]
