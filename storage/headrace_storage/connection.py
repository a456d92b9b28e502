"""One connection to NATS: opened on entry, drained on exit, never given up in between.

Owns connecting, reconnecting and the translation of the client's errors into ours. What is sent over it is decided by
the other modules of this package.
"""

import asyncio
import contextlib
import re
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import msgspec
import nats
import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js import JetStreamContext

from headrace_contracts.errors import BrokerForbidden, BrokerUnavailable, CredentialsRefused, SettingsError
from headrace_contracts.settings import NatsSettings
from headrace_storage.cancelable import CancelableClient
from headrace_storage.refusals import Refusals, Refused

# Two missed pings end a connection whose server is frozen or unplugged: 10 s. The client's own default is 4 minutes.
PING_INTERVAL_S = 5
RECONNECT_WAIT_S = 0.2
# Enough for a slow handshake; a command line that waits longer for a server that is not there annoys.
CONNECT_DEADLINE_S = 3.0
REQUEST_TIMEOUT_S = 5.0
DRAIN_DEADLINE_S = 5.0
# What the servers of a cluster answer while they choose a leader: it goes by, as any outage does.
CHOOSING_A_LEADER = frozenset({10008, 10009})
# Bytes buffered while disconnected; past it the client raises instead of filling memory.
PENDING_BYTES = 8 * 1024 * 1024

# What the server says before it hangs up on somebody whom it does not know, or no longer.
_REFUSED = re.compile(r"authorization (violation|failed)|authentication (expired|revoked)", re.IGNORECASE)
_SEED = re.compile(r"\bSU[A-Z2-7]{56}\b")


