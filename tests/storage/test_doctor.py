"""Each test breaks one thing on a real broker, and sees the row for it and no other."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio
from blob_servers import start_juicefs
from broker_in_disguise import disguised
from nats.js import api

from headrace_contracts.clock import Clock, SystemClock
from headrace_contracts.heartbeat import EngineState, EngineStatus, WorkerStatus
from headrace_contracts.model import EngineKind, ModelSpec
from headrace_contracts.settings import NatsSettings, S3Settings, Settings
from headrace_contracts.tasks.registry import Task
from headrace_local.nats_server import NatsServer
from headrace_storage.connection import Connection
from headrace_storage.doctor import Level, examine
from headrace_storage.registry import add_model
from headrace_storage.topology import StorageLimits, ensure_topology
from headrace_storage.workers import put_status

SMALL = StorageLimits(jobs_per_subject=10, dead_bytes=100_000)


@dataclass
class Patient:
    """A broker with one model `m` that a worker serves: nothing is wrong with it."""

    server: NatsServer
    connection: Connection
    limits: StorageLimits

    @property
    def settings(self) -> Settings:
        return Settings(nats=NatsSettings(url=self.server.url, monitor_url=self.server.monitor_url))

    async def complaints(
        self, settings: Settings | None = None, clock: Clock | None = None, connection: Connection | None = None
    ) -> dict[str, tuple[Level, str]]:
        """Check to level and finding of every row that is not ok."""
        found = await examine(
            connection or self.connection, settings or self.settings, clock or SystemClock(), self.limits
        )
        assert all(row.advice for row in found if row.level is not Level.OK), "every complaint says what to do"
        return {row.check: (row.level, row.found) for row in found if row.level is not Level.OK}

    async def change_stream(self, name: str, **changes: object) -> None:
        config = (await self.connection.js.stream_info(name)).config
        await self.connection.js.update_stream(config.evolve(**changes))

    async def replace_consumer(self, **changes: object) -> None:
        """The consumer of `m`'s normal lane, made anew by a careless hand."""
        await self.connection.js.delete_consumer("JOBS", "m-normal")
        given = {"durable_name": "m-normal", "filter_subject": "jobs.*.m.normal", "ack_wait": 30, "max_deliver": -1}
        await self.connection.js.add_consumer(
            "JOBS", api.ConsumerConfig(**{"max_ack_pending": 10_000, **given, **changes})
        )


@contextlib.asynccontextmanager
async def patient_on(server: NatsServer, limits: StorageLimits = SMALL) -> AsyncIterator[Patient]:
    async with server, Connection(NatsSettings(url=server.url)) as connection:
        await ensure_topology(connection, limits)
        await add_model(connection, ModelSpec("m", Task.SYNTHETIC, EngineKind.SYNTHETIC))
        await put_status(connection, heartbeat(EngineState.READY))
        yield Patient(server, connection, limits)


def heartbeat(state: EngineState) -> WorkerStatus:
    now = datetime.now(UTC)
    return WorkerStatus("w", "host", 1, now, now, False, (EngineStatus("m", state, 1, (), 0),))


@pytest_asyncio.fixture
async def patient(tmp_path: Path) -> AsyncIterator[Patient]:
    async with patient_on(NatsServer(tmp_path)) as patient:
        yield patient


class OtherServer(NatsServer):
    """A server with more lines in its configuration, or other ones."""

    def __init__(self, folder: Path, more: str = "", change: tuple[str, str] = ("", ""), **options: object) -> None:
        super().__init__(folder, **options)
        self._more = more
        self._change = change

    def _configuration(self) -> str:
        return super()._configuration().replace(*self._change) + self._more


async def test_a_broker_with_which_nothing_is_wrong(patient: Patient) -> None:
    assert await patient.complaints() == {}
    again = await examine(patient.connection, patient.settings, SystemClock(), SMALL)
    assert [row.level for row in again] == [Level.OK] * len(again)
    assert {"sync_interval", "stream JOBS", "stream KV_ATTEMPTS", "stream OBJ_headrace", "object store"} <= {
        row.check for row in again
    }


async def test_writes_that_are_not_synced(tmp_path: Path) -> None:
    async with patient_on(NatsServer(tmp_path, sync_always=False)) as patient:
        complaints = await patient.complaints()
        assert list(complaints) == ["sync_interval"]
        assert complaints["sync_interval"][0] is Level.FAIL


