"""Each kind of value is held against its consumer: what is taken here is refused nowhere later."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any
from zoneinfo import available_timezones

import pytest
from dagster._utils.schedules import is_valid_cron_string
from huggingface_hub.utils import HFValidationError, validate_repo_id
from hypothesis import given
from hypothesis import strategies as st
from kubernetes.utils.quantity import parse_quantity
from pydantic import TypeAdapter, ValidationError

from llmops.clients.registry.names import ImageName
from llmops.config.kinds import Cpu, Cron, HubRepository, ImageRepository, Memory, Zone
from llmops.defs.validation.schedules import schedule_name


def takes(kind: Any, text: str) -> bool:
    try:
        TypeAdapter(kind).validate_python(text)
    except ValidationError:
        return False
    return True


FIELDS = st.sampled_from(
    ["*", "0", "5", "59", "60", "7", "L", "5L", "1#2", "15W", "?", "H", "jan", "feb", "MON", "mon-fri", "*/5", "1-5/2",
     "1,2", "30", "31", "30,31", "2", "24", "00", "٣", "*/0", "*/70", "5-1", "sat-mon", "1-7", "0-7", "1,*", "012",
     "-1", "1--2", "/5", "5/15", "l", "last", "@daily", "2-2", "31-31"]
)  # fmt: skip


@given(fields=st.lists(FIELDS, min_size=4, max_size=6))
def test_what_is_taken_as_a_cron_expression_is_taken_by_dagster(fields: list[str]) -> None:
    text = " ".join(fields)
    if takes(Cron, text):
        assert is_valid_cron_string(text)
        assert re.fullmatch("[A-Za-z0-9_]+", schedule_name(text, "UTC"))


@pytest.mark.parametrize(
    "text",
    [
        "0 0 3 * * *",
        "*/10 0 4 * * mon",
        "@daily",
        "0 3 L * *",
        "0 3 * * 1#2",
        "0 3 30 2 *",
        "7 * 31 2 1-7",
        "٣ 3 * * *",
        "",
    ],
)
def test_cron_expressions_that_dagster_refuses_or_reads_otherwise(text: str) -> None:
    assert not takes(Cron, text)


@pytest.mark.parametrize(
    "text", ["0 3 * * *", "*/15 1-5 * jan-mar mon-fri", "0  4 1,15 * *", "0 3 * jul sun", "0 0 1 1 7"]
)
def test_usual_cron_expressions_are_taken(text: str) -> None:
    assert takes(Cron, text)


def test_every_place_of_the_database_is_a_time_zone() -> None:
    for zone in available_timezones() - {"Factory", "posixrules", "localtime"}:
        assert takes(Zone, zone), zone
        assert re.fullmatch("[A-Za-z0-9_]+", schedule_name("0 3 * * *", zone))


@pytest.mark.parametrize(
    "text",
    [
        "Europe",
        "America/Argentina",
        "",
        ".",
        "..",
        "/etc/localtime",
        "../UTC",
        "a" * 5000,
        "UTC\0",
        "tzdata.zi",
        "zone.tab",
    ],
)
def test_what_is_no_time_zone_is_refused(text: str) -> None:
    assert not takes(Zone, text)


NAMES = st.text(alphabet="abAB01._-/:@é", min_size=1, max_size=14)


@given(
    text=NAMES
    | st.sampled_from(["localhost/x", "host:5000/x/y", "ghcr.io/a/b", "a.b:70000/c", "a..b/c", "a//b", "a/b:c/d"])
)
def test_what_is_taken_as_an_image_is_taken_by_the_registrys_client(text: str) -> None:
    if takes(ImageRepository, text):
        assert ImageName.parse(text)


@pytest.mark.parametrize(
    "text", ["vllm/vllm-openai", "ghcr.io/a/b/c", "localhost:5000/x", "registry:5000/a", "a__b/c-d.e", "x"]
)
def test_usual_images_are_taken(text: str) -> None:
    assert takes(ImageRepository, text)


@pytest.mark.parametrize(
    "text",
    [
        "a//b",
        "a/",
        "/a",
        "a.-b/c",
        "a.b./c",
        "a..b/c",
        "host:0/a",
        "host:65536/a",
        "a/b:c/d",
        "Acme/a",
        "x" * 300,
        "a." * 127,
    ],
)
def test_what_no_registry_has_is_refused(text: str) -> None:
    assert not takes(ImageRepository, text)


@given(
    text=NAMES
    | st.sampled_from(["a/b", "_a/b_", "a--b/c", "a/b.git", "a/b..c", "-a/b", "a/" + "b" * 96, "a/" + "b" * 97])
)
def test_a_hub_repository_is_what_the_hubs_client_takes(text: str) -> None:
    try:
        validate_repo_id(text)
        valid = "/" in text
    except HFValidationError:
        valid = False
    assert takes(HubRepository, text) == valid


AMOUNTS = st.from_regex(r"[0-9]{1,19}(\.[0-9]{1,4})?(m|k|Ki|[MGTPE]i?)?", fullmatch=True)


@given(text=AMOUNTS)
def test_quantities_are_bounded_as_kubernetes_counts_them(text: str) -> None:
    amount = parse_quantity(text)
    if takes(Memory, text):
        assert 2**20 <= amount <= 2**60
        assert amount == int(amount)
    if takes(Cpu, text):
        assert Decimal("0.001") <= amount <= 100_000


@pytest.mark.parametrize(
    "text", ["0Gi", "0", "500m", "4", "1500000Ti", "9" * 100, "1.0000000001Gi", "-1Gi", "1 Gi", "٣Gi", "Gi"]
)
def test_memory_that_no_node_has_is_refused(text: str) -> None:
    assert not takes(Memory, text)


@pytest.mark.parametrize("text", ["0", "0m", "0.0001", "1.5m", "101k", "1Ei"])
def test_cpus_that_no_node_has_are_refused(text: str) -> None:
    assert not takes(Cpu, text)
