"""What all tests share: tests of the product in tests/, those of the sandbox in sandbox/tests."""

pytest_plugins = ["tests.support.fixtures", "tests.support.selection"]