async def test_what_only_a_monitoring_port_shows_is_unknown_without_one(patient: Patient) -> None:
    blind = Settings(nats=NatsSettings(url=patient.server.url))
    complaints = await patient.complaints(blind)
    assert {check: level for check, (level, _) in complaints.items()} == {
        "sync_interval": Level.UNKNOWN,
        "server health": Level.UNKNOWN,
        "storage limit": Level.UNKNOWN,
    }
    wrong = Settings(nats=NatsSettings(url=patient.server.url, monitor_url="http://127.0.0.1:1"))
    assert (await patient.complaints(wrong)).keys() == complaints.keys()


async def test_a_system_account_shows_it_too(tmp_path: Path) -> None:
    """Credentials that may ask the server itself need no monitoring port."""
    more = """
system_account: SYS
accounts {
    SYS { exports: [ { service: "$SYS.REQ.SERVER.PING.JSZ" } ] }
    WORK {
        jetstream: enabled
        users: [ { user: u, password: p } ]
        imports: [ { service: { account: SYS, subject: "$SYS.REQ.SERVER.PING.JSZ" } } ]
    }
}
no_auth_user: u
"""
    async with patient_on(OtherServer(tmp_path, more, sync_always=False)) as patient:
        complaints = await patient.complaints(Settings(nats=NatsSettings(url=patient.server.url)))
        assert complaints == {"sync_interval": complaints["sync_interval"]}
        assert complaints["sync_interval"][0] is Level.FAIL


@pytest.mark.parametrize(
    ("stream", "changes", "said"),
    [
        ("JOBS", {"discard": "old", "discard_new_per_subject": False}, "discard is 'old', not 'new'"),
        ("JOBS", {"max_bytes": 5_000_000_000}, "max_bytes is 5000000000, not 2147483648"),
        ("JOBS", {"duplicate_window": 1.0}, "duplicate_window is 1.0, not 120.0"),
        ("JOBS", {"max_age": 60.0, "duplicate_window": 60.0}, "max_age is 60.0 and must not be set"),
        ("JOBS", {"allow_rollup_hdrs": True}, "allow_rollup_hdrs is True and must not be set"),
        ("RESULTS", {"max_msgs_per_subject": 2}, "max_msgs_per_subject is 2, not 1"),
        ("EVENTS", {"max_age": 60.0, "duplicate_window": 60.0}, "max_age is 60.0, not 3600.0"),
        ("DEAD", {"discard": "old"}, "discard is 'old', not 'new'"),
        ("KV_MODELS", {"max_msgs_per_subject": 1}, "max_msgs_per_subject is 1, not 10"),
        ("KV_ATTEMPTS", {"max_age": 600.0}, "max_age is 600.0, not 604800.0"),
    ],
)
async def test_a_stream_with_another_setting(patient: Patient, stream: str, changes: dict, said: str) -> None:
    await patient.change_stream(stream, **changes)
    complaints = await patient.complaints()
    assert list(complaints) == [f"stream {stream}"]
    level, found = complaints[f"stream {stream}"]
    assert level is Level.FAIL
    assert said in found


async def test_all_differences_are_told_and_not_the_first(patient: Patient) -> None:
    await patient.change_stream("JOBS", max_bytes=1 << 30, duplicate_window=1.0)
    await patient.change_stream("DEAD", max_bytes=1 << 20)
    complaints = await patient.complaints()
    assert set(complaints) == {"stream JOBS", "stream DEAD"}
    assert "max_bytes is" in complaints["stream JOBS"][1]
    assert "duplicate_window is" in complaints["stream JOBS"][1]


async def test_a_stream_of_another_kind_and_one_that_is_missing(patient: Patient) -> None:
    await patient.connection.js.delete_stream("RESULTS")
    await patient.connection.js.delete_stream("DEAD")
    await patient.connection.js.add_stream(
        api.StreamConfig(name="DEAD", subjects=["dead.*.*.*"], retention="interest", max_bytes=SMALL.dead_bytes)
    )
    complaints = await patient.complaints()
    assert set(complaints) == {"stream RESULTS", "stream DEAD"}
    assert "retention is 'interest', not 'limits'" in complaints["stream DEAD"][1]
    assert complaints["stream RESULTS"] == (Level.FAIL, "there is none")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"max_deliver": 3}, "max_deliver is 3, not -1"),
        ({"max_deliver": 3, "backoff": [30, 60]}, "backoff is [30.0, 60.0] and must not be set"),
        ({"filter_subject": "jobs.acme.m.normal"}, "filter_subject is 'jobs.acme.m.normal', not 'jobs.*.m.normal'"),
        ({"inactive_threshold": 60.0}, "inactive_threshold is 60.0 and must not be set"),
        ({"replay_policy": "original"}, "replay_policy is 'original', not 'instant'"),
        ({"max_ack_pending": 1}, "max_ack_pending is 1, not 10000"),
    ],
)
async def test_a_consumer_with_another_setting(patient: Patient, changes: dict, said: str) -> None:
    await patient.replace_consumer(**changes)
    complaints = await patient.complaints()
    assert list(complaints) == ["consumer m-normal"]
    assert complaints["consumer m-normal"][0] is Level.FAIL
    assert said in complaints["consumer m-normal"][1]


