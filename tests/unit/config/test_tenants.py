"""Tenants: each mistake has file, line and field, and a valid file loads unchanged."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmops.config.catalog.load import Catalog
from llmops.config.catalog.spec import Engine, ModelSpec, Weights
from llmops.config.tenants import Tenant, read_tenants
from llmops.errors import BadInput

CATALOG: Catalog = {
    name: ModelSpec(name=name, weights=Weights(repo="a/b"), engine=Engine(version="1.0")) for name in ("large", "tiny")
}
GOOD = """\
name: acme
models: [tiny]
key: {name: tenant-acme, key: api-key}
requests_per_minute: 60
quota:
  pods: 3
"""


def load(folder: Path, **files: str) -> dict[str, Tenant]:
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return dict(read_tenants(folder, CATALOG, "llm-serving").all())


def test_a_good_file_loads(tmp_path: Path) -> None:
    tenant = load(tmp_path, acme=GOOD)["acme"]
    assert (tenant.home, tenant.models, tenant.requests_per_minute) == ("tenant-acme", ("tiny",), 60)
    assert (tenant.quota.pods, tenant.quota.gpus) == (3, 0)


def test_no_folder_is_no_tenants(tmp_path: Path) -> None:
    assert read_tenants(tmp_path / "none", CATALOG, "llm-serving").all() == {}


@pytest.mark.parametrize(
    ("old", "new", "line", "field", "words"),
    [
        (
            "[tiny]",
            "[tiny, tidy]",
            2,
            "models[1]",
            "did you mean tiny? Allowed: large, tiny",
        ),
        ("[tiny]", "[]", 2, "models", "at least 1 entry"),
        ("requests_per_minute: 60", "requests_per_minute: 0", 4, "requests_per_minute", "found 0"),
        ("requests_per_minute", "request_per_minute", 4, "request_per_minute", "did you mean requests_per_minute?"),
        ("  pods: 3", "  pod: 3", 6, "quota.pod", "did you mean pods? Allowed: cpu, gpus, memory, pods"),
        ("  pods: 3", "  memory: 1gi", 6, "quota.memory", "found '1gi'"),
        ("quota:\n", "namespace: llm-serving\nquota:\n", 5, "namespace", "is llm-serving"),
        ("quota:\n", "namespace: kube-system\nquota:\n", 5, "namespace", "is kube-system"),
        ("name: acme", "name: acmes", 1, "name", "but the file is acme.yaml"),
    ],
)
def test_a_mistake_is_named_by_line_and_field(
    tmp_path: Path, old: str, new: str, line: int, field: str, words: str
) -> None:
    assert old in GOOD
    with pytest.raises(BadInput) as raised:
        load(tmp_path, acme=GOOD.replace(old, new))
    assert (raised.value.code, raised.value.about) == ("InvalidFile", f"{tmp_path / 'acme.yaml'}:{line}: {field}")
    (mistake,) = str(raised.value).splitlines()
    assert mistake.startswith(f"{tmp_path / 'acme.yaml'}:{line}: {field}: ")
    assert words in mistake


def test_two_tenants_share_neither_a_namespace_nor_a_key(tmp_path: Path) -> None:
    with pytest.raises(BadInput) as raised:
        load(tmp_path, acme=GOOD, beta=GOOD.replace("name: acme", "name: beta\nnamespace: tenant-acme"))
    namespace, key = str(raised.value).splitlines()
    assert "beta.yaml:2: namespace: is tenant-acme" in namespace
    assert "tenant acme" in namespace
    assert "beta.yaml:4: key: " in key
    assert "tenant acme" in key


def test_a_file_without_a_mapping_says_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(BadInput) as raised:
        load(tmp_path, acme="[]")
    assert (raised.value.code, raised.value.about) == ("InvalidFile", f"{tmp_path / 'acme.yaml'}:1")
    assert "name, models and key" in raised.value.message
