"""The model hub: which commit a revision is, what files it has, and which of them a release takes."""

from llmops.hub.client import check_access, list_files, resolve
from llmops.hub.files import HubFile, select

__all__ = ["HubFile", "check_access", "list_files", "resolve", "select"]
