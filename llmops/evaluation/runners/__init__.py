"""Runs suites against an engine: quality cases, load profiles, evaluation tools."""
