"""The one table of who may publish and subscribe where. Pure.

Each line is something that a role's code does; nothing is allowed for convenience. Tenants have accounts of their own
on the broker, and reach ours through exactly these subjects: there an answer of the server goes to the asker's account,
whatever reply subject the request names. Within one account it would go wherever the asker says, so that one direct get
could put a tenant's own message on another tenant's subject.
"""

from enum import StrEnum

import msgspec

from headrace_contracts.names import (
    ARRIVALS,
    BLOB_BUCKET,
    BLOB_STREAM,
    EVERY_STREAM,
    INGRESS_CONSUMER,
    Bucket,
    Stream,
    check_token,
)

SERVER_FACTS = "$SYS.REQ.SERVER.PING.JSZ"
"""The one question to the server itself that our account may ask: the settings of its JetStream."""

API = "$JS.API"
TENANT_API = "JS.API"
"""What a tenant's account calls the API of our JetStream: there `$JS.API` means an own one, which it has not."""


class Role(StrEnum):
    """What a process is to the broker."""

    PRODUCER = "producer"
    CONSUMER = "consumer"
    WORKER = "worker"
    SCALER = "scaler"
    ADMIN = "admin"


OPERATORS = (Role.WORKER, Role.SCALER, Role.ADMIN)
TENANTS = (Role.PRODUCER, Role.CONSUMER)


class Tenant(msgspec.Struct, frozen=True):
    """A tenant and how far it is trusted."""

    name: str
    trusted: bool = True
    """Untrusted: submits into an ingress stream, follows events live only, reaches no object store on the broker."""

    def __post_init__(self) -> None:
        check_token("tenant", self.name)


class Permissions(msgspec.Struct, frozen=True):
    """Subjects and wildcards; what is in none of them is denied."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    many_answers: tuple[str, ...] = ()
    """Those of `publish` that the server answers with several messages."""
    answers: bool = False
    """It may answer what it was asked, once, on the subject that the question names."""


def in_tenants_account(subject: str) -> str:
    """What a tenant's account calls a subject of ours."""
    return f"{TENANT_API}.{subject.removeprefix(f'{API}.')}" if subject.startswith(f"{API}.") else subject


def inbox_prefix(role: Role, tenant: str | None = None) -> str:
    """Where answers to this role come to; no other role may listen there."""
    return f"_INBOX_{role}" if tenant is None else f"_INBOX_{role}_{check_token('tenant', tenant)}"


def permissions_of(role: Role, tenant: Tenant | None = None, *, jetstream_blobs: bool = True) -> Permissions:
    """What a role may do.

    Args:
        role: the role; producers and consumers belong to a tenant.
        tenant: whose.
        jetstream_blobs: files are kept in JetStream's object store, so roles that use files need its subjects.
    """
    match role:
        case Role.ADMIN:
            return Permissions((">",), (">",))
        case Role.WORKER:
            return _worker(jetstream_blobs)
        case Role.SCALER:
            return _scaler(jetstream_blobs)
        case Role.PRODUCER | Role.CONSUMER:
            assert tenant is not None, f"a {role} belongs to a tenant"
            return _of_tenant(role, tenant, jetstream_blobs)


def _of_tenant(role: Role, tenant: Tenant, jetstream_blobs: bool) -> Permissions:
    name = tenant.name
    publish = [
        f"$JS.API.DIRECT.GET.{Stream.RESULTS}.results.{name}.>",
        f"$JS.API.DIRECT.GET.{Stream.EVENTS}.events.{name}.>",
        f"$JS.API.DIRECT.GET.{Stream.LOGS}.logs.{name}.>",
        *_read_bucket(Bucket.MODELS),
    ]
    many: list[str] = []
    if tenant.trusted:
        # A consumer may deliver to any subject of the account it is made in: not for those we do not trust.
        publish.append(f"$JS.API.CONSUMER.CREATE.{Stream.EVENTS}.*.events.{name}.>")
        publish.append(f"$JS.API.CONSUMER.CREATE.{Stream.LOGS}.*.logs.{name}.>")
        if jetstream_blobs:
            publish += _read_blobs()
            many.append(f"$JS.API.DIRECT.GET.{BLOB_STREAM}")
    if role is Role.PRODUCER and tenant.trusted:
        publish += [
            f"jobs.{name}.*.*",
            f"results.{name}.*.*",
            f"control.cancel.{name}.*.*",
            f"$JS.API.DIRECT.GET.{Stream.JOBS}.jobs.{name}.*.*",
        ]
        if jetstream_blobs:
            publish += [f"$O.{BLOB_BUCKET}.C.*", f"$O.{BLOB_BUCKET}.M.*"]
    elif role is Role.PRODUCER:
        publish.append(f"ingress.{name}.*.*")
    subscribe = (f"{inbox_prefix(role, name)}.>", f"results.{name}.>", f"events.{name}.>", f"logs.{name}.>")
    return Permissions(tuple(publish), subscribe, tuple(many))


