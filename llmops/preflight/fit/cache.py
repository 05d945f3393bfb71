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
class Groups:
    """The groups of a model on one GPU.

    Args:
        windows: Window of each group in tokens; None for full attention.
        block_bytes: Bytes of a block.
        block_tokens: Tokens in a block.
        in_flight: Tokens in work at once: vLLM keeps blocks behind a window until those are done.
    """

    windows: tuple[int | None, ...]
    block_bytes: float
    block_tokens: int
    in_flight: int

    def blocks(self, tokens: int) -> int:
        """Largest number of blocks that a request of this many tokens takes."""
        return sum(self._of_group(window, tokens) for window in self.windows)

    def _of_group(self, window: int | None, tokens: int) -> int:
        if window is None:
            return math.ceil(tokens / self.block_tokens)
        return math.ceil(min(window - 1 + self.in_flight, tokens) / self.block_tokens) + 1

    def concurrency(self, kv_bytes: float, tokens: int) -> float:
        """How many requests of this many tokens the cache holds at once."""
        return (kv_bytes // self.block_bytes) / self.blocks(tokens)

    def fits(self, kv_bytes: float, tokens: int) -> bool:
        """Whether one request of this many tokens fits; vLLM keeps one block back."""
        return self.blocks(tokens) * self.block_bytes <= kv_bytes - self.block_bytes

    def longest(self, kv_bytes: float, limit: int) -> int:
        """Tokens of the longest request that fits, up to a limit; 0 if none fits."""
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
        layers: The model's layers by kind, all with the same bytes per token.
        pipeline: Number of pipeline stages.
        block_tokens: Tokens in a block.
        in_flight: See `Groups`.
    """
    counts = [kind.count for kind in layers]
    size = max(counts) if max(counts) < min(counts) * PADDED_UP_TO else min(counts)
    windows = [kind.window for kind in layers for _ in range(math.ceil(kind.count / size))]
    bytes_of_layer = max(kind.token_bytes for kind in layers) * block_tokens
    return Groups(tuple(windows), math.ceil(size / pipeline) * bytes_of_layer, block_tokens, in_flight)