async def test_another_lease_is_a_warning(patient: Patient) -> None:
    await patient.replace_consumer(ack_wait=5)
    assert await patient.complaints() == {"lease of m": (Level.WARNING, "ack_wait is 5 s and 30 s, not 30 s")}


async def test_a_model_without_a_consumer(patient: Patient) -> None:
    await patient.connection.js.delete_consumer("JOBS", "m-low")
    complaints = await patient.complaints()
    assert list(complaints) == ["consumer m-low"]
    assert complaints["consumer m-low"][0] is Level.FAIL


async def test_a_queue_that_is_nearly_full(patient: Patient) -> None:
    for _ in range(9):
        await patient.connection.js.publish("jobs.acme.m.normal", b"{}")
    assert await patient.complaints() == {
        "room in jobs.acme.m.normal": (Level.WARNING, "9 of at most 10 jobs wait or run")
    }
    await patient.connection.js.publish("jobs.acme.m.normal", b"{}")
    assert (await patient.complaints())["room in jobs.acme.m.normal"][0] is Level.FAIL


async def test_dead_letters_that_nearly_fill_their_stream(patient: Patient) -> None:
    for number in range(9):
        await patient.connection.js.publish(f"dead.t.m.{number}", b"x" * 10_000)
    complaints = await patient.complaints()
    assert list(complaints) == ["room in DEAD"]
    assert complaints["room in DEAD"][0] is Level.WARNING


async def test_a_storage_limit_that_nobody_set(tmp_path: Path) -> None:
    limit = "max_file_store: 17179869184"
    async with patient_on(OtherServer(tmp_path, change=(limit, ""))) as patient:
        complaints = await patient.complaints()
        assert list(complaints) == ["storage limit"]
        assert complaints["storage limit"][0] is Level.WARNING


async def test_a_storage_limit_that_is_smaller_than_the_streams_and_one_that_is_reached(tmp_path: Path) -> None:
    limits = StorageLimits(jobs_bytes=1 << 20, results_bytes=1 << 20, dead_bytes=1 << 20)
    async with patient_on(NatsServer(tmp_path, max_store_bytes=460 << 20), limits) as patient:
        complaints = await patient.complaints()
        assert list(complaints) == []
        await patient.connection.js.add_stream(name="OTHERS", subjects=["others"])
    async with patient_on(NatsServer(tmp_path, max_store_bytes=10 << 20), limits) as patient:
        complaints = await patient.complaints()
        assert list(complaints) == ["storage limit"]
        assert "may grow to" in complaints["storage limit"][1]
        for _ in range(9):
            await patient.connection.js.publish("others", b"x" * (1 << 20))
        complaints = await patient.complaints()
        assert list(complaints) == ["storage limit"]
        assert "are in use" in complaints["storage limit"][1]


@pytest.mark.parametrize(("size", "level"), [("1MB", Level.WARNING), ("64KB", Level.FAIL)])
async def test_messages_that_are_too_small(tmp_path: Path, size: str, level: Level) -> None:
    async with patient_on(OtherServer(tmp_path, change=("max_payload: 8MB", f"max_payload: {size}"))) as patient:
        complaints = await patient.complaints()
        assert list(complaints) == ["max_payload"]
        assert complaints["max_payload"][0] is level


@pytest.mark.parametrize(("apart_s", "level"), [(5, Level.WARNING), (-5, Level.WARNING), (100, Level.FAIL)])
async def test_clocks_that_differ(patient: Patient, apart_s: int, level: Level) -> None:
    class Elsewhere(SystemClock):
        def now(self) -> datetime:
            return super().now() + timedelta(seconds=apart_s)

    complaints = await patient.complaints(clock=Elsewhere())
    assert list(complaints) == ["clock"]
    assert complaints["clock"][0] is level
    assert ("behind" if apart_s > 0 else "ahead of") in complaints["clock"][1]


