"""What a simulated model understands of a conversation besides the prompts that it knows.

- A message of a tool: it reports the text.
- "Repeat: TEXT" (or say, write, copy) as the user's last message: TEXT.
- "What is my THING?" after "My THING is VALUE" in an earlier message of the user: it names the value; so with "the".
- A text in quotes in the system prompt: the answer begins with it where the system prompt has the word begin or start,
  ends with it where it has the word end or finish, and is the text alone otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from llmops_sandbox.engine.request import Message

_REPEAT = re.compile(r"\s*(?:repeat|say|write|copy)\b[^:\n]*:\s*(.+)", re.IGNORECASE | re.DOTALL)
_FACT = re.compile(r"\b(?:my|the) ([\w ]+?) is ([\w-]+)", re.IGNORECASE)
_ASKED = re.compile(r"what(?:'s| is| was) (my|the) ([\w ]+?)\s*\?", re.IGNORECASE)
_QUOTED = re.compile(r"[\"\u201c]([^\"\u201d]+)[\"\u201d]")


def understood(conversation: Sequence[Message]) -> str | None:
    """The answer that the conversation itself gives, if any."""
    last = conversation[-1]
    if last.role == "tool":
        return f"The result is: {last.text}"
    if repeat := _REPEAT.fullmatch(last.text):
        return repeat[1]
    if asked := _ASKED.search(last.text):
        facts = {thing.lower(): value for message in conversation[:-1] for thing, value in _facts(message)}
        if value := facts.get(asked[2].lower()):
            owner = "Your" if asked[1].lower() == "my" else "The"
            return f"{owner} {asked[2]} is {value}."
    return None


def _facts(message: Message) -> list[tuple[str, str]]:
    return _FACT.findall(message.text) if message.role == "user" else []


def as_told(conversation: Sequence[Message], answer: str) -> str:
    """The answer in the form that the system prompt wants."""
    for message in conversation:
        if message.role in ("system", "developer") and (quoted := _QUOTED.search(message.text)):
            if re.search(r"\b(?:begin|start)", message.text, re.IGNORECASE):
                return f"{quoted[1]} {answer}"
            if re.search(r"\b(?:end|finish)", message.text, re.IGNORECASE):
                return f"{answer} {quoted[1]}"
            return quoted[1]
    return answer
