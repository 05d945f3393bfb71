"""Fixtures of all tests, those of llmops in tests/ and of the sandbox in sandbox/tests."""

pytest_plugins = ["tests.support.fixtures", "tests.support.selection"]
