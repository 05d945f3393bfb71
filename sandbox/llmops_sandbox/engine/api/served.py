"""The served model, and the answer of /v1/models."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from llmops_sandbox.engine.api.errors import ApiError, Body


@dataclass(frozen=True)
class Served:
    """The served model: its names and limits."""

    names: tuple[str, ...]
    root: str
    max_model_len: int
    version: str
    fingerprint: str
    created: int

    def check_name(self, body: Body) -> None:
        """Refuse a model that is not served; a request without a model means the served one.

        Raises:
            ApiError: 404.
        """
        if (name := body.get("model")) and name not in self.names:
            message = f"The model `{name}` does not exist. Valid aliases: {', '.join(self.names)}."
            raise ApiError(404, message, "NotFoundError", "model")

    def models(self) -> Body:
        """The answer of /v1/models."""
        return {"object": "list", "data": [self._card(name) for name in self.names]}

    def _card(self, name: str) -> Body:
        return {
            "id": name,
            "object": "model",
            "created": self.created,
            "owned_by": "vllm",
            "root": self.root,
            "parent": None,
            "max_model_len": self.max_model_len,
            "permission": [
                {
                    "id": f"modelperm-{secrets.token_hex(8)}",
                    "object": "model_permission",
                    "created": self.created,
                    "allow_create_engine": False,
                    "allow_sampling": True,
                    "allow_logprobs": True,
                    "allow_search_indices": False,
                    "allow_view": True,
                    "allow_fine_tuning": False,
                    "organization": "*",
                    "group": None,
                    "is_blocking": False,
                }
            ],
        }
