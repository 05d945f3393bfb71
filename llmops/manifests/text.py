"""Objects as YAML text: equal bytes for equal objects, with one meaning to every YAML parser."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import yaml

from llmops.manifests.pods import Manifest

# Text that some version of YAML, or some reader of it, takes for a number, a truth value or nothing: `1e3` is a number
# to kubectl and none to Python.
_AMBIGUOUS = re.compile(
    r"[-+]?\.?[0-9][-+0-9a-fox_.,:]*|[-+]?\.(inf|nan)|y|n|yes|no|on|off|true|false|null|~|=|<<", re.IGNORECASE
)


class _Dumper(yaml.SafeDumper):
    """Writes no anchors, and texts of several lines as blocks."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = "|" if "\n" in value else "'" if _AMBIGUOUS.fullmatch(value) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


def as_yaml(manifests: Iterable[Manifest]) -> str:
    """Several objects as documents of one text, in their order."""
    documents = (yaml.dump(manifest, Dumper=_Dumper, sort_keys=False, width=10_000) for manifest in manifests)
    return "---\n".join(documents)
