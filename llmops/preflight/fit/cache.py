"""How many tokens a KV cache of some bytes holds, by vLLM's own rules (0.32: `v1/core/kv_cache_utils.py`).

Layers are put into groups of the same number of layers. A block of memory belongs to one group at a time; a request
takes blocks of every group, and a group that looks back only so far gives up what is behind.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from llmops.preflight.fit.layers import Layers

BLOCK_TOKENS = 16
# One kind of layers much more frequent than another is split into several groups, instead of padding the rarer.
PADDED_UP_TO = 1.5


@dataclass(frozen=True)
class Groups:
    """The groups of a model on one GPU.

    Args:
        windows: Of each group, how far it looks back; None for all the way.
        block_bytes: Of one block.
        block_tokens: Tokens in a block.
        in_flight: Tokens that may be in work at once: blocks behind a window are kept until those are done.
    """

    windows: tuple[int | None, ...]
    block_bytes: float
    block_tokens: int
    in_flight: int

    def blocks(self, tokens: int) -> int:
        """Blocks that a request of so many tokens takes at most."""
        return sum(self._of_group(window, tokens) for window in self.windows)

    def _of_group(self, window: int | None, tokens: int) -> int:
        if window is None:
            return math.ceil(tokens / self.block_tokens)
        return math.ceil(min(window - 1 + self.in_flight, tokens) / self.block_tokens) + 1

    def concurrency(self, kv_bytes: float, tokens: int) -> float:
        """How many requests of so many tokens the cache holds at once."""
        return (kv_bytes // self.block_bytes) / self.blocks(tokens)

    def fits(self, kv_bytes: float, tokens: int) -> bool:
        """Whether one request of so many tokens can run at all; one block is never given out."""
        return self.blocks(tokens) * self.block_bytes <= kv_bytes - self.block_bytes

    def longest(self, kv_bytes: float, limit: int) -> int:
        """The longest request, in tokens, that can run, up to a limit; 0 if none can."""
        low, high = 0, limit
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.fits(kv_bytes, middle) else (low, middle - 1)
        return low


def groups_of(
    layers: Sequence[Layers], *, pipeline: int = 1, block_tokens: int = BLOCK_TOKENS, in_flight: int = 0
) -> Groups:
    """Group the layers of a model.

    Args:
        layers: By kind, each keeping the same of a token.
        pipeline: GPUs that the layers are dealt out to, one after the other.
        block_tokens: Tokens in a block.
        in_flight: See `Groups`.
    """
    counts = [each.count for each in layers]
    size = max(counts) if max(counts) < min(counts) * PADDED_UP_TO else min(counts)
    windows = [each.window for each in layers for _ in range(math.ceil(each.count / size))]
    bytes_of_layer = max(each.token_bytes for each in layers) * block_tokens
    return Groups(tuple(windows), math.ceil(size / pipeline) * bytes_of_layer, block_tokens, in_flight)
