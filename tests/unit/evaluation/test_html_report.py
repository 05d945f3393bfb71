"""The HTML report: complete, self-contained, and harmless whatever a model answers."""

from __future__ import annotations

import datetime as dt
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmops.config.catalog.spec import Access, Evaluation, Gate, Gpu, Resources, Rollout
from llmops.evaluation.gates.offline import decide
from llmops.evaluation.measurements import Measurements
from llmops.evaluation.report.failing import SHOWN, FailingCase, failing_cases
from llmops.evaluation.report.html import Page, render
from llmops.evaluation.report.html.charts import Series, bars, ecdf
from llmops.evaluation.suites import Case, Suite
from llmops.releases.records import Record
from llmops.releases.release import EnginePin, FilePin, Release, SuitePin, WeightsPin

VOID = {"meta", "line", "rect", "polyline", "br"}
HOSTILE = '</pre><script>alert(1)</script><img src="http://evil.example/x.png" onerror="alert(1)">&amp;{{ 7 * 7 }}'
GATES = (
    Gate(metric="sums/score", min=0.5),
    Gate(metric="sums/score", max_drop=0.03),
    Gate(metric="chat/p95_ttft_ms", max_ratio=1.5, dry=True),
    Gate(metric="chat/error_rate", max=0.01),
)
RULES = Evaluation(suites=("sums", "chat"), gates=GATES)
RELEASE = Release(
    model="tiny",
    weights=WeightsPin(repo="o/tiny", commit="a" * 40, files=(FilePin(path="m", size=10**6, sha256="b" * 64),)),
    engine=EnginePin(image="vllm/vllm-openai", tag="v0.33.0", digest=f"sha256:{'c' * 64}", args=("--a=1",)),
    gpu=Gpu(),
    resources=Resources(),
    evaluation=RULES,
    suites=(SuitePin(name="sums", sha256="d" * 64),),
    rollout=Rollout(),
    access=Access(),
)
CASES = tuple(
    Case(id=f"c{n}", prompt=f"What is {n} + 1?", scorer="number", expected=n + 1, answer=str(n + 1)) for n in range(40)
)
SUITE = Suite(name="sums", kind="quality", scorer="number", cases=CASES)


def measured(wrong: int, *, answer: str = "no", slow: float = 1.0, errors: int = 0) -> Measurements:
    """Measurements of 40 cases, the first so many of them wrong, and of a load."""
    samples = tuple(slow * (20 + n / 4) for n in range(200))
    return Measurements(
        suites={"sums": SUITE.sha256, "chat": "e" * 64},
        figures={
            "sums/score": 1 - wrong / 40,
            "sums/error_rate": 0.0,
            "all/score": 1 - wrong / 40,
            "chat/error_rate": 0.0,
            "chat/p95_ttft_ms": samples[190],
            "chat/p50_ttft_ms": samples[100],
            "chat/output_throughput": 123.4,
        },
        cases={"sums": 40},
        scores={"sums": {case.id: float(n >= wrong) for n, case in enumerate(CASES)}},
        samples={"sums": {"e2el": samples}, "chat": {"ttft": samples, "tpot": samples}},
        wrong={"sums": {case.id: answer for case in CASES[:wrong]}},
        errors={"chat": {"HTTP 500: <b>no</b>": errors}} if errors else {},
    )


def page(canary: Measurements, stable: Measurements | None, **more: Any) -> Page:
    verdict = decide(RULES, canary, stable)
    return Page(
        release=RELEASE,
        verdict=verdict,
        canary=canary,
        stable=stable,
        stable_id="f" * 12 if stable else None,
        changes=["engine v0.32.0 -> v0.33.0"],
        failing=failing_cases([SUITE], canary, stable),
        seconds={"release": 1.0, "evaluation": 61.25},
        requested_by="ann@laptop (llmops)",
        run="run-1",
        **more,
    )


