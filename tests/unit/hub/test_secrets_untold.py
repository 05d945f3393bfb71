"""A secret works with the line break that its file ends with, and no error shows one that cannot be sent."""

from __future__ import annotations

import traceback
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llmops_sandbox.standins.hub import HubServer, HubStore

from llmops.clients.hub import check_access, list_files, resolve, whoami
from llmops.clients.hub.shape import read_config
from llmops.clients.prometheus import Prometheus
from llmops.clients.registry import ImageName, RegistryClient
from llmops.clients.retries import Patience
from llmops.config.redaction import as_header, without_password
from llmops.errors import BadInput, LlmopsError
from llmops.evaluation.remote.order import Engine

REPO = "acme/tiny"
ONCE = Patience(attempts=1)
BAD = ["hf_SECRET\nhf_OTHER", "hf_SECRET\r\nX-Header: 1", "hf_SECRET\x00", "hf_SECRETä", "hf_\x1b[2JSECRET"]


def everything(error: BaseException) -> str:
    """The text of an error with its causes, as Dagster and tracebacks show it."""
    return "".join(traceback.format_exception(error)) + repr(error)


@given(
    secret=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1),
    end=st.sampled_from(["", "\n", "\r\n", " \n"]),
)
def test_white_space_around_a_secret_breaks_nothing(secret: str, end: str) -> None:
    assert as_header(f"{end}{secret}{end}", "here") == secret


@given(st.text(min_size=1))
def test_a_secret_unfit_for_a_header_is_refused_without_being_shown(text: str) -> None:
    messages: set[str] = set()
    for secret in ("", "a\nb", text):
        try:
            assert as_header(secret, "here").isascii()
        except BadInput as error:
            messages.add(str(error))
    # One message for all empty secrets, and one for all unfit ones.
    assert len(messages) == 2


def test_a_line_break_after_a_hub_token_is_ignored(server: HubServer, store: HubStore, commit: str) -> None:
    store.set_gated(REPO, "hf_SECRET")
    store.add_token("hf_SECRET", "ada")
    assert whoami(endpoint=server.url, token="hf_SECRET\n", patience=ONCE) == "ada"
    check_access(REPO, endpoint=server.url, token="hf_SECRET\n", patience=ONCE)
    assert list_files(REPO, commit, endpoint=server.url, token="hf_SECRET\n")
    read_config(REPO, commit, endpoint=server.url, token="hf_SECRET\n", patience=ONCE)


@pytest.mark.parametrize("token", BAD)
def test_an_unfit_hub_token_is_not_shown(server: HubServer, token: str) -> None:
    asked: list[Callable[[], object]] = [
        lambda: whoami(endpoint=server.url, token=token, patience=ONCE),
        lambda: resolve(REPO, "main", endpoint=server.url, token=token, patience=ONCE),
        lambda: read_config(REPO, "0" * 40, endpoint=server.url, token=token, patience=ONCE),
    ]
    for ask in asked:
        with pytest.raises(BadInput, match=r"^the hub token ") as refused:
            ask()
        assert "SECRET" not in everything(refused.value)
    assert not server.seen()


@pytest.mark.parametrize("key", BAD)
def test_an_api_key_in_a_jobs_environment_is_named_and_not_shown(key: str) -> None:
    engine = Engine(base_url="http://engine:8000", model="tiny", key_variable="ONE")
    assert engine.endpoint({"ONE": "sk-1\n"}).api_key == "sk-1"
    with pytest.raises(BadInput, match=r"^the API key in ONE ") as refused:
        engine.endpoint({"ONE": key})
    assert "SECRET" not in everything(refused.value)


@pytest.mark.parametrize("rest", ["127.0.0.1:9", "127.0.0.1:port", "[::1", "127.0.0.1:9/at@path"])
def test_the_password_of_an_address_is_not_shown(rest: str) -> None:
    url = f"http://ada:SECRET@{rest}"
    assert without_password(url) == f"http://{rest}"
    asked: list[Callable[[], object]] = [
        lambda: whoami(endpoint=url, token="hf_x", patience=ONCE),
        lambda: Prometheus(url, ONCE, timeout=1).query("up"),
        lambda: RegistryClient({"ghcr.io": url}, patience=ONCE).tags(ImageName("ghcr.io", "acme/worker")),
    ]
    for ask in asked:
        with pytest.raises(LlmopsError) as refused:
            ask()
        assert "SECRET" not in str(refused.value)
