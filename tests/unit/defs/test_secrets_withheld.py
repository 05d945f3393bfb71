"""A secret that this process has read is in nothing that it writes: terminal, Dagster's storage, records."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import dagster as dg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.cli import show
from llmops.clients.registry.credentials import parse_docker_config
from llmops.config.redaction import LEAST_LENGTH, as_header, forms, printable, remember, withheld
from llmops.defs.running import as_failure, metadata, orchestrator_of
from llmops.errors import ClusterCannot
from llmops.releases.store import config_map

MARK = "hf_MARKED0123456789abcdef"


@dg.asset(partitions_def=dg.StaticPartitionsDefinition(["tiny"]))
def telling(context: dg.AssetExecutionContext) -> None:
    orchestrator = orchestrator_of(context)
    orchestrator.log.info(f"the hub says {MARK}")
    orchestrator.observe(f"a line with {MARK}", {"why": f"text {MARK}"})
    context.add_output_metadata(metadata({"reason": f"reason {MARK}"}))
    with as_failure("tiny"):
        raise ClusterCannot(f"refused {MARK}", remedy=f"do not send {MARK}")


def test_nothing_that_dagster_keeps_has_it(tmp_path: Path) -> None:
    assert as_header(f"{MARK}\n", "a Secret") == MARK
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        ended = dg.materialize([telling], instance=instance, partition_key="tiny", raise_on_error=False)
        assert not ended.success
        told = str(instance.all_logs(ended.run_id))
    assert "the hub says ***" in told
    assert "refused ***" in told
    kept = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert any(b"the hub says ***" in content for content in kept)
    assert not [content for content in kept if MARK.encode() in content]


def test_terminals_and_records_have_none(capsys: pytest.CaptureFixture[str]) -> None:
    as_header(MARK, "a Secret")
    show.say(f"error: {MARK}", err=True)
    show.table(["a"], [[f"cell {MARK}"]])
    written = capsys.readouterr()
    assert "***" in written.err
    assert "***" in written.out
    assert MARK not in written.err + written.out
    assert config_map("x", {}, {"reason": f"because of {MARK}"})["data"] == {"reason": "because of ***"}


def test_a_registrys_password_is_remembered() -> None:
    parse_docker_config('{"auths": {"r.example": {"username": "ada", "password": "REG-PASSWORD-77"}}}', "here")
    assert withheld("401 for ada:REG-PASSWORD-77") == "401 for ada:***"


@given(secret=st.text("abcXYZ0189_-", min_size=LEAST_LENGTH), before=st.text(max_size=9), after=st.text(max_size=9))
def test_no_text_has_a_secret_after_it_was_read(secret: str, before: str, after: str) -> None:
    remember(f"{secret}\n")
    assert secret not in withheld(f"{before}{secret}{after}")


@pytest.mark.parametrize("character", ["\x1b", "\x9b", "\u202e", "\u2066", "\u2028", "\ud800", "\ufeff", "\U000e0041"])
def test_what_a_terminal_obeys_is_shown_as_an_escape(character: str) -> None:
    shown = printable(f"a{character}b [/INST] é 😀")
    assert character not in shown
    assert shown.encode().startswith(b"a\\")
    assert shown.endswith("b [/INST] é 😀")


@given(
    secret=st.text('abcXYZ0189_-/+%"\\ é', min_size=LEAST_LENGTH),
    before=st.binary(max_size=9),
    after=st.binary(max_size=9),
    encode=st.sampled_from([base64.b64encode, base64.urlsafe_b64encode]),
)
def test_a_secret_in_base64_is_one_of_its_forms(
    secret: str, before: bytes, after: bytes, encode: Callable[[bytes], bytes]
) -> None:
    """Kubernetes' Secrets and the header of a login have it so, with what is around it."""
    written = encode(before + secret.encode() + after).decode()
    assert any(form in written for form in forms(secret))
    assert quote(secret, safe="") in forms(secret)
    assert json.dumps({"a": secret}).count(json.dumps(secret)[1:-1]) == 1
    assert json.dumps(secret)[1:-1] in forms(secret)
