"""The report of a release: one self-contained HTML page. See `render`."""

from llmops.evaluation.report.html.page import Page, render

__all__ = ["Page", "render"]
