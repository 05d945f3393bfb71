"""What others own of the fields that a manager applies is taken from them, and nothing else."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from llmops.clients.kubernetes.ownership import owners, without_rivals


def tree_of(leaves: dict[str, Any]) -> dict[str, Any]:
    """A tree of `fieldsV1`; a dot is always a leaf."""
    return {name: {} if name == "." else below for name, below in leaves.items()}


def branches(below: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(NAMES, below, min_size=1, max_size=3).map(tree_of)


LEAF: dict[str, Any] = {}
NAMES = st.sampled_from(["f:a", "f:b", 'k:{"name":"c"}', 'v:"d"', "."])
TREES = st.recursive(st.just(LEAF), branches, max_leaves=8)
ENTRIES = st.fixed_dictionaries(
    {
        "manager": st.sampled_from(["us", "ally", "other", "third"]),
        "operation": st.sampled_from(["Apply", "Update"]),
        "fieldsV1": TREES,
        "subresource": st.sampled_from(["", "", "status"]),
    }
)


def of(entries: list[dict[str, Any]]) -> dict[str, Any]:
    return {"metadata": {"managedFields": entries}}


def is_rival(entry: Any) -> bool:
    return entry.manager not in ("us", "ally") and entry.subresource != "status"


@given(st.lists(ENTRIES, max_size=5))
def test_no_rival_owns_what_is_applied_and_all_else_stays(entries: list[dict[str, Any]]) -> None:
    ours = {path for owner in owners(of(entries)) if owner.manager == "us" and owner.operation == "Apply"
            for path in owner.paths}  # fmt: skip
    kept = without_rivals(of(entries), "us", ("ally",))
    after = owners(of(entries if kept is None else kept))
    before = owners(of(entries))
    assert not any(ours & owner.paths for owner in after if is_rival(owner))
    assert [owner for owner in before if not is_rival(owner)] == [owner for owner in after if not is_rival(owner)]
    for owner in before:
        if is_rival(owner):
            rest = owner.paths - ours
            assert not rest or any(rest <= other.paths and other.manager == owner.manager for other in after)
    assert kept is None or without_rivals(of(kept), "us", ("ally",)) is None


def test_a_field_that_two_agree_on_is_left_to_one() -> None:
    entries = [
        {"manager": "us", "operation": "Apply", "fieldsV1": {"f:spec": {"f:args": {}, "f:image": {}}}},
        {"manager": "kubectl", "operation": "Update", "fieldsV1": {"f:spec": {".": {}, "f:args": {}, "f:env": {}}}},
        {"manager": "undo", "operation": "Update", "fieldsV1": {"f:spec": {".": {}, "f:image": {}}}},
    ]
    assert without_rivals(of(entries), "us", ()) == [
        entries[0],
        {"manager": "kubectl", "operation": "Update", "fieldsV1": {"f:spec": {".": {}, "f:env": {}}}},
    ]
