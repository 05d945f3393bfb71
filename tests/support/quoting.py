"""YAML with every text in quotes: the loader refuses some that PyYAML writes without, such as 08."""

from __future__ import annotations

from typing import Any

import yaml


class _Dumper(yaml.SafeDumper):
    pass


def _quoted(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"')


_Dumper.add_representer(str, _quoted)


def quoted_yaml(content: Any) -> str:
    return yaml.dump(content, Dumper=_Dumper)
