"""The model hub: the commit of a revision, its files, and the files that a release takes."""

from llmops.clients.hub.client import check_access, list_files, resolve, whoami
from llmops.clients.hub.documents import read_documents
from llmops.clients.hub.files import HubFile, documents_needed, require_config, select
from llmops.clients.hub.limits import RateLimited
from llmops.clients.hub.loading import Loading
from llmops.clients.hub.shape import count_parameters, read_config

__all__ = [
    "HubFile",
    "Loading",
    "RateLimited",
    "check_access",
    "count_parameters",
    "documents_needed",
    "list_files",
    "read_config",
    "read_documents",
    "require_config",
    "resolve",
    "select",
    "whoami",
]
