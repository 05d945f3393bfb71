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
        BadInput: The text is malformed, or the key has a length that the specification forbids. The message never
            shows the key.
    """
    try:
        key = base64.b64decode(text.removeprefix(PREFIX), validate=True)
    except ValueError as error:
        raise BadInput(
            "the signing key is not base64",
            code="InvalidSigningKey",
            remedy=f"Put {PREFIX} and the base64 of 24 to 64 random bytes into the Secret.",
        ) from error
    if len(key) not in KEY_BYTES:
        raise BadInput(
            f"the signing key has {len(key)} bytes",
            code="InvalidSigningKey",
            remedy=f"Put {PREFIX} and the base64 of 24 to 64 random bytes into the Secret.",
        )
    return key


def signed_headers(key: bytes, message: str, timestamp: int, body: bytes) -> dict[str, str]:
    """Headers by which a receiver verifies the sender and the age of a body.

    Args:
        key: Shared with the receiver.
        message: Id of the message, the same for each attempt.
        timestamp: Time of sending, Unix seconds.
        body: The bytes that are sent.
    """
    content = f"{message}.{timestamp}.".encode() + body
    signature = base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()
    return {"webhook-id": message, "webhook-timestamp": str(timestamp), "webhook-signature": f"v1,{signature}"}
