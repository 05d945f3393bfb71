"""The settings' lists of what the catalog, suites and tenants may name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from llmops.config.catalog.load import read_catalog
from llmops.config.settings.allowed import Allowed
from llmops.config.tenants import read_tenants
from llmops.errors import BadInput
from llmops.evaluation.suites import load_suites

SECRET = {"name": "payroll", "key": "k"}
ENTRY: dict[str, Any] = {
    "name": "tiny",
    "weights": {"repo": "acme/tiny"},
    "engine": {"version": "0.32.0", "image": "ghcr.io/acme/engine"},
}
LISTS = Allowed(
    secrets=("llmops-*", "engine-key"), hosts=("*.acme.example", "fireworks_ai"), images=("ghcr.io/acme/*",)
)


def refusal(folder: Path, changes: dict[str, Any], allowed: Allowed = LISTS) -> str:
    (folder / "tiny.yaml").write_text(yaml.safe_dump(ENTRY | changes))
    read = read_catalog(folder, allowed)
    return str(read.refused["tiny"]) if read.refused else ""


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"weights": {"repo": "acme/tiny", "token": SECRET}}, "weights.token.name"),
        ({"access": {"api_key": SECRET}}, "access.api_key.name"),
        ({"routing": {"managed": [{"model": "fireworks_ai/x", "api_key": SECRET}]}}, "routing.managed.0.api_key.name"),
        (
            {"exposure": {"kind": "ingress", "host": "a.example", "tls_secret": "payroll", "auth_url": "http://a.acme.example/"}},
            "exposure.tls_secret",
        ),
        ({"exposure": {"kind": "ingress", "host": "a.example", "auth_url": "http://e.example/"}}, "exposure.auth_url"),
        (
            {"routing": {"managed": [{"model": "openai/x", "api_key": {"name": "llmops-x", "key": "k"},
                                      "api_base": "http://10.0.0.1/v1"}]}},
            "routing.managed.0.api_base",
        ),
        ({"routing": {"managed": [{"model": "openai/x", "api_key": {"name": "llmops-x", "key": "k"}}]}},
         "routing.managed.0.model"),
        ({"engine": {"version": "0.32.0"}}, "engine.image"),
        ({"engine": {"version": "0.32.0", "image": "ghcr.io/acme.evil/engine"}}, "engine.image"),
    ],
)  # fmt: skip
def test_an_entry_that_names_more_is_left_out_with_its_field(
    changes: dict[str, Any], field: str, tmp_path: Path
) -> None:
    told = refusal(tmp_path, changes)
    assert field.replace(".0.", "[0].") in told or field in told, told
    assert "catalog_allows." in told
    assert refusal(tmp_path, changes, Allowed()) == ""


def test_what_is_listed_passes(tmp_path: Path) -> None:
    managed = {
        "model": "openai/x",
        "api_key": {"name": "engine-key", "key": "k"},
        "api_base": "https://llm.acme.example/v1",
    }
    changes = {"access": {"api_key": {"name": "llmops-key", "key": "k"}}, "routing": {"managed": [managed]}}
    assert refusal(tmp_path, changes) == ""


@pytest.mark.parametrize(
    ("repository", "pattern", "right"),
    [
        ("vllm/vllm-openai", "docker.io/vllm/*", True),
        ("docker.io/vllm/vllm-openai:v1", "vllm/vllm-openai", True),
        ("busybox", "docker.io/library/*", True),
        ("ghcr.io/acme/a@sha256:0", "ghcr.io/acme/*", True),
        ("localhost:5000/a:1", "localhost:5000/a", True),
        ("ghcr.io/acme/a", "vllm/*", False),
        ("acme/vllm/x", "vllm/*", False),
        ("ghcr.io.evil.example/acme/a", "ghcr.io/acme/*", False),
        ("evil.example/ghcr.io/acme/a", "ghcr.io/acme/*", False),
    ],
)
def test_a_repository_is_compared_with_its_registry(repository: str, pattern: str, right: bool) -> None:
    assert (list(Allowed(images=(pattern,)).image(repository)) == []) is right


@given(url=st.text(max_size=30))
def test_no_url_raises(url: str) -> None:
    assert list(Allowed(hosts=()).url(url))
    assert list(Allowed().url(url)) == []


def test_users_in_a_url_are_no_host() -> None:
    assert list(Allowed(hosts=("good.example",)).url("http://good.example@evil.example/"))


def test_a_tool_suite_and_a_tenant_may_name_no_more(tmp_path: Path) -> None:
    suite = {"kind": "tool", "tool": "lm-eval", "arguments": ["--tasks=x"], "image": "evil.example/tool:1"}
    (tmp_path / "tool.yaml").write_text(yaml.safe_dump(suite))
    assert load_suites(tmp_path, ["tool"])
    with pytest.raises(BadInput, match=r"image: names the image repository evil\.example/tool"):
        load_suites(tmp_path, ["tool"], LISTS)
    tenants = tmp_path / "tenants"
    tenants.mkdir()
    (tenants / "acme.yaml").write_text(yaml.safe_dump({"name": "acme", "models": ["tiny"], "key": SECRET}))
    assert read_tenants(tenants, ["tiny"], "serving").all()
    with pytest.raises(BadInput, match="names the Secret payroll"):
        read_tenants(tenants, ["tiny"], "serving", allowed=LISTS).all()
