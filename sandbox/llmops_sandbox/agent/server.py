"""The agent's HTTPS endpoint, from which the API server reads the logs of containers."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from pathlib import Path

from aiohttp import web

from llmops_sandbox.agent.pods.logs import LogOptions, parse_time, read_log
from llmops_sandbox.agent.pods.pod import Pod

Finder = Callable[[str, str], Pod | None]


def tls(pki: Path) -> ssl.SSLContext:
    """The kubelet's certificate, for clients with a certificate of the sandbox's authority."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(pki / "ca.crt"))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(pki / "kubelet.crt", pki / "kubelet.key")
    return context


async def serve(find: Finder, pki: Path, host: str) -> tuple[web.AppRunner, int]:
    """Start the endpoint on a free port; returns its runner, to be cleaned up, and the port."""
    application = web.Application()

    async def logs(request: web.Request) -> web.StreamResponse:
        return await _logs(request, find)

    async def health(request: web.Request) -> web.Response:
        return web.Response(text="ok")

    application.router.add_get("/containerLogs/{namespace}/{pod}/{container}", logs)
    application.router.add_get("/healthz", health)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, host, 0, ssl_context=tls(pki))
    await site.start()
    return runner, runner.addresses[0][1]


async def _logs(request: web.Request, find: Finder) -> web.StreamResponse:
    names = request.match_info
    pod = find(names["namespace"], names["pod"])
    container = (
        next((candidate for candidate in pod.containers if candidate.name == names["container"]), None) if pod else None
    )
    if pod is None or container is None:
        where = f"{names['container']!r} in pod {names['pod']!r}"
        return web.Response(status=404, text=f"container {where} is not known to the node")
    options = _options(request)
    attempt = container.state.attempt - (1 if request.query.get("previous") == "true" else 0)
    if attempt < 1:
        if request.query.get("previous") == "true":
            text = f'previous terminated container "{container.name}" in pod "{names["pod"]}" not found'
        else:
            reason = container.state.current.get("waiting", {}).get("reason", "ContainerCreating")
            text = f'container "{container.name}" in pod "{names["pod"]}" is waiting to start: {reason}'
        return web.Response(status=400, text=text)
    response = web.StreamResponse(headers={"Content-Type": "text/plain; charset=utf-8"})
    response.enable_chunked_encoding()
    await response.prepare(request)

    def ended() -> bool:
        return container.state.attempt != attempt or "running" not in container.state.current

    async for piece in read_log(container.attempt_folder(attempt) / "log", options, ended):
        await response.write(piece)
    await response.write_eof()
    return response


def _options(request: web.Request) -> LogOptions:
    query = request.query
    since = None
    if "sinceSeconds" in query:
        since = time.time() - float(query["sinceSeconds"])
    elif "sinceTime" in query:
        since = parse_time(query["sinceTime"])
    return LogOptions(
        follow=query.get("follow") == "true",
        tail=int(query["tailLines"]) if "tailLines" in query else None,
        since=since,
        timestamps=query.get("timestamps") == "true",
        limit=int(query["limitBytes"]) if "limitBytes" in query else None,
    )