def _worker(jetstream_blobs: bool) -> Permissions:
    publish = [
        # Look whether everything is there; make what the broker keeps in memory and loses when it restarts.
        *(f"$JS.API.STREAM.INFO.{stream}" for stream in EVERY_STREAM),
        f"$JS.API.STREAM.CREATE.{Stream.EVENTS}",
        f"$JS.API.STREAM.CREATE.{Stream.LOGS}",
        f"$JS.API.STREAM.CREATE.KV_{Bucket.WORKERS}",
        # See whether the broker syncs what it confirms, before any job is drawn, and why it stores nothing.
        SERVER_FACTS,
        f"{API}.INFO",
        f"$JS.API.DIRECT.GET.KV_{Bucket.WORKERS}.>",
        # Draw and answer.
        f"$JS.API.CONSUMER.INFO.{Stream.JOBS}.*",
        f"$JS.API.CONSUMER.MSG.NEXT.{Stream.JOBS}.*",
        f"$JS.ACK.{Stream.JOBS}.>",
        # Tell and settle.
        "results.*.*.*",
        "events.*.*.*.*",
        "logs.*.*.*",
        "dead.*.*.*",
        f"$JS.API.DIRECT.GET.{Stream.RESULTS}.>",
        f"$KV.{Bucket.WORKERS}.*",
        f"$KV.{Bucket.ACCOUNTS}.>",
        f"$KV.{Bucket.ATTEMPTS}.>",
        f"$JS.API.DIRECT.GET.KV_{Bucket.ATTEMPTS}.>",
        f"$JS.API.DIRECT.GET.KV_{Bucket.MODELS}.>",
        # A job that another had: which worker began it, and so died of it or with it?
        f"$JS.API.DIRECT.GET.{Stream.EVENTS}.events.*.*.*.started",
        # Reap: any worker may hold that lease, and then ends what nobody draws and removes what nobody needs.
        f"$JS.API.STREAM.MSG.GET.KV_{Bucket.LEASES}",
        f"$KV.{Bucket.LEASES}.reaper",
        f"$JS.API.CONSUMER.LIST.{Stream.JOBS}",
        f"$JS.API.CONSUMER.CREATE.{Stream.JOBS}.*.jobs.*.*.*",
        f"$JS.API.STREAM.MSG.DELETE.{Stream.JOBS}",
        f"$JS.API.STREAM.MSG.GET.{Stream.RESULTS}",
        f"$JS.API.STREAM.PURGE.KV_{Bucket.ATTEMPTS}",
        *(f"$JS.API.DIRECT.GET.{stream}" for stream in (Stream.JOBS, Stream.RESULTS)),
        *(f"$JS.API.DIRECT.GET.KV_{bucket}" for bucket in (Bucket.MODELS, Bucket.WORKERS, Bucket.ATTEMPTS)),
        # Forward what untrusted tenants submit, and their cancels.
        "$JS.API.STREAM.NAMES",
        f"$JS.API.CONSUMER.MSG.NEXT.*.{INGRESS_CONSUMER}",
        f"$JS.ACK.*.{INGRESS_CONSUMER}.>",
        "jobs.*.*.*",
        "control.cancel.*.*.*",
    ]
    if jetstream_blobs:
        publish += [
            *_read_blobs(),
            f"$O.{BLOB_BUCKET}.>",
            *(f"$JS.API.STREAM.{verb}.{BLOB_STREAM}" for verb in ("CREATE", "MSG.DELETE", "PURGE")),
        ]
    control = ("control.cancel.*.*.*", "control.drain.*")
    # Whoever asks a worker to drain waits for what it says.
    return Permissions(tuple(publish), (f"{inbox_prefix(Role.WORKER)}.>", *control), answers=True)


def _scaler(jetstream_blobs: bool) -> Permissions:
    streams = (*EVERY_STREAM, BLOB_STREAM) if jetstream_blobs else EVERY_STREAM
    publish = [
        # How full everything is, for whoever is woken before it refuses.
        *(f"$JS.API.STREAM.INFO.{stream}" for stream in streams),
        SERVER_FACTS,
        f"{API}.INFO",
        # The backlog of all models, their entries and all heartbeats: a request each, however many there are.
        f"$JS.API.CONSUMER.INFO.{Stream.JOBS}.*",
        f"$JS.API.CONSUMER.LIST.{Stream.JOBS}",
        *(f"$JS.API.DIRECT.GET.KV_{bucket}" for bucket in (Bucket.MODELS, Bucket.WORKERS)),
        *(_get_one(bucket) for bucket in (Bucket.MODELS, Bucket.WORKERS, Bucket.LEASES)),
        f"$JS.API.STREAM.MSG.GET.KV_{Bucket.LEASES}",
        f"$KV.{Bucket.LEASES}.scaler",
        "alerts.*.*",
        # What was told before, maybe by another one.
        f"$JS.API.STREAM.MSG.GET.{Stream.ALERTS}",
        f"$JS.API.DIRECT.GET.{Stream.ALERTS}",
        f"$JS.API.DIRECT.GET.{Stream.ALERTS}.alerts.*.*",
        # Age of the oldest job that waits, when nobody heard of its arrival; and the workers that are to end.
        f"$JS.API.DIRECT.GET.{Stream.JOBS}",
        "control.drain.*",
    ]
    return Permissions(tuple(publish), (f"{inbox_prefix(Role.SCALER)}.>", "alerts.>", ARRIVALS))


def _read_bucket(bucket: str) -> list[str]:
    return [f"$JS.API.STREAM.INFO.KV_{bucket}", _get_one(bucket)]


def _get_one(bucket: str) -> str:
    return f"$JS.API.DIRECT.GET.KV_{bucket}.$KV.{bucket}.>"


def _read_blobs() -> list[str]:
    return [f"$JS.API.{verb}.{BLOB_STREAM}" for verb in ("STREAM.INFO", "STREAM.MSG.GET", "DIRECT.GET")]
