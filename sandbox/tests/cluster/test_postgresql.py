"""The image `postgres` of the sandbox: it obeys the real image's variables, as any user and as root."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from llmops_sandbox.programs import debian, postgresql

from llmops.errors import BadInput

# Each test has its own address, because clients expect one port.
HOST = f"127.190.{secrets.randbelow(250)}.{1 + secrets.randbelow(250)}"


@contextmanager
def server(data: Path) -> Generator[Any]:
    """A connection to the server; SIGTERM ends the server afterwards."""
    variables = {"PGDATA": str(data), "POSTGRES_USER": "dagster", "POSTGRES_DB": "runs", "POSTGRES_PASSWORD": "secret"}
    process = subprocess.Popen(
        [sys.executable, "-m", "llmops_sandbox.programs.postgresql", "--host", HOST],
        env={**os.environ, **postgresql.environment(postgresql.find_or_unpack()), **variables},
    )
    try:
        yield connect(process)
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def connect(process: subprocess.Popen[bytes], password: str = "secret") -> Any:
    deadline = time.monotonic() + 30
    while True:
        try:
            return psycopg2.connect(host=HOST, user="dagster", password=password, dbname="runs")
        except psycopg2.OperationalError as error:
            if "password authentication failed" in str(error) or time.monotonic() > deadline:
                raise
            assert process.poll() is None
            time.sleep(0.1)


def test_what_was_written_is_there_after_a_restart_and_an_open_client_delays_no_end(tmp_path: Path) -> None:
    data = tmp_path / "claim" / "pgdata"
    with server(data) as first, first.cursor() as cursor:
        cursor.execute("CREATE TABLE t (x int); INSERT INTO t VALUES (7)")
        first.commit()
    with server(data) as second, second.cursor() as cursor:
        cursor.execute("SELECT x, current_user FROM t")
        assert cursor.fetchone() == (7, "dagster")
        with pytest.raises(psycopg2.OperationalError, match="password"):
            psycopg2.connect(host=HOST, user="dagster", password="wrong", dbname="runs")


def test_a_database_that_was_half_made_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "unfinished" / "base").mkdir(parents=True)
    with server(tmp_path):
        assert not (tmp_path / "unfinished").exists()


def test_what_the_image_needs_is_named() -> None:
    with pytest.raises(BadInput, match="PGDATA and POSTGRES_PASSWORD") as raised:
        postgresql.serve("127.0.0.1", {})
    assert raised.value.code == "VariablesMissing"


def test_packages_are_taken_from_what_apt_would_fetch() -> None:
    uris = (
        "'http://deb.example/pool/main/p/postgresql-15/postgresql-15_15.20-0%2bdeb12u1_amd64.deb' "
        "postgresql-15_15.20-0+deb12u1_amd64.deb 17091392 SHA256:85\n"
        "'http://deb.example/pool/main/i/icu/libicu72_72.1-3_amd64.deb' libicu72_72.1-3_amd64.deb 9376332 \n"
    )
    assert debian.package_names(uris) == ["libicu72", "postgresql-15"]
