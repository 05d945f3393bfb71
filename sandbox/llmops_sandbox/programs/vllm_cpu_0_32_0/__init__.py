"""The requirements of the real vLLM 0.32.0 on CPU, and the script that makes its model."""
