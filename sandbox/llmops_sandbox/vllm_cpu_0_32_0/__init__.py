"""What the real vLLM 0.32.0 needs to run on CPU: its requirements, and the script that makes its model."""
