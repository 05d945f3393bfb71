"""Evaluation: suites and load profiles, what runs them, and the gates that turn figures into a verdict."""
