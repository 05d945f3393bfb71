from __future__ import annotations

import math
import time
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.clients.retries import Patience, parse_retry_after
from llmops.errors import BadInput, Unavailable


class Service:
    """Fails with these errors, one per call, then answers."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "answer"


def test_retries_wait_as_long_as_the_service_asks() -> None:
    service = Service(Unavailable("busy", retry_after=0.2), Unavailable("busy", retry_after=0.1))
    started = time.monotonic()
    assert Patience().call(service) == "answer"
    assert time.monotonic() - started >= 0.3
    assert service.calls == 3


def test_retries_end_with_the_last_error() -> None:
    service = Service(*(Unavailable("away", code=f"Number{number}") for number in range(9)))
    with pytest.raises(Unavailable) as raised:
        Patience(attempts=3, longest_wait=0.01).call(service)
    assert raised.value.code == "Number2"
    assert service.calls == 3


def test_a_wait_beyond_the_bound_goes_to_the_caller() -> None:
    service = Service(Unavailable("busy", retry_after=21))
    with pytest.raises(Unavailable) as refused:
        Patience(longest_wait=20).call(service)
    assert refused.value.retry_after == 21
    assert service.calls == 1


def test_other_errors_are_not_retried() -> None:
    service = Service(BadInput("wrong"))
    with pytest.raises(BadInput):
        Patience().call(service)
    assert service.calls == 1


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("120", 120), ("0.5", 0.5), ("-3", 0), ("", None), ("soon", None), ("nan", None), ("inf", None), (None, None)],
)
def test_retry_after_in_seconds(value: str | None, seconds: float | None) -> None:
    assert parse_retry_after(value) == seconds


def test_retry_after_as_a_date() -> None:
    asked = parse_retry_after(formatdate(time.time() + 90, usegmt=True))
    assert asked is not None
    assert 85 < asked <= 90
    assert parse_retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0


@given(st.text())
def test_retry_after_of_anything(value: str) -> None:
    seconds = parse_retry_after(value)
    assert seconds is None or 0 <= seconds < math.inf
