"""An evaluation as Markdown tables: gates, scores, latencies, and the cases that did not pass."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from llmops.evaluation.gates.metrics import show
from llmops.evaluation.gates.verdict import Rule, Verdict
from llmops.evaluation.measurements import Measurements
from llmops.evaluation.report import fidelity, protocol

LATENCIES = ("ttft", "tpot", "itl", "e2el")
STATISTICS = ("mean", "p50", "p90", "p95", "p99")
CASES_SHOWN = 30
ANSWER_LENGTH = 160


def report(verdict: Verdict, canary: Measurements, stable: Measurements | None) -> str:
    """The whole evaluation on one page."""
    sections = (
        ("Gates", gate_table(verdict)),
        ("Scores", score_table(canary, stable)),
        ("Protocol", protocol_tables(canary)),
        ("Fidelity", fidelity_tables(canary)),
        ("Latency", latency_table(canary, stable)),
        ("Cases that were not passed", case_table(canary, stable)),
    )
    body = "\n\n".join(f"### {title}\n\n{table}" for title, table in sections if table)
    return f"**{verdict.value}**: {_cell(verdict.reason)}\n\n{body}\n"


def gate_table(verdict: Verdict) -> str:
    """One row per gate: outcome, rule, figures, bounds, and the reason."""
    rows = [
        (
            gate.outcome,
            f"{gate.metric} {gate.rule} {gate.limit:g}",
            _figure(gate.metric, gate.canary),
            _figure(gate.metric, gate.stable),
            _bounds(gate.low, gate.high, gate.rule),
            gate.note,
        )
        for gate in verdict.gates
    ]
    return _table(("outcome", "gate", "canary", "stable", "bounds", "note"), rows)


def score_table(canary: Measurements, stable: Measurements | None) -> str:
    """One row per suite with cases, and one over all."""
    names = sorted(canary.cases)
    rows: list[Sequence[str]] = []
    for name in [*names, "all"] if len(names) > 1 else names:
        answered, total = canary.answered(name)
        metric = f"{name}/score"
        rows.append(
            (
                name,
                f"{answered} of {total}",
                _figure(metric, canary.figures.get(metric)),
                _figure(metric, stable.figures.get(metric) if stable else None),
            )
        )
    return _table(("suite", "cases answered", "canary", "stable"), rows)


def fidelity_tables(canary: Measurements) -> str:
    """Figures, cases furthest apart and what stands out, for each fidelity suite."""
    parts: list[str] = []
    for section in fidelity.sections(canary):
        parts.append(_table((section.name, "canary and stable"), section.figures))
        parts.append(_table(("case", "tokens", "over the null", "same token preferred"), section.cases))
        parts.append("\n".join(f"- {_cell(note)}" for note in section.notes))
    return "\n\n".join(part for part in parts if part)


def protocol_tables(canary: Measurements) -> str:
    """How many checks pass, and the others, for each protocol suite."""
    parts: list[str] = []
    for section in protocol.sections(canary.protocol):
        parts.append(section.summary)
        parts.append(_table(("outcome", "check", "asked", "came", "the API says", "stable"), section.rows))
    return "\n\n".join(part for part in parts if part)


def latency_table(canary: Measurements, stable: Measurements | None) -> str:
    """Percentiles in milliseconds by load profile, then throughput and errors; stable in brackets."""
    rows: list[Sequence[str]] = []
    others = canary.cases.keys() | canary.distances.keys() | canary.protocol.keys()
    profiles = [name for name in sorted(canary.suites) if name not in others]
    for name in profiles:
        for kind in LATENCIES:
            metrics = [f"{name}/{statistic}_{kind}_ms" for statistic in STATISTICS]
            if metrics[0] in canary.figures:
                rows.append((f"{name} {kind.upper()}, ms", *(_both(metric, canary, stable) for metric in metrics)))
    table = _table(("load", *STATISTICS), rows)
    lines = [
        f"- {name}: "
        + ", ".join(
            f"{figure.replace('_', ' ')} {_both(f'{name}/{figure}', canary, stable, unit=True)}"
            for figure in (
                "output_throughput",
                "request_throughput",
                "error_rate",
                "client_cpu_share",
                "usd_per_million_tokens",
            )
            if f"{name}/{figure}" in canary.figures
        )
        for name in profiles
    ]
    return "\n\n".join(part for part in (table, "\n".join(lines)) if part)


def case_table(canary: Measurements, stable: Measurements | None) -> str:
    """Cases that the canary did not pass, with both answers; cases that stable passed come first."""
    rows: list[tuple[bool, str, str, str]] = []
    for suite in sorted(canary.scores):
        for case, score in sorted(canary.scores[suite].items()):
            if score >= 1:
                continue
            theirs = stable.scores.get(suite, {}).get(case) if stable else None
            passed = theirs is not None and theirs >= 1
            rows.append(
                (not passed, f"{suite}/{case}", _answer(canary, suite, case), _stable_answer(stable, suite, case))
            )
    rows.sort()
    shown = [row[1:] for row in rows[:CASES_SHOWN]]
    table = _table(("case", "canary", "stable"), shown)
    return f"{table}\n\n{len(rows) - len(shown)} more." if len(rows) > len(shown) else table


def _answer(measured: Measurements, suite: str, case: str) -> str:
    text = measured.wrong.get(suite, {}).get(case)
    if text is None:
        return "wrong (answer not kept)"
    return f"{text[:ANSWER_LENGTH]!r}" if text else "(empty)"


def _stable_answer(stable: Measurements | None, suite: str, case: str) -> str:
    score = stable.scores.get(suite, {}).get(case) if stable else None
    if stable is None or score is None:
        return ""
    return "right" if score >= 1 else _answer(stable, suite, case)


def _figure(metric: str, value: float | None) -> str:
    return "" if value is None else show(metric.rpartition("/")[2], value)


def _both(metric: str, canary: Measurements, stable: Measurements | None, *, unit: bool = False) -> str:
    def text(value: float) -> str:
        return _figure(metric, value) if unit else f"{value:,.1f}"

    ours, theirs = canary.figures.get(metric), stable.figures.get(metric) if stable else None
    if ours is None:
        return ""
    return text(ours) if theirs is None else f"{text(ours)} ({text(theirs)})"


def _bounds(low: float | None, high: float | None, rule: Rule) -> str:
    if low is None or high is None:
        return ""
    if rule == "max_divergence":
        return f"{low:.4f} to {high:.4f} nats"
    return f"{low:.2f}x to {high:.2f}x" if rule == "max_ratio" else f"{low * 100:.1f} to {high * 100:.1f} points"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    body = [_row(row) for row in rows]
    return "\n".join([_row(head), _row(["---"] * len(head)), *body]) if body else ""


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(_cell(cell) for cell in cells)} |"


def _cell(text: str) -> str:
    """Escape an engine's answer, so that none of its pipes, line breaks and markup takes effect in a table."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|").replace("`", "\\`")
    return " ".join(escaped.replace("[", "\\[").replace("!", "\\!").split())
