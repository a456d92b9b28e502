"""What servers say of themselves: asked on their monitoring ports, else as the system account."""

import asyncio
import urllib.error
import urllib.request

import msgspec

from headrace_storage.connection import Connection
from headrace_storage.doctor.asking import Silence, ask
from headrace_storage.doctor.observation import Monitoring

TIMEOUT_S = 3.0
HOW_TO_SEE = (
    "set NATS_MONITOR_URL (`nats.monitor_url`) to the server's monitoring port, as in http://127.0.0.1:8222; "
    "`http: 127.0.0.1:8222` in its configuration opens one"
)


class _Config(msgspec.Struct):
    max_storage: int = 0
    sync_always: bool = False


class _Jsz(msgspec.Struct):
    """The parts we read of /jsz."""

    storage: int = 0
    config: _Config | None = None


class _SystemAnswer(msgspec.Struct):
    data: _Jsz | None = None


class _Health(msgspec.Struct):
    status: str = ""
    error: str = ""


async def look_at_servers(connection: Connection, monitor_url: str | None) -> Monitoring | str:
    """What the servers say, or a sentence on why it cannot be seen."""
    if monitor_url is None:
        return await _ask_system_account(connection)
    urls = [url.rstrip("/") for url in monitor_url.split(",") if url]
    try:
        seen = [await _look(url) for url in urls]
    except (OSError, msgspec.DecodeError) as error:
        return f"the monitoring port {monitor_url} cannot be read ({error}): check NATS_MONITOR_URL"
    servers = [(said.storage, said.config) for said, _ in seen if said.config is not None]
    if len(servers) < len(urls):
        return f"a server at {monitor_url} has no JetStream: is it the right one?"
    used_bytes, fullest = max(servers, key=lambda server: server[0] / max(1, server[1].max_storage))
    return Monitoring(
        source=monitor_url,
        sync_always=all(config.sync_always for _, config in servers),
        storage_bytes=used_bytes,
        max_storage_bytes=fullest.max_storage,
        unhealthy="; ".join(health for _, health in seen if health),
    )


async def _look(url: str) -> tuple[_Jsz, str]:
    _, body = await asyncio.to_thread(_get, f"{url}/jsz?config=true")
    status, health = await asyncio.to_thread(_get, f"{url}/healthz")
    said = msgspec.json.decode(health, type=_Health)
    return msgspec.json.decode(body, type=_Jsz), "" if status == 200 else said.error or said.status


def _get(url: str) -> tuple[int, bytes]:
    """Status and body, whatever the status.

    Raises:
        OSError: no answer.
    """
    # A proxy for the web would look for the broker in the wrong place.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=TIMEOUT_S) as answer:  # the settings take only http and https
            return int(answer.status), answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


async def _ask_system_account(connection: Connection) -> Monitoring | str:
    """One server's answer; most accounts may not ask."""
    answer = await ask(connection, "$SYS.REQ.SERVER.PING.JSZ", b'{"config": true}')
    if isinstance(answer, Silence):
        return HOW_TO_SEE
    try:
        data = msgspec.convert(answer, _SystemAnswer).data
    except msgspec.ValidationError:
        return HOW_TO_SEE
    if data is None or data.config is None:
        return HOW_TO_SEE
    return Monitoring("the system account", data.config.sync_always, data.storage, data.config.max_storage)