class Parsed(HTMLParser):
    """Tags that were opened and closed, attributes, and the text between them."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def assert_self_contained(text: str) -> Parsed:
    parsed = Parsed(text)
    assert not {"script", "img", "link", "iframe", "object", "a", "base"} & set(parsed.tags)
    assert not [name for name, _ in parsed.attributes if name.startswith("on") or name in ("src", "href", "xlink:href")]
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    return parsed


def test_everything_about_a_worse_release_is_on_the_page() -> None:
    canary, stable = measured(20, slow=2, errors=3), measured(2)
    given_page = page(canary, stable)
    assert given_page.verdict is not None
    record = Record(
        model="tiny",
        release=RELEASE.id,
        verdict="Failed",
        reason=given_page.verdict.reason,
        details="last lines of a log",
        stage="evaluation",
        image="i",
        commit="c",
        run="run-1",
        requested_by="ann@laptop (llmops)",
        finished=dt.datetime(2026, 11, 25, 12, 0, tzinfo=dt.UTC),
    )
    text = render(page(canary, stable, record=record), now=dt.datetime(2026, 11, 25, 13, 0, tzinfo=dt.UTC))
    parsed = assert_self_contained(text)
    for wanted in (
        RELEASE.id, "Failed", given_page.verdict.reason,
        "engine v0.32.0 -> v0.33.0", "sums/score drops at most 3 points",
        "+45.0 points", "2.00×", "dry", "HTTP 500: <b>no</b>", "What is 3 + 1?", "stable passes it", "61.2 s",
        "ann@laptop (llmops)",
        "2026-11-25 12:00:00 UTC", "last lines of a log", f"sha256:{'c' * 64}", "123.4 tokens/s",
    ):  # fmt: skip
        assert wanted in parsed.text, wanted
    assert parsed.tags.count("polyline") == 4
    assert parsed.tags.count("details") == 20
    assert len(text) < 150_000


def test_the_page_of_a_first_release_has_no_stable() -> None:
    text = render(page(measured(1), None))
    parsed = assert_self_contained(text)
    assert "Served then" in parsed.text
    assert "Skipped" in parsed.text
    assert parsed.tags.count("polyline") == 2
    assert not any(name == "class" and "stable" in str(value) for name, value in parsed.attributes)


def test_a_release_that_was_never_measured_has_its_record() -> None:
    record = Record(
        model="tiny", release=RELEASE.id, verdict="Failed", reason="crash <loop>", stage="canary", image="i",
        commit="c",
        finished=dt.datetime(2026, 11, 25, tzinfo=dt.UTC),
    )  # fmt: skip
    parsed = assert_self_contained(render(Page(release=RELEASE, record=record)))
    assert "crash <loop>" in parsed.text
    assert "is not kept any more" in parsed.text
    assert "svg" not in parsed.tags


@pytest.mark.parametrize("wrong", [1, 5])
def test_markup_in_an_answer_is_escaped(wrong: int) -> None:
    parsed = assert_self_contained(render(page(measured(wrong, answer=HOSTILE), measured(wrong, answer=HOSTILE))))
    assert parsed.text.count(HOSTILE) == 2 * wrong


@given(st.text(max_size=300), st.text(max_size=300))
@settings(max_examples=50, deadline=None)
def test_no_text_breaks_the_page(answer: str, reason: str) -> None:
    canary = measured(1, answer=answer, errors=1)
    whole = page(canary, measured(1, answer=answer))
    assert whole.verdict is not None
    broken = Page(
        release=RELEASE,
        verdict=whole.verdict.model_copy(update={"reason": reason}),
        canary=canary.model_copy(update={"errors": {answer: {reason: 1}}}),
        failing=[FailingCase(suite=reason, case=answer, prompt=answer, expected=reason, canary=answer)],
        changes=[reason],
    )
    assert_self_contained(render(broken))


def test_failing_cases_that_stable_passes_come_first_with_both_answers() -> None:
    canary, stable = measured(20), measured(2, answer="stable's")
    stable.wrong["sums"] |= {case.id: "right" for case in CASES[2:10]}
    failing = failing_cases([SUITE], canary, stable)
    assert len(failing) == 20
    assert [case.lost for case in failing] == [True] * 18 + [False] * 2
    by_case = {case.case: case for case in failing}
    assert (by_case["c0"].stable, by_case["c3"].stable, by_case["c15"].stable) == ("stable's", "right", None)
    assert (by_case["c3"].prompt, by_case["c3"].expected) == ("What is 3 + 1?", "4")
    assert len(failing_cases([SUITE], measured(40), None)) == min(40, SHOWN)


def test_charts_hold_their_values() -> None:
    assert not ecdf([Series("canary", [])], "ms")
    curve = ecdf([Series("canary", [1.0, 2.0, 4.0])], "ms")
    assert curve.count("<polyline") == 1
    # The curve ends at the highest value, at the full height.
    assert curve.split('points="')[1].split('"')[0].split()[-1].endswith(",14.0")
    drawn = bars(["a<b"], [Series("canary", [0.5]), Series("stable", [None])], [["50%"], ["none"]])
    assert "a&lt;b" in drawn
    assert 'width="200.0"' in drawn
    assert 'width="0.0"' in drawn
