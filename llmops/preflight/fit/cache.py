"""How many tokens a KV cache of some bytes holds, by vLLM's own rules (0.32: `v1/core/kv_cache_utils.py`).

vLLM puts layers into groups of equal size. A block of memory belongs to one group at a time. A request takes blocks
of every group; a group with a sliding window frees the blocks behind its window.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from llmops.preflight.fit.layers import Layers

BLOCK_TOKENS = 16
# vLLM splits a kind of layers that is much more frequent than another into several groups; it does not pad the rarer.
PADDED_UP_TO = 1.5


@dataclass(frozen=True)
class Group:
    """Layers that share their blocks.

    Args:
        window: Tokens that the layers look back on; None for all.
        chunked: Whether the window is a chunk that starts anew.
        block_tokens: Tokens in a block.
    """

    window: int | None
    chunked: bool
    block_tokens: int

    def blocks(self, tokens: int, in_flight: int) -> int:
        """Largest number of blocks that a request of so many tokens takes of this group."""
        if self.window is None:
            return math.ceil(tokens / self.block_tokens)
        if self.chunked:
            return math.ceil(min(self.window + in_flight, tokens) / self.block_tokens)
        return math.ceil(min(self.window - 1 + in_flight, tokens) / self.block_tokens) + 1


@dataclass(frozen=True)
class Groups:
    """The groups of a model on one GPU.

    Args:
        groups: The groups.
        block_bytes: Bytes of a block.
        in_flight: Tokens in work at once: vLLM keeps blocks behind a window until those are done.
    """

    groups: tuple[Group, ...]
    block_bytes: float
    in_flight: int

    def blocks(self, tokens: int) -> int:
        """Largest number of blocks that a request of so many tokens takes."""
        return sum(group.blocks(tokens, self.in_flight) for group in self.groups)

    def concurrency(self, kv_bytes: float, tokens: int) -> float:
        """How many requests of so many tokens the cache holds at once."""
        return (kv_bytes // self.block_bytes) / self.blocks(tokens)

    def fits(self, kv_bytes: float, tokens: int) -> bool:
        """Whether one request of so many tokens fits; vLLM keeps one block back."""
        return self.blocks(tokens) * self.block_bytes <= kv_bytes - self.block_bytes

    def longest(self, kv_bytes: float, limit: int) -> int:
        """Tokens of the longest request that fits, up to a limit; 0 if none fits."""
        low, high = 0, limit
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.fits(kv_bytes, middle) else (low, middle - 1)
        return low


def groups_of(
    layers: Sequence[Layers],
    *,
    pipeline: int = 1,
    block_tokens: int = BLOCK_TOKENS,
    in_flight: int = 0,
    frees_windows: bool = True,
) -> Groups:
    """Group the layers of a model.

    Args:
        layers: The model's layers by kind.
        pipeline: Number of pipeline stages.
        block_tokens: Tokens in a block.
        in_flight: See `Groups`.
        frees_windows: Whether vLLM frees what is behind a window (its hybrid KV cache manager is on).
    """
    windows = {(kind.window, kind.chunked) for kind in layers}
    if len(windows) == 1 or not frees_windows:
        # One group takes all layers, also of several sizes; beside full attention, windows are then not freed.
        (window, chunked) = next(iter(windows)) if len(windows) == 1 else (None, False)
        size = sum(math.ceil(kind.count / pipeline) * kind.token_bytes for kind in layers)
        return Groups((Group(window, chunked, block_tokens),), size * block_tokens, in_flight)
    counts = [kind.count for kind in layers]
    size = max(counts) if max(counts) < min(counts) * PADDED_UP_TO else min(counts)
    largest = max(kind.token_bytes for kind in layers)
    groups = [
        Group(kind.window, kind.chunked, block_tokens * _times(largest, kind.token_bytes))
        for kind in layers
        for _ in range(math.ceil(kind.count / size))
    ]
    return Groups(tuple(groups), math.ceil(size / pipeline) * largest * block_tokens, in_flight)


def _times(largest: float, smaller: float) -> int:
    """How often the tokens of a smaller layer fit into a block: once, padded, unless the sizes divide evenly."""
    return int(largest // smaller) if largest % smaller == 0 else 1
