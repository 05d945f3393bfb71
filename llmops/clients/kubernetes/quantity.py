"""Kubernetes quantities as numbers."""

from __future__ import annotations

import re
from decimal import Decimal

from kubernetes.utils.quantity import parse_quantity

from llmops.errors import BadInput

# The library also accepts what the API server refuses: `1 Gi`, `1mi`, `1_000`, `NaN`.
_FORM = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+|[numkMGTPE]|[KMGTPE]i)?")


def quantity(text: str | float) -> Decimal:
    """Parse a quantity: `500m` is 0.5, `1Gi` is 1073741824.

    Raises:
        BadInput: The text is not a quantity.
    """
    if not _FORM.fullmatch(str(text)):
        raise BadInput(
            f"{text!r} is no Kubernetes quantity",
            code="InvalidQuantity",
            about=str(text),
            remedy="Write a number, with a suffix of Kubernetes if it is large or small: 500m, 2Gi.",
        )
    return parse_quantity(str(text))
