"""The release and the settings that manifests are rendered from."""

from tests.support.manifests import release, settings

__all__ = ["release", "settings"]
