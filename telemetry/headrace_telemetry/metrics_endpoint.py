"""Serves a process' metrics to Prometheus, in a thread of its own, so that a slow reader holds nothing up."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from threading import Thread
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server

from headrace_contracts.errors import SettingsError
from headrace_contracts.settings import MetricsSettings


@asynccontextmanager
async def serving_metrics(registry: CollectorRegistry, settings: MetricsSettings) -> AsyncIterator[str]:
    """Serve `http://<host>:<port>/metrics` inside the block; nothing of it is left behind.

    Args:
        registry: what is served.
        settings: where. Port 0: nowhere.

    Returns:
        `host:port` as others reach it; empty if nothing is served.

    Raises:
        SettingsError: the port cannot be opened.
    """
    if not settings.port:
        yield ""
        return
    try:
        server, thread = start_http_server(max(settings.port, 0), settings.host, registry)
    except OSError as error:
        raise SettingsError(
            f"`metrics.port`: {settings.host}:{settings.port} cannot be opened ({error.strerror}): "
            "choose a port that no other program has, -1 for any that is free, or 0 for no metrics"
        ) from error
    try:
        yield f"{_reached_by(settings.host)}:{server.server_port}"
    finally:
        await asyncio.to_thread(_stop, server, thread)


def _reached_by(host: str) -> str:
    """What others call us: on every address, by the name of the machine, which is a container's own."""
    return socket.gethostname() if host in ("0.0.0.0", "::") else host  # noqa: S104 - compared, not bound


def _stop(server: WSGIServer, thread: Thread) -> None:
    server.shutdown()
    server.server_close()
    thread.join()
