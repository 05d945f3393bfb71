"""A rejected release has a report: its materialization links it, and the cluster's records reproduce it.

Slow: two rollouts.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import dagster as dg
import pytest

from llmops.cli.app import main
from llmops.cli.exits import Exit
from llmops.config import names
from llmops.rollout.ops.reporting import report_link
from llmops.rollout.platform import Platform
from llmops.rollout.shown import Link
from tests.support.dying import few_cases
from tests.support.world import Model


def test_a_report_tells_why_a_release_was_rejected(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few_cases(model)
    assert model.rollout().code == Exit.DONE
    good = model.serving()
    model.commit(quality=0.1, seed=5)
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    ended = model.rollout()
    assert ended.code == Exit.REJECTED, ended.line
    assert ended.record is not None
    with dg.DagsterInstance.get() as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey("evaluation"))
        assert event is not None
        assert event.asset_materialization is not None
        linked = event.asset_materialization.metadata["report_page"].value
    assert linked == str(home / "storage" / "reports" / model.name / f"{ended.record.release}.html")
    monkeypatch.delenv("DAGSTER_HOME")

    again = tmp_path / "again.html"
    with pytest.raises(SystemExit) as left:
        main(["--settings", str(model.settings_file), "report", model.name, "-o", str(again)])
    assert left.value.code == 0
    for text in (Path(str(linked)).read_text(), again.read_text()):
        assert ended.record.release in text
        assert str(good) in text
        assert "sums/score" in text
        assert "What is " in text, "a failing case is not shown with what was asked"
        assert "stable passes it" in text
        assert "<script" not in text

    # The release that serves has its own report.
    with pytest.raises(SystemExit):
        main(["--settings", str(model.settings_file), "report", model.name, str(good)])
    assert "Passed" in capsys.readouterr().out

    served = Platform(settings_file=str(with_service(model)))
    assert report_link(served, model.name, ended.record.release)["report_page"] == Link(
        f"http://127.0.0.1:9/reports/{model.name}/{ended.record.release}"
    )
    assert_reap_is_dry(model, capsys)


def with_service(model: Model) -> Path:
    """A copy of the model's settings with a service_url."""
    settings_file = model.folder / "with-service.yaml"
    settings_file.write_text(
        model.settings_file.read_text().rstrip().removesuffix("}") + ', "service_url": "http://127.0.0.1:9/"}'
    )
    return settings_file


def assert_reap_is_dry(model: Model, capsys: pytest.CaptureFixture[str]) -> None:
    """`llmops reap` as a dry run shows a lease that ran out long ago and keeps it; then `llmops reap` removes it."""
    spec = {
        "holderIdentity": "long-gone",
        "renewTime": (dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "leaseDurationSeconds": 15,
    }
    model.cluster.patch("Lease", names.lease_name(model.name), {"spec": spec})

    def holder() -> str | None:
        lease = model.cluster.get("Lease", names.lease_name(model.name))
        return (lease or {})["spec"].get("holderIdentity")

    for options, left in ((["--dry-run"], "long-gone"), ([], None)):
        with pytest.raises(SystemExit):
            main(["--settings", str(model.settings_file), "reap", *options])
        assert f"{model.name}: " in (output := capsys.readouterr().out)
        assert "of run long-gone ran out at" in output
        assert holder() == left
