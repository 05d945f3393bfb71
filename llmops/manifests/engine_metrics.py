"""Names of vLLM's metrics, by its version.

As vLLM gives them since 0.9; what changed since is in `RENAMED`. An old name is hidden one minor version after its new
one came, and gone after the next, so a rule takes the name of the release's own version.
"""

from __future__ import annotations

from packaging.version import InvalidVersion, Version

RUNNING = "vllm:num_requests_running"
WAITING = "vllm:num_requests_waiting"
KV_CACHE = "vllm:kv_cache_usage_perc"
PREEMPTIONS = "vllm:num_preemptions_total"
PROMPT_TOKENS = "vllm:prompt_tokens_total"
GENERATION_TOKENS = "vllm:generation_tokens_total"
FINISHED = "vllm:request_success_total"
TTFT = "vllm:time_to_first_token_seconds"
E2E = "vllm:e2e_request_latency_seconds"
INTER_TOKEN = "vllm:inter_token_latency_seconds"  # noqa: S105 - of text, not of access
PREFIX_QUERIES = "vllm:prefix_cache_queries_total"
PREFIX_HITS = "vllm:prefix_cache_hits_total"
HTTP_REQUESTS = "http_requests_total"

RENAMED = {
    # In spite of its name a ratio of 0 to 1, before and after.
    KV_CACHE: ("vllm:gpu_cache_usage_perc", Version("0.9.2")),
    INTER_TOKEN: ("vllm:time_per_output_token_seconds", Version("0.10.2")),
    PREFIX_QUERIES: ("vllm:gpu_prefix_cache_queries_total", Version("0.9.2")),
    PREFIX_HITS: ("vllm:gpu_prefix_cache_hits_total", Version("0.9.2")),
}


def name_in(metric: str, tag: str) -> str:
    """What a version of vLLM calls a metric.

    Args:
        metric: Today's name, one of this module's.
        tag: Of the image, such as `v0.32.0`; one that says no version is taken for today's.
    """
    if metric not in RENAMED:
        return metric
    old, since = RENAMED[metric]
    try:
        version = Version(tag)
    except InvalidVersion:
        return metric
    return metric if version >= since else old
