"""What a check is: questions, each a few requests with a judgement of their replies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from llmops.config.kinds import ProtocolTopic

Request = Mapping[str, Any]
"""The body of a request, without the model."""
UNTOLD = ("messages", "seed", "stream_options")
"""Fields that say little about a request."""
SHOWN = 200
"""Most characters of a request or of an answer in a finding."""


class Wrong(Exception):
    """A reply is not what the API says.

    Args:
        came: What came.
        wanted: What the API says.
    """

    def __init__(self, came: str, wanted: str) -> None:
        super().__init__(f"{came}; {wanted}")
        self.came, self.wanted = came, wanted


class Unjudged(Exception):
    """The replies allow no judgement, such as an answer that `max_tokens` ends before what counts."""


@dataclass(frozen=True)
class Reply:
    """What came back for a request.

    Args:
        status: HTTP status.
        body: The parsed JSON of a whole answer; None for a stream and for a body that is no JSON.
        text: The start of the body, for people.
        events: The parsed events of a stream, without the last.
        done: Whether a stream ended with `[DONE]`.
        broken: The first event of a stream that is no JSON; empty if all are.
    """

    status: int
    body: Any = None
    text: str = ""
    events: tuple[Any, ...] = ()
    done: bool = False
    broken: str = ""


Step = Request | Callable[[Sequence[Reply]], Request]
"""A request, or how to make it from the replies to those before."""


@dataclass(frozen=True)
class Question:
    """One way to ask what a check is about.

    Args:
        steps: Requests, sent one after the other.
        judge: Judges the replies to them; raises `Wrong` or `Unjudged`.
    """

    steps: tuple[Step, ...]
    judge: Callable[[Sequence[Reply]], None]


@dataclass(frozen=True)
class Check:
    """One rule of the API.

    Args:
        id: TOPIC.NAME.
        sentence: What holds if it passes, for people.
        questions: The first alone where the server decides; several where the model has a part.
        by: Who decides the outcome.
        common: Whether every chat model can pass. One that only some can is reported only if stable does.
    """

    id: str
    sentence: str
    questions: tuple[Question, ...]
    by: Literal["server", "model"] = "server"
    common: bool = True

    @property
    def topic(self) -> ProtocolTopic:
        """The topic."""
        return self.id.partition(".")[0]  # pyright: ignore[reportReturnType] -- a test holds the registry to the topics


def chat(*said: str, system: str = "", tokens: int = 32, **fields: Any) -> dict[str, Any]:
    """A request at temperature 0; the user and the assistant take turns in `said`.

    Args:
        said: The texts of the turns; the user begins.
        system: A system message before them.
        tokens: Longest answer.
        fields: Further fields of the API; None leaves one out.
    """
    turns = [{"role": "assistant" if place % 2 else "user", "content": text} for place, text in enumerate(said)]
    messages = [*([{"role": "system", "content": system}] if system else []), *turns]
    content = {"messages": messages, "max_tokens": tokens, "temperature": 0, "seed": 0} | fields
    return {name: value for name, value in content.items() if value is not None}


def one(request: Step, judge: Callable[[Reply], None]) -> Question:
    """A question of one request."""
    return Question((request,), lambda replies: judge(replies[0]))


def shown(value: object) -> str:
    """A value in a few characters, for people; `repr` keeps control characters out."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def in_short(request: Request) -> str:
    """A request in a few words: the last thing said, and the fields besides those that all have."""
    messages = request.get("messages")
    last: Any = messages[-1] if isinstance(messages, list) and messages else messages
    said = shown(last.get("content"))[:80] if isinstance(last, Mapping) else shown(last)
    fields = {name: value for name, value in request.items() if name not in UNTOLD}
    if isinstance(tools := fields.get("tools"), list):
        fields["tools"] = [tool["function"]["name"] for tool in tools]
    if isinstance(form := fields.get("response_format"), Mapping):
        fields["response_format"] = form["type"]
    return f"{said} with {', '.join(f'{name}={shown(value)}' for name, value in fields.items())}"[: 2 * SHOWN]
