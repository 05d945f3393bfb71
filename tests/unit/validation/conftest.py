from tests.support.manifests import release

__all__ = ["release"]
