"""The model hub: which commit a revision is, what files it has, and which of them a release takes."""

from llmops.clients.hub.client import check_access, list_files, resolve, whoami
from llmops.clients.hub.files import HubFile, select
from llmops.clients.hub.limits import RateLimited
from llmops.clients.hub.shape import count_parameters, read_config

__all__ = [
    "HubFile",
    "RateLimited",
    "check_access",
    "count_parameters",
    "list_files",
    "read_config",
    "resolve",
    "select",
    "whoami",
]
