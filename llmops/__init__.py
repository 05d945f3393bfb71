"""llmops: takes a self-hosted LLM from a line in a catalog to production traffic on Kubernetes."""

__version__ = "0.1.0"
