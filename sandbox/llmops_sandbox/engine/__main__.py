"""`python -m llmops_sandbox.engine ARGS...`: what `vllm serve ARGS...` is on a machine with a GPU."""

import sys

from llmops_sandbox.engine.main import main

sys.exit(main(sys.argv[1:]))
