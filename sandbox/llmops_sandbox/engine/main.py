"""The life of a simulated engine: parse, bind, load, serve, stop."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aiohttp import web

from llmops_sandbox.engine import behaviour as behaviours
from llmops_sandbox.engine import console
from llmops_sandbox.engine.api.requests import Limits
from llmops_sandbox.engine.api.served import Served
from llmops_sandbox.engine.api.server import Server
from llmops_sandbox.engine.arguments import ServeArguments, parse_arguments
from llmops_sandbox.engine.behaviour import OOM_MARKER, Behaviour
from llmops_sandbox.engine.console import log
from llmops_sandbox.engine.generation import BLOCK_TOKENS, Engine
from llmops_sandbox.engine.loading import LoadError, Weights, check_options, check_weights, read_config, read_through
from llmops_sandbox.engine.metrics import Metrics
from llmops_sandbox.engine.middleware import install, load_middleware
from llmops_sandbox.engine.model.answers import load_model
from llmops_sandbox.engine.model.tokens import Vocabulary

# The cache holds at most this many requests of full length, as on a GPU of the right size.
_FULL_REQUESTS = 16


def main(arguments: Sequence[str]) -> int:
    """Run until SIGTERM or SIGINT.

    Returns:
        Exit code: 0 after SIGTERM or SIGINT, 1 if the engine could not start, 2 if its behaviour is wrong.

    Raises:
        SystemExit: Code 2, the command line is wrong.
    """
    # A container starts with default actions; this process may inherit from its parent that SIGTERM is ignored.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    environ = dict(os.environ)
    try:
        image = behaviours.from_environment(environ)
        own = behaviours.resolve({}, image)
    except ValueError as error:
        console.fail(str(error))
        return 2
    given = arguments[1:] if arguments[:1] == ["serve"] else arguments
    try:
        parsed = parse_arguments(given, environ, own.removed_flags, own.added_flags, own.version)
    except (ValueError, IndexError) as error:
        console.traceback(type(error).__name__, str(error), "vllm/utils/argparse_utils.py", "parse_args")
        return 1
    log(f"version {own.version}, model {parsed.model}")
    log(f"non-default args: {parsed.given}")
    try:
        listener = _bind(parsed)
        folder, config = read_config(parsed.model, environ)
        check_options(folder, config, parsed.quantization, parsed.max_model_len)
    except OSError as error:
        console.traceback("OSError", str(error), "vllm/entrypoints/launchers/launcher.py", "create_server_socket")
        return 1
    except LoadError as error:
        console.traceback(error.kind, error.message, "vllm/engine/arg_utils.py", "create_engine_config")
        return 1
    try:
        behaviour = behaviours.resolve(behaviours.from_weights(folder), image)
    except ValueError as error:
        console.fail(f"{folder}: {error}")
        return 2
    try:
        weights = load(folder, config, behaviour, environ)
    except LoadError as error:
        console.engine_failed(error.kind, error.message)
        return 1
    try:
        middleware = [load_middleware(path) for path in parsed.middleware]
    except (ImportError, AttributeError, ValueError) as error:
        register = "vllm/entrypoints/serve/middleware/register.py"
        console.traceback(type(error).__name__, str(error), register, "init_entrypoints_middleware")
        return 1
    return asyncio.run(_serve(parsed, weights, behaviour, listener, middleware))


def _bind(parsed: ServeArguments) -> socket.socket:
    """Bind the address before loading, as vLLM does; connections are refused until `listen`."""
    family = socket.AF_INET6 if parsed.host and ":" in parsed.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((parsed.host or "", parsed.port))
    return listener


def load(
    folder: Path,
    config: Mapping[str, object],
    behaviour: Behaviour,
    environ: Mapping[str, str],
) -> Weights:
    """Check and read the weights; take the time and fail as the behaviour says.

    Raises:
        LoadError: The folder cannot be served, or the behaviour is a failure.
    """
    log(f"Initializing a V1 LLM engine (v{behaviour.version}) with config: model='{folder}'", "EngineCore")
    log(f"Starting to load model {folder}...", "EngineCore")
    started = time.monotonic()
    weights = check_weights(folder, config)
    if behaviour.hang_on_load:
        while True:
            time.sleep(3600)
    if behaviour.crash_on_load is not None:
        raise LoadError("RuntimeError", behaviour.crash_on_load)
    if behaviour.oom_on_load == "gpu":
        raise LoadError(
            "torch.OutOfMemoryError",
            "CUDA out of memory. Tried to allocate 896.00 MiB. GPU 0 has a total capacity of 44.39 GiB of which "
            "512.31 MiB is free. Including non-PyTorch memory, this process has 43.88 GiB memory in use.",
        )
    if behaviour.oom_on_load == "host":
        _killed_for_memory(environ)
    read_through(weights)
    wanted = behaviour.load_seconds
    if wanted is None:
        wanted = weights.size / 1e6 / behaviour.load_mb_per_second
    time.sleep(max(0.0, wanted - (time.monotonic() - started)))
    took = time.monotonic() - started
    log(f"Loading weights took {took:.2f} seconds ({weights.size} bytes)", "EngineCore")
    return weights


def _killed_for_memory(environ: Mapping[str, str]) -> None:
    """Die like a process that the OOM killer ends; the node agent reads the marker, as a kubelet reads the cgroup."""
    if marker := environ.get(OOM_MARKER):
        Path(marker).write_text("oom")
    os.kill(os.getpid(), signal.SIGKILL)


def _assemble(parsed: ServeArguments, weights: Weights, behaviour: Behaviour) -> tuple[Engine, Server]:
    length = parsed.max_model_len or weights.context_length
    blocks = -(-length // BLOCK_TOKENS) * min(parsed.max_num_seqs, _FULL_REQUESTS)
    tokens = blocks * BLOCK_TOKENS
    metrics = Metrics(
        parsed.served_names[0],
        length,
        {
            "block_size": str(BLOCK_TOKENS),
            "effective_attention_block_size": str(BLOCK_TOKENS),
            "gpu_memory_utilization": str(parsed.gpu_memory_utilization),
            "kv_cache_memory_bytes": "None",
            "kv_cache_size_tokens": str(tokens),
            "kv_cache_max_concurrency": str(tokens / length),
            "num_gpu_blocks": str(blocks),
        },
    )
    vocabulary = Vocabulary()
    model = load_model(weights.folder, behaviour)
    engine = Engine(behaviour, model, vocabulary, metrics, parsed.max_num_seqs, tokens)
    mark = hashlib.sha256(repr(sorted(parsed.given.items())).encode()).hexdigest()[:8]
    served = Served(
        names=parsed.served_names,
        root=parsed.model,
        max_model_len=length,
        version=behaviour.version,
        fingerprint=f"vllm-{behaviour.version}-{mark}",
        created=int(time.time()),
    )
    log(f"GPU KV cache size: {tokens:,} tokens", "EngineCore")
    limits = Limits(
        length,
        max_logprobs=parsed.max_logprobs,
        prompt_logprobs=behaviour.prompt_logprobs,
        template_tokens=behaviour.chat_template_tokens,
        tool_parser=parsed.tool_call_parser is not None,
        auto_tools=parsed.auto_tool_choice,
        reasoning_parser=parsed.reasoning_parser is not None,
    )
    return engine, Server(served, engine, vocabulary, metrics, behaviour, limits, parsed.api_keys)


async def _serve(
    parsed: ServeArguments,
    weights: Weights,
    behaviour: Behaviour,
    listener: socket.socket,
    middleware: Sequence[type[Any]],
) -> int:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    engine, server = _assemble(parsed, weights, behaviour)
    if behaviour.die_after_seconds is not None:
        loop.call_later(behaviour.die_after_seconds, _die)
    application = server.application()
    install(application, middleware)
    runner = web.AppRunner(
        application,
        handler_cancellation=True,
        access_log=None,
        shutdown_timeout=1.0,
        keepalive_timeout=float(os.environ.get("VLLM_HTTP_TIMEOUT_KEEP_ALIVE", "5")),
    )
    await runner.setup()
    site = web.SockSite(runner, listener)
    await site.start()
    host, port = listener.getsockname()[:2]
    log(f"Starting vLLM server on http://{host}:{port}")
    log("Application startup complete.")
    await stop.wait()
    await _stop(engine, parsed.shutdown_timeout)
    await runner.cleanup()
    log("Application shutdown complete.")
    return 0


async def _stop(engine: Engine, seconds: int) -> None:
    mode = "drain" if seconds else "abort"
    log(f"[shutdown] API server: stopping engine client mode={mode} timeout={seconds}s")
    if seconds and await engine.drain(seconds):
        return
    if engine.unfinished:
        log(f"[shutdown] EngineCore: aborting in-flight requests count={engine.unfinished}", "EngineCore")
    engine.abort()


def _die() -> None:
    console.fail("Fatal Python error: simulated death of the engine")
    os._exit(1)
