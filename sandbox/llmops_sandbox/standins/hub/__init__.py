"""A stand-in for the model hub: repositories in a folder, served as the hub's HTTP API.

The real `huggingface_hub` client works against it through `HF_ENDPOINT`.
"""

from llmops_sandbox.standins.hub.server import HubServer
from llmops_sandbox.standins.hub.store import HubStore

__all__ = ["HubServer", "HubStore"]
