"""The model hub: the commit of a revision, its files, and the files that a release takes."""

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
