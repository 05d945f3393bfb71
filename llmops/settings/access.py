"""The ingress controller or gateway of this installation."""

from __future__ import annotations
