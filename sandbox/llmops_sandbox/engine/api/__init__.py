"""vLLM's HTTP API over the simulated engine: requests, bodies and errors with vLLM 0.32.0's keys and words."""
