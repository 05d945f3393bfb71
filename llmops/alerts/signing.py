"""Signatures of webhooks, by the Standard Webhooks specification."""

from __future__ import annotations

import base64
import hashlib
import hmac

from llmops.errors import BadInput

PREFIX = "whsec_"
KEY_BYTES = range(24, 65)


def parse_key(text: str) -> bytes:
    """The key's bytes, from `whsec_` and base64.

    Raises:
        BadInput: It is not that, or is shorter or longer than the specification allows. The key is not shown.
    """
    try:
        key = base64.b64decode(text.removeprefix(PREFIX), validate=True)
    except ValueError as error:
        raise BadInput(
            "the signing key is not base64", remedy=f"It is {PREFIX} and base64 of 24 to 64 bytes."
        ) from error
    if len(key) not in KEY_BYTES:
        raise BadInput(
            f"the signing key has {len(key)} bytes", remedy=f"It is {PREFIX} and base64 of 24 to 64 random bytes."
        )
    return key


def signed_headers(key: bytes, message: str, timestamp: int, body: bytes) -> dict[str, str]:
    """Headers that let a receiver see who sent the body, and that it is new.

    Args:
        key: Shared with the receiver.
        message: Id of the message, the same each time it is sent.
        timestamp: When it is sent, Unix seconds.
        body: Exactly what is sent.
    """
    content = f"{message}.{timestamp}.".encode() + body
    signature = base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()
    return {"webhook-id": message, "webhook-timestamp": str(timestamp), "webhook-signature": f"v1,{signature}"}
