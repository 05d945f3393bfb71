"""Real programs that the sandbox installs or builds: databases, routers, Prometheus, evaluation tools, vLLM."""
