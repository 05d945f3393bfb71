"""Suites: the shipped ones, refused mistakes, and the content of the hash."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.errors import BadInput
from llmops.evaluation.suites import Case, LoadProfile, Suite, available, load_suites

EVALS = Path(__file__).parents[3] / "evals"
SHIPPED = load_suites(EVALS, available(EVALS))
CASES = [(suite, case) for suite in SHIPPED if isinstance(suite, Suite) for case in suite.cases]
# A release has the hashes of its suites: another hash is another release, which is tried anew.
HASHES = {
    "arithmetic": "47d617317a2943e44771ddf1191465d2f0919f0806ac5688e80be49eac4022b9",
    "chat-load": "dfde8c5cf56ba85edb8b9cae22f5ea015795d0dd4774c420d87d7c959fc3afd5",
    "extraction": "ac1adb82f589383e350d5da6266628e4697018975e98a64669a99f0c25b934c5",
    "harness-arithmetic": "b136afdaa2c31cc988b6d45061f1556189210ad15317d9bc74e45166088e4551",
    "protocol": "43e4ad22cfcfc650a53871730d126205fa5a45ea1ec02c648c5127be7d17438a",
    "fidelity": "6ab144d74270b9ca8e8d592d0daccd63baecb3c163970fec783c7a941f342f11",
    "instructions": "2b036c5a8e263d051801baab08aa5465f76b5e94f067dfce70d2533e00f78722",
    "json": "430af33c22728ab0720cd61b317d25ed32e87cf8c17230354881d584c4aa2668",
    "reasoning": "5445b58939a27e6f3c8d1d9c7311e9390171733bdbcbca6fa16aa3c6b543b4fa",
    "smoke-load": "fa091cd0be23ca4fb142eca27a69befdc345577529e8a36995d6a3d18db174ef",
    "steady-load": "9cc8569191a092e34d6e5ded25cc23aba9b36cf9d5e1ea56556df5836a21716b",
}
GOOD_CASE = {"id": "one", "prompt": "1 + 1?", "expected": 2, "answer": "2"}
GOOD_SUITE = "kind: quality\nscorer: number\n"


def write(directory: Path, definition: str, *cases: dict[str, Any] | str, name: str = "suite") -> Path:
    (directory / f"{name}.yaml").write_text(definition)
    lines = [case if isinstance(case, str) else json.dumps(case) for case in cases]
    (directory / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    return directory


def refusal(directory: Path, name: str = "suite") -> list[str]:
    """The mistakes in a suite, each as `file:line: field: words`."""
    with pytest.raises(BadInput) as raised:
        load_suites(directory, [name])
    return [line.replace(f"{directory}/", "") for line in raised.value.message.splitlines()]


def test_shipped_suites() -> None:
    assert len(CASES) >= 100
    assert {suite.name for suite, _ in CASES} == {"arithmetic", "extraction", "instructions", "json", "reasoning"}
    assert {case.scorer for _, case in CASES} == {"exact", "contains", "regex", "number", "json-schema", "choice"}
    assert {"smoke-load", "chat-load"} <= {suite.name for suite in SHIPPED if isinstance(suite, LoadProfile)}
    assert len({json.dumps(case.conversation()) for _, case in CASES}) == len(CASES)
    assert all(suite.sampling.temperature == 0 for suite, _ in CASES)


def test_hashes_of_shipped_suites_are_pinned() -> None:
    assert {suite.name: suite.sha256 for suite in SHIPPED} == HASHES


@pytest.mark.parametrize(("suite", "case"), CASES, ids=[f"{suite.name}/{case.id}" for suite, case in CASES])
def test_every_case_can_be_passed_and_failed(suite: Suite, case: Case) -> None:
    assert case.score(case.answer) == 1
    assert case.score(f"  {case.answer}\n") == 1
    for wrong in ("", " ", "I am sorry, but I cannot help with that.", "zebra " * 20, "0123456789" * 3, "{}", "E"):
        assert case.score(wrong) == 0, wrong
    # The answer of a neighbour is wrong here, unless it happens to be the same.
    others = [other.answer for other in suite.cases if other.answer.strip() != case.answer.strip()]
    assert sum(case.score(other) for other in others) <= 1


def test_names_in_order_and_kinds(tmp_path: Path) -> None:
    write(tmp_path, GOOD_SUITE, GOOD_CASE)
    write(tmp_path, "kind: load\nrequests: 5\nconcurrency: 2\n", name="load")
    first, second = load_suites(tmp_path, ["load", "suite"])
    assert isinstance(first, LoadProfile)
    assert isinstance(second, Suite)
    assert (first.name, second.name) == ("load", "suite")


@pytest.mark.parametrize(
    ("definition", "place"),
    [
        ("kind: quality\nscorer: number\n\nsampling:\n  temprature: 0\n", "suite.yaml:5: sampling.temprature: "),
        ("kind: quality\nscorer: nunber\n", "suite.yaml:2: scorer: "),
        ("kind: other\nscorer: number\n", "suite.yaml:1: kind: "),
        ("scorer: number\n", "suite.yaml:1: kind: "),
        ("# a comment\nkind: quality\nname: x\nscorer: number\n", "suite.yaml:3: name: "),
        ("kind: load\nrequests: 0\nconcurrency: 1\n", "suite.yaml:2: requests: "),
        ("kind: load\nrequests: 1\nconcurrency: 1\nrate: 1\n", "exactly one of concurrency and rate"),
        ("kind: load\nrequests: 1\n", "exactly one of concurrency and rate"),
        ("- a list\n", "suite.yaml:1: "),
        ("kind: [\n", "suite.yaml:2: "),
    ],
)
def test_wrong_definition_is_refused_by_file_line_and_field(tmp_path: Path, definition: str, place: str) -> None:
    mistakes = refusal(write(tmp_path, definition, GOOD_CASE))
    assert any(place in mistake for mistake in mistakes), mistakes


def test_the_words_on_a_wrong_kind_name_the_kinds(tmp_path: Path) -> None:
    assert refusal(write(tmp_path, "kind: other\n", GOOD_CASE)) == [
        "suite.yaml:1: kind: must be quality, load, tool, fidelity or protocol (found 'other')"
    ]
    assert refusal(write(tmp_path, "scorer: number\n", GOOD_CASE)) == [
        "suite.yaml:1: kind: must be quality, load, tool, fidelity or protocol (it is not given)"
    ]


@pytest.mark.parametrize(
    ("case", "place"),
    [
        ("{", "suite.jsonl:2: "),
        ("[1]", "suite.jsonl:2: "),
        (GOOD_CASE, "suite.jsonl:2: id: 'one'"),
        ({**GOOD_CASE, "id": "Two!"}, "suite.jsonl:2: id: "),
        ({**GOOD_CASE, "id": "two", "anwser": "2"}, "suite.jsonl:2: anwser: "),
        ({**GOOD_CASE, "id": "two", "answer": "3"}, "suite.jsonl:2: answer: scorer number"),
        ({**GOOD_CASE, "id": "two", "expected": "x"}, "suite.jsonl:2: expected: scorer number"),
        ({**GOOD_CASE, "id": "two", "scorer": "regex", "expected": ".*"}, "suite.jsonl:2: expected: scorer regex"),
        ({**GOOD_CASE, "id": "two", "prompt": None}, "suite.jsonl:2: needs exactly one of prompt and messages"),
        ({"id": "two", "prompt": "x"}, "suite.jsonl:2: expected: "),
    ],
)
def test_wrong_case_is_refused_by_file_line_and_field(tmp_path: Path, case: dict[str, Any] | str, place: str) -> None:
    mistakes = refusal(write(tmp_path, GOOD_SUITE, GOOD_CASE, case))
    assert len([mistake for mistake in mistakes if mistake.startswith(place)]) == 1, mistakes


def test_all_errors_at_once(tmp_path: Path) -> None:
    write(tmp_path, "kind: quality\nscorer: number\nunknown: 1\n", "{", {**GOOD_CASE, "answer": "3"}, name="a")
    write(tmp_path, "kind: load\nrequests: 0\nrate: -1\n", name="b")
    with pytest.raises(BadInput) as raised:
        load_suites(tmp_path, ["a", "b", "absent"])
    lines = raised.value.message.splitlines()
    assert len(lines) == 6
    assert "absent.yaml" in lines[-1]


def test_an_unknown_suite_is_refused_with_the_names_of_the_known_ones(tmp_path: Path) -> None:
    write(tmp_path, GOOD_SUITE, GOOD_CASE, name="sums")
    with pytest.raises(BadInput, match="sums") as raised:
        load_suites(tmp_path, ["absent"])
    assert (raised.value.code, raised.value.about) == ("NoSuchSuite", "suite absent")


def test_plain_words_of_a_suite_are_texts(tmp_path: Path) -> None:
    write(tmp_path, GOOD_SUITE + "system: no\ntimeout_seconds: 1e3\n", GOOD_CASE)
    (suite,) = load_suites(tmp_path, ["suite"])
    assert isinstance(suite, Suite)
    assert (suite.system, suite.timeout_seconds) == ("no", 1000)
    (mistake,) = refusal(write(tmp_path, GOOD_SUITE + "system: true\n", GOOD_CASE))
    assert mistake.startswith("suite.yaml:3: system: ")


def test_allowed_fields_are_those_of_a_file(tmp_path: Path) -> None:
    (mistake,) = refusal(write(tmp_path, GOOD_SUITE + "case: 1\n", GOOD_CASE))
    assert mistake.endswith("Allowed: description, kind, sampling, scorer, system, timeout_seconds")


def test_cases_that_nest_without_end_are_refused(tmp_path: Path) -> None:
    assert refusal(write(tmp_path, GOOD_SUITE, "[" * 100_000))[0].startswith("suite.jsonl:1: ")


def test_suite_without_cases_is_refused(tmp_path: Path) -> None:
    (tmp_path / "suite.yaml").write_text(GOOD_SUITE)
    assert refusal(tmp_path)[0].startswith("suite.jsonl:1: ")
    (tmp_path / "suite.jsonl").write_text("\n\n")
    assert refusal(tmp_path)[0].startswith("suite.jsonl:1: ")


def test_hash_ignores_path_order_comments_and_line_endings(tmp_path: Path) -> None:
    two = {**GOOD_CASE, "id": "two"}
    plain, other = tmp_path / "plain", tmp_path / "other"
    plain.mkdir()
    other.mkdir()
    write(plain, "kind: quality\nscorer: number\nsampling: {seed: 1, max_tokens: 9}\n", GOOD_CASE, two)
    definition = "# why\r\nsampling:\r\n  max_tokens: 9\r\n  seed: 1\r\nscorer: number # so\r\nkind: quality\r\n"
    (other / "suite.yaml").write_bytes(definition.encode())
    turned = dict(reversed(GOOD_CASE.items()))
    (other / "suite.jsonl").write_bytes(f"{json.dumps(two)}\r\n\r\n{json.dumps(turned, indent=None)}\r\n".encode())
    (first,), (second,) = load_suites(plain, ["suite"]), load_suites(other, ["suite"])
    assert first.sha256 == second.sha256


def test_hash_ignores_the_description(tmp_path: Path) -> None:
    (before,) = load_suites(write(tmp_path, GOOD_SUITE, GOOD_CASE), ["suite"])
    (after,) = load_suites(write(tmp_path, GOOD_SUITE + "description: better words\n", GOOD_CASE), ["suite"])
    assert before.sha256 == after.sha256


@given(
    st.sampled_from(
        [
            {"prompt": "2 + 1?"},
            {"expected": 2.5, "answer": "2.5"},
            {"expected": {"value": 2, "tolerance": 0.1}},
            {"scorer": "exact", "expected": "2"},
            {"messages": [{"role": "user", "content": "1 + 1?"}], "prompt": None},
        ]
    )
)
def test_hash_depends_on_every_case(change: dict[str, Any]) -> None:
    def suite(case: dict[str, Any]) -> Suite:
        return Suite.model_validate({"kind": "quality", "name": "x", "cases": [{"scorer": "number", **case}]})

    assert suite(GOOD_CASE).sha256 != suite({**GOOD_CASE, **change}).sha256


def test_hash_depends_on_sampling_and_load() -> None:
    base = {"kind": "quality", "name": "x", "cases": [{"scorer": "number", **GOOD_CASE}]}
    load = {"kind": "load", "name": "x", "requests": 5, "concurrency": 2}
    hashes = {
        Suite.model_validate(base).sha256,
        Suite.model_validate({**base, "sampling": {"seed": 1}}).sha256,
        Suite.model_validate({**base, "system": "Be brief."}).sha256,
        LoadProfile.model_validate(load).sha256,
        LoadProfile.model_validate({**load, "requests": 6}).sha256,
    }
    assert len(hashes) == 5


def test_a_suite_survives_json() -> None:
    for suite in SHIPPED:
        assert type(suite).model_validate_json(suite.model_dump_json()).sha256 == suite.sha256
