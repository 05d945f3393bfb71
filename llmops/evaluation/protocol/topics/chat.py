"""A plain answer has the form of a chat completion."""

from __future__ import annotations

from collections.abc import Mapping

from llmops.evaluation.protocol.answers import FINISHED, read
from llmops.evaluation.protocol.check import Check, Reply, Wrong, chat, one, shown


def judge_answer(reply: Reply) -> None:
    """An answer has a message of the assistant with something in it, and a reason for its end."""
    choice = read(reply).first
    if choice.role != "assistant":
        raise Wrong(f"role {shown(choice.role)}", "the message's role is assistant")
    if choice.finish not in FINISHED:
        raise Wrong(f"finish_reason {shown(choice.finish)}", f"finish_reason is one of {', '.join(FINISHED)}")
    if not (choice.content or choice.reasoning or choice.refusal or choice.calls):
        raise Wrong("an empty message", "the message has content")


def judge_names(reply: Reply) -> None:
    """An answer names itself, and the model that gave it."""
    read(reply)
    body = reply.body
    assert isinstance(body, Mapping)
    for name in ("id", "model"):
        if not isinstance(body.get(name), str) or not body[name]:
            raise Wrong(f"{name} {shown(body.get(name))}", f"{name} is a text")
    if body.get("object") != "chat.completion":
        raise Wrong(f"object {shown(body.get('object'))}", "object is chat.completion")


CHECKS = (
    Check(
        "chat.answer",
        "A question gets an answer of the assistant, with a reason for its end.",
        (one(chat("Say hello."), judge_answer),),
    ),
    Check(
        "chat.names",
        "An answer has an id, the name of the model, and the type chat.completion.",
        (one(chat("Say hello.", tokens=4), judge_names),),
    ),
)
