"""Serves metrics to Prometheus on loopback, in a thread of its own, so that a slow reader holds nothing up."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from threading import Thread
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server

from headrace_contracts.errors import SettingsError

LOOPBACK = "127.0.0.1"


@asynccontextmanager
async def serving_metrics(registry: CollectorRegistry, port: int) -> AsyncIterator[int]:
    """Serve `http://127.0.0.1:<port>/metrics` inside the block; nothing of it is left behind.

    Args:
        registry: what is served.
        port: of `scaler.metrics_port`, whose 0 means that nobody should call this; here 0 takes any free port.

    Returns:
        The port.

    Raises:
        SettingsError: the port cannot be opened.
    """
    try:
        server, thread = start_http_server(port, LOOPBACK, registry)
    except OSError as error:
        raise SettingsError(
            f"`scaler.metrics_port`: {LOOPBACK}:{port} cannot be opened ({error.strerror}): "
            "choose a port that no other program has, or 0 for no metrics"
        ) from error
    try:
        yield server.server_port
    finally:
        await asyncio.to_thread(_stop, server, thread)


def _stop(server: WSGIServer, thread: Thread) -> None:
    server.shutdown()
    server.server_close()
    thread.join()
