"""Log-probabilities of an answer's tokens, as the two APIs write them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Literal

from llmops_sandbox.engine.api.errors import Body
from llmops_sandbox.engine.model.logprobs import Logprob

Kind = Literal["chat", "text"]


def written(kind: Kind, ids: Sequence[int], scored: Sequence[Mapping[int, Logprob]], top: int, offset: int = 0) -> Body:
    """Log-probabilities of an answer's tokens.

    Args:
        kind: Which API was asked.
        ids: The tokens.
        scored: What `Reading.go_on` says of them.
        top: Alternatives that the client wants.
        offset: Characters of the answer before these tokens.
    """
    own = [named[token] for token, named in zip(ids, scored, strict=True)]
    if kind == "chat":
        content = [
            {**_entry(entry), "top_logprobs": [_entry(other) for other in [*named.values()][:top]]}
            for entry, named in zip(own, scored, strict=True)
        ]
        return {"content": content}
    tokens = [entry["decoded_token"] for entry in own]
    return {
        "text_offset": list(itertools.accumulate((len(token) for token in tokens[:-1]), initial=offset)),
        "token_logprobs": [entry["logprob"] for entry in own],
        "tokens": tokens,
        "top_logprobs": [{entry["decoded_token"]: entry["logprob"] for entry in named.values()} for named in scored],
    }


def _entry(entry: Logprob) -> Body:
    token = entry["decoded_token"]
    return {"token": token, "logprob": entry["logprob"], "bytes": list(token.encode(errors="replace"))}
