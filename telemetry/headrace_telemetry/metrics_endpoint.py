"""Serves a process' metrics to Prometheus, in a thread of its own, so that a slow reader holds nothing up."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from socketserver import TCPServer
from threading import Thread
from typing import TYPE_CHECKING, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

from headrace_contracts.errors import SettingsError
from headrace_contracts.settings import MetricsSettings

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

# A reader that says nothing for so long holds a thread for nothing.
SILENT_READER_S: Final = 10.0

Page = Callable[[], bytes | None]
"""JSON to be served, made in a thread of the server; None while there is none."""

NO_PAGES: Final[Mapping[str, Page]] = {}


@asynccontextmanager
async def serving_metrics(
    registry: CollectorRegistry, settings: MetricsSettings, pages: Mapping[str, Page] = NO_PAGES
) -> AsyncIterator[str]:
    """Serve `http://<host>:<port>/metrics` inside the block; nothing of it is left behind.

    Args:
        registry: what is served.
        settings: where. Port 0: nowhere.
        pages: what is served beside it, by path; one that is None is answered with 503.

    Returns:
        `host:port` as others reach it; empty if nothing is served.

    Raises:
        SettingsError: the port cannot be opened.
    """
    if not settings.port:
        yield ""
        return
    server_class = _Server6 if ":" in settings.host else _Server
    try:
        server = make_server(settings.host, max(settings.port, 0), _site(registry, pages), server_class, _Handler)
    except OSError as error:
        raise SettingsError(
            f"`metrics.port`: {settings.host}:{settings.port} cannot be opened ({error.strerror}): "
            "choose a port that no other program has, -1 for any that is free, or 0 for no metrics"
        ) from error
    thread = Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    try:
        yield f"{_reached_by(settings.host)}:{server.server_port}"
    finally:
        await asyncio.to_thread(_stop, server, thread)


class _Server(ThreadingWSGIServer):
    def server_bind(self) -> None:
        """As the parent does, but for a look-up of our own name, which takes seconds where no name server answers."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    timeout = SILENT_READER_S

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the parent's name for it
        """Nothing: what is read is no event."""


def _site(registry: CollectorRegistry, pages: Mapping[str, Page]) -> "WSGIApplication":
    metrics: WSGIApplication = make_wsgi_app(registry)

    def answer(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        page = pages.get(path)
        if path != "/metrics" and page is None:
            return _say("404 Not Found", start_response, b"not found\n")
        if environ["REQUEST_METHOD"] != "GET":
            return _say("405 Method Not Allowed", start_response, b"only GET\n", ("Allow", "GET"))
        if page is None:
            return metrics(environ, start_response)
        body = page()
        if body is None:
            return _say("503 Service Unavailable", start_response, b"not known yet\n")
        return _say("200 OK", start_response, body, content_type="application/json")

    return answer


def _say(
    status: str,
    start_response: "StartResponse",
    body: bytes,
    *headers: tuple[str, str],
    content_type: str = "text/plain; charset=utf-8",
) -> list[bytes]:
    start_response(status, [("Content-Type", content_type), ("Content-Length", str(len(body))), *headers])
    return [body]


def _reached_by(host: str) -> str:
    """What others call us: on every address, by the name of the machine, which is a container's own."""
    if host in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound
        return socket.gethostname()
    return f"[{host}]" if ":" in host else host


def _stop(server: WSGIServer, thread: Thread) -> None:
    server.shutdown()
    server.server_close()
    thread.join()
