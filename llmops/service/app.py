"""The HTTP server. It reads only, and shows no secrets."""

from __future__ import annotations

import asyncio
import logging
import re
import signal
from collections.abc import Callable

from aiohttp import web
from aiohttp.typedefs import Handler
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from llmops.clients.kubernetes.client import Cluster
from llmops.config.catalog.spec import NAME
from llmops.config.settings import Settings
from llmops.errors import BadInput, LlmopsError, Unavailable
from llmops.releases.records import Records
from llmops.service.figures import Cache, look
from llmops.service.metrics import FiguresCollector

CLUSTER_SECONDS = 5.0
"""Prometheus scrapes time out after ten seconds by default."""
RELEASE = re.compile(r"[0-9a-f]{12}")
PAGE_HEADERS = {
    # A report is self-contained and runs no script: it shows answers of models.
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:",
    "X-Content-Type-Options": "nosniff",
}

_log = logging.getLogger(__name__)


def make_app(cluster: Cluster, settings: Settings) -> web.Application:
    """The application with its three pages.

    Args:
        cluster: Connection for all reads.
        settings: The alert targets.
    """
    brief = cluster.patient(CLUSTER_SECONDS)
    cache = Cache(lambda: look(brief, settings))
    records = Records(brief)

    async def metrics(request: web.Request) -> web.Response:
        figures = await asyncio.to_thread(cache.figures)
        registry = CollectorRegistry(auto_describe=False)
        registry.register(FiguresCollector(figures))
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(registry), headers={"Content-Type": content_type})

    async def report(request: web.Request) -> web.Response:
        model, release = request.match_info["model"], request.match_info["release"]
        if not re.fullmatch(NAME, model) or not RELEASE.fullmatch(release):
            raise web.HTTPNotFound(text="/reports/MODEL/RELEASE: the name of a model, and the id of a release\n")
        text = await asyncio.to_thread(_report, records, model, release)
        return web.Response(text=text, content_type="text/html", headers=PAGE_HEADERS)

    async def healthz(_: web.Request) -> web.Response:
        # It checks this process alone: a restart does not bring back a missing API server.
        return web.Response(text="ok\n")

    app = web.Application(middlewares=[_errors])
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/reports/{model}/{release}", report)
    app.router.add_get("/healthz", healthz)
    return app


def _report(records: Records, model: str, release: str) -> str:
    # Imported here: its import takes seconds, which would delay the first scrape.
    from llmops.rollout.ops.reporting import report_html

    return report_html(records, model, release)


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except BadInput as error:
        return web.Response(status=404, text=f"{error}\n")
    except Unavailable as error:
        _log.warning("%s: %s", request.path, error)
        return web.Response(status=503, text=f"{error}\n", headers={"Retry-After": "10"})
    except LlmopsError as error:
        _log.error("%s: %s", request.path, error)
        return web.Response(status=500, text=f"{error}\n")


async def serve(cluster: Cluster, settings: Settings, host: str, port: int, started: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        cluster: Connection for all reads.
        settings: The alert targets.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        started: Called with the URL when the server listens.

    Raises:
        BadInput: The server cannot listen on the address.
    """
    runner = web.AppRunner(make_app(cluster, settings), access_log=None)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise BadInput(
                f"llmops serve cannot listen on {host}:{port}: {error.strerror or error}",
                code="CannotListen",
                about=f"{host}:{port}",
                remedy="Choose another --host or --port.",
            ) from error
        shown = f"[{host}]" if ":" in host else host
        started(f"http://{shown}:{runner.addresses[0][1]}")
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await stop.wait()
    finally:
        await runner.cleanup()
