"""Names of vLLM's metrics, by its version.

The names are those since vLLM 0.9; `RENAMED` has the later changes. vLLM hides an old name one minor version after the
new one appears, and drops it after the next. So a rule uses the name of the release's own version.
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
    # Both names mean a ratio of 0 to 1, not a percentage.
    KV_CACHE: ("vllm:gpu_cache_usage_perc", Version("0.9.2")),
    INTER_TOKEN: ("vllm:time_per_output_token_seconds", Version("0.10.2")),
    PREFIX_QUERIES: ("vllm:gpu_prefix_cache_queries_total", Version("0.9.2")),
    PREFIX_HITS: ("vllm:gpu_prefix_cache_hits_total", Version("0.9.2")),
}


def name_in(metric: str, tag: str) -> str:
    """The name of a metric in a version of vLLM.

    Args:
        metric: Its present name, a constant of this module.
        tag: Tag of the image, such as `v0.32.0`; without a version in it, the present name applies.
    """
    if metric not in RENAMED:
        return metric
    old, since = RENAMED[metric]
    try:
        version = Version(tag)
    except InvalidVersion:
        return metric
    return metric if version >= since else old
