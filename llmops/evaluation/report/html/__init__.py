"""The report of a release: one page of HTML that needs nothing else. See `render`."""

from llmops.evaluation.report.html.page import Page, render

__all__ = ["Page", "render"]
