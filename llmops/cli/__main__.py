"""`python -m llmops.cli`: the command line, where its script is not on the PATH."""

from llmops.cli import main

main()
