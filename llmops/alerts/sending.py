"""Sends one alert to one target, with the URL and key from the target's Secret."""

from __future__ import annotations

import logging

from llmops.alerts.outbox import Alert
from llmops.alerts.targets import target_of
from llmops.alerts.targets.message import Message
from llmops.clients.kubernetes.client import Cluster
from llmops.config.alerting import AlertTarget
from llmops.config.redaction import remember
from llmops.config.schema import SecretKey
from llmops.config.settings import Settings
from llmops.errors import BadInput

TALKATIVE = {"httpx2": logging.WARNING, "urllib3": logging.INFO}
"""Libraries that log whole URLs, and the lowest level at which they log none."""


def send(alert: Alert, target: AlertTarget, cluster: Cluster, settings: Settings) -> None:
    """Send an alert to a target.

    Raises:
        Unavailable: The target does not answer, asks to come back later, or refuses.
        BadInput: Its URL or key is missing or cannot be used.
    """
    for library, level in TALKATIVE.items():
        logging.getLogger(library).setLevel(level)
    url = _secret(cluster, target.url)
    key = _secret(cluster, target.signing_key) if target.signing_key is not None else ""
    target_of(target.kind).send(Message(alert, settings, url, key))


def _secret(cluster: Cluster, secret: SecretKey) -> str:
    if not (value := cluster.secret_text(secret.name, secret.key)):
        raise BadInput(
            f"Secret {secret.name} in namespace {cluster.namespace} has no key {secret.key}",
            code="SecretMissing",
            about=f"Secret {secret.name}",
            remedy="Create the key.",
        )
    # Of a URL, the path alone is the password.
    remember(value)
    remember(value.partition("://")[2].partition("/")[2])
    return value