class Connection:
    """A NATS connection with JetStream."""

    def __init__(
        self, settings: NatsSettings, name: str = "headrace", connect_deadline_s: float = CONNECT_DEADLINE_S
    ) -> None:
        self._connect_deadline_s = connect_deadline_s
        self._settings = settings
        self._name = name
        self._on_reconnect: list[Callable[[], None]] = []
        self.refusals = Refusals(settings.inbox_prefix, settings.js_api_prefix)
        self.nc: Client = CancelableClient(self.refusals, settings.js_api_prefix)
        self.js: JetStreamContext = self.nc.jetstream()
        self.closed = asyncio.Event()
        """Set when the client gave up for good: only a new connection helps."""
        self.last_error = ""

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            BrokerUnavailable: no server answered in `connect_deadline_s`, or it has no JetStream.
            CredentialsRefused: it does not know us.
            SettingsError: a key or a certificate cannot be read, or keys need a library that is not installed.
        """
        s = self._settings
        _check_key_files(s)
        options: dict[str, Any] = {  # Any: the client's options have a type each
            "servers": s.url.split(","),
            "name": self._name,
            "inbox_prefix": s.inbox_prefix,
            "ping_interval": PING_INTERVAL_S,
            "max_outstanding_pings": 2,
            "max_reconnect_attempts": -1,
            "reconnect_time_wait": RECONNECT_WAIT_S,
            "connect_timeout": 2,
            "pending_size": PENDING_BYTES,
            "error_cb": self._error,
            "reconnected_cb": self._reconnected,
            "closed_cb": self._closed,
            "user": s.user,
            "password": s.password,
            "token": s.token,
            "user_credentials": s.creds,
            "nkeys_seed": s.nkey,
            "tls": _tls_context(s),
        }
        try:
            async with asyncio.timeout(self._connect_deadline_s):
                await self.nc.connect(**{key: value for key, value in options.items() if value is not None})
            # A tenant's role may not ask for the account's state; only a leaf node does not say what is behind it.
            if not self.nc._server_info.get("jetstream"):
                await self.js.account_info()
        except ModuleNotFoundError as error:
            raise SettingsError(f"`creds` and `nkey` need {error.name}: pip install 'nats-py[nkeys]'") from error
        except (OSError, TimeoutError, nats.errors.Error) as error:
            reason = self.last_error or str(error) or type(error).__name__
            await self._abandon()
            raise (CredentialsRefused if _REFUSED.search(reason) else BrokerUnavailable)(s.url, reason) from error
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self.nc.is_closed:
            return
        try:
            async with asyncio.timeout(DRAIN_DEADLINE_S):
                await self.nc.drain()
        except (OSError, TimeoutError, nats.errors.Error):
            await self._abandon()

    @property
    def url(self) -> str:
        """Where we are (or were) connected to."""
        return self._settings.url

    @property
    def is_connected(self) -> bool:
        """Whether there is a server at the other end, as far as is known now."""
        return bool(self.nc.is_connected)

    @property
    def max_payload_bytes(self) -> int:
        """Largest message the server takes, headers included."""
        return int(self.nc.max_payload)

    @property
    def server_version(self) -> str:
        """Version of the server we are connected to, as in `2.15.1`."""
        version = self.nc.connected_server_version
        return f"{version.major}.{version.minor}.{version.patch}"

    def on_reconnect(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` after every reconnect; it must not raise. Returns a function that ends this."""
        self._on_reconnect.append(callback)
        return lambda: self._on_reconnect.remove(callback)

    async def renew(self) -> None:
        """Give up the present connection and make another; what waits for an answer gets none.

        For when it looks well and nothing comes: half-open, or served by a process that is stuck.
        """
        await self.nc.force_reconnect()

    async def request(self, subject: str, payload: bytes = b"", timeout_s: float = REQUEST_TIMEOUT_S) -> bytes:
        """One request and its answer's payload.

        Raises:
            BrokerUnavailable: no answer in time. Whether the server acted on the request is not known.
        """
        with self.errors():
            message = await self.nc.request(subject, payload, timeout=timeout_s)
        return bytes(message.data)

    async def api(self, operation: str, payload: bytes = b"") -> dict[str, Any]:  # Any: the server's JSON
        """A request of the JetStream API, as in `STREAM.INFO.JOBS`.

        Raises:
            BrokerUnavailable: no answer in time.
            nats.js.errors.APIError: the server refused.
        """
        answer = await self.request(f"$JS.API.{operation}", payload)
        decoded: dict[str, Any] = msgspec.json.decode(answer)
        if "error" in decoded:
            raise nats.js.errors.APIError.from_error(decoded["error"])
        return decoded

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Turn what the client raises when there is no server, or no right to ask it, into `BrokerUnavailable`."""
        try:
            yield
        except nats.js.errors.NotFoundError:
            raise  # an answer, though a direct get gives it without a code
        except nats.js.errors.APIError as error:
            # Without a code: what the client makes of "no responders".
            if error.err_code is not None and error.err_code not in CHOOSING_A_LEADER:
                raise
            raise BrokerUnavailable(self.url, error.description or "JetStream does not answer") from error
        except Refused as error:
            raise BrokerForbidden(self.url, error.action, error.subject) from error
        except (nats.errors.Error, TimeoutError, ConnectionError) as error:
            raise BrokerUnavailable(self.url, str(error) or type(error).__name__) from error

    async def _abandon(self) -> None:
        with contextlib.suppress(nats.errors.Error, OSError, asyncio.CancelledError):
            await self.nc.close()

    async def _error(self, error: Exception) -> None:
        # While it tries again the server may just hang up: what it said first is the reason.
        if self.nc.is_connected or not _REFUSED.search(self.last_error):
            self.last_error = str(error) or type(error).__name__
        self.refusals.heard(str(error))

    async def _reconnected(self) -> None:
        self.refusals.forget()
        for callback in self._on_reconnect:
            callback()

    async def _closed(self) -> None:
        self.closed.set()


def _tls_context(settings: NatsSettings) -> ssl.SSLContext | None:
    if not (settings.ca or settings.cert):
        return None
    try:
        context = ssl.create_default_context(cafile=settings.ca)
        if settings.cert:
            context.load_cert_chain(settings.cert, settings.key)
    except OSError as error:
        files = ", ".join(f"{name} {getattr(settings, name)!r}" for name in ("ca", "cert", "key"))
        raise SettingsError(f"certificates for NATS ({files}): {error.strerror}") from error
    return context


def _check_key_files(settings: NatsSettings) -> None:
    """The client reads them in the middle of connecting, and stumbles over a file that is none."""
    for name, path in (("creds", settings.creds), ("nkey", settings.nkey)):
        if path is None:
            continue
        try:
            text = Path(path).read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"`{name}` {path!r}: {getattr(error, 'strerror', None) or 'is no text'}") from error
        if _SEED.search(text) is None:
            raise SettingsError(f"`{name}` {path!r} holds no seed of a user: 58 capitals and digits that begin with SU")