@pytest.mark.parametrize(
    ("version", "said"),
    [(b"2.14.2", "is older than 2.14.3"), (b"2.12.3", "nats-server#7817"), (b"2.10.2", "CVE-2025-30215")],
)
async def test_an_old_server(patient: Patient, version: bytes, said: str) -> None:
    real = patient.connection.server_version.encode()
    async with (
        disguised(patient.server.port, real, version) as url,
        Connection(NatsSettings(url=url)) as connection,
    ):
        complaints = await patient.complaints(connection=connection)
    assert list(complaints) == ["nats-server version"]
    level, found = complaints["nats-server version"]
    assert level is Level.FAIL
    assert said in found


async def test_workers_that_are_missing_or_cannot_start_their_engine(patient: Patient) -> None:
    await put_status(patient.connection, heartbeat(EngineState.UNHEALTHY))
    assert (await patient.complaints())["workers of m"][0] is Level.FAIL
    status = msgspec.structs.replace(heartbeat(EngineState.READY), engines=())
    await put_status(patient.connection, status)
    await patient.connection.js.publish("jobs.acme.m.normal", b"{}")
    assert await patient.complaints() == {"workers of m": (Level.WARNING, "none is alive, and 1 jobs wait")}


async def test_an_object_store_that_is_not_there(patient: Patient) -> None:
    s3 = S3Settings("http://127.0.0.1:1", "key", "secret")
    complaints = await patient.complaints(Settings(nats=patient.settings.nats, s3=s3))
    assert list(complaints) == ["object store"]
    assert complaints["object store"][0] is Level.FAIL


async def test_an_object_store_elsewhere_that_works_and_one_that_refuses(patient: Patient, tmp_path: Path) -> None:
    (tmp_path / "s3").mkdir()
    async with start_juicefs(tmp_path / "s3") as rig:
        settings = Settings(nats=patient.settings.nats, s3=rig.settings(rig.url))
        assert await patient.complaints(settings) == {}
        left = await asyncio.to_thread(lambda: list(rig.client().list_objects("headrace", "default/", recursive=True)))
        assert left == []
        stranger = Settings(nats=patient.settings.nats, s3=rig.settings(rig.url, secret="wrong"))
        complaints = await patient.complaints(stranger)
    assert list(complaints) == ["object store"]
    assert complaints["object store"][0] is Level.FAIL
    assert "wrong" not in complaints["object store"][1]


async def test_credentials_that_may_only_submit(tmp_path: Path) -> None:
    """What a role may not do is a row, not a crash."""
    more = """
authorization {
    users: [
        { user: admin, password: a }
        { user: producer, password: p, permissions: {
            publish: { allow: ["jobs.default.>", "$JS.API.INFO", "$JS.API.DIRECT.GET.RESULTS.results.default.>"] }
            subscribe: { allow: ["_INBOX.>"] } } }
    ]
}
no_auth_user: admin
"""
    async with patient_on(OtherServer(tmp_path, more)) as patient:
        nats = msgspec.structs.replace(patient.settings.nats, user="producer", password="p")
        async with Connection(nats) as connection:
            complaints = await patient.complaints(Settings(nats=nats), connection=connection)
        rights = [
            row.found
            for row in await examine(patient.connection, patient.settings, SystemClock(), SMALL)
            if row.check == "rights"
        ]
    assert rights == ["all that was tried is allowed"]
    assert complaints["rights"][0] is Level.WARNING
    assert complaints["stream JOBS"][0] is Level.UNKNOWN
    assert complaints["models"][0] is Level.UNKNOWN
    assert complaints["clock"][0] is Level.UNKNOWN
    assert "nats-server version" not in complaints
    assert "sync_interval" not in complaints


async def test_looking_leaves_nothing_behind(patient: Patient) -> None:
    await patient.complaints()
    before = await patient.connection.js.account_info()
    await patient.complaints()
    after = await patient.connection.js.account_info()
    assert (after.streams, after.consumers) == (before.streams, before.consumers)
    for name in ("JOBS", "RESULTS", "DEAD", "EVENTS"):
        assert (await patient.connection.js.stream_info(name)).state.messages == 0
