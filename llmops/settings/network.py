"""Who may reach the engines inside this installation's cluster."""

from __future__ import annotations
