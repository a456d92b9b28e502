"""Checks of the server: version, durability, health, limits, clock. Each is one function over one record."""

import re
from collections.abc import Iterator

from headrace_storage.doctor.finding import Finding, Level
from headrace_storage.doctor.observation import Observation

# The first version without an advisory that matters here, and without the losses below.
VERSION_FLOOR = (2, 14, 3)
# From (included), to (excluded), why.
KNOWN_BAD = (
    ((2, 10, 20), (2, 10, 23), "loses whole streams when its process crashes"),
    ((2, 12, 3), (2, 12, 5), "loses jobs of replicated work queues (nats-server#7817)"),
    ((0, 0, 0), (2, 10, 27), "lets one account administer the streams of another (CVE-2025-30215)"),
    ((2, 11, 0), (2, 11, 1), "lets one account administer the streams of another (CVE-2025-30215)"),
    ((2, 12, 0), (2, 12, 7), "lets a queue subscription pass by a denied subject (advisory 2026-18)"),
)
# Room for the largest job and its headers.
MIN_PAYLOAD_BYTES = 1 << 20
USUAL_PAYLOAD_BYTES = 8 << 20
# `ttl_s` is counted from the broker's clock to the worker's.
CLOCK_WARNING_S = 1.0
CLOCK_FAIL_S = 30.0

_AS_ABOVE = "as for sync_interval"


def check_version(seen: Observation) -> Iterator[Finding]:
    """The nats-server is new enough and none that is known to lose jobs."""
    check, floor = "nats-server version", ".".join(map(str, VERSION_FLOOR))
    parts = re.match(r"(\d+)\.(\d+)\.(\d+)", seen.version)
    if parts is None or seen.version == "0.0.0":
        yield Finding(check, Level.UNKNOWN, f"{seen.version or 'none'} is no version", f"run {floor} or later")
        return
    version = tuple(map(int, parts.groups()))
    reasons = [why for first, after, why in KNOWN_BAD if first <= version < after]
    if version < VERSION_FLOOR:
        why = f": it {', and '.join(reasons)}" if reasons else ""
        yield Finding(check, Level.FAIL, f"{seen.version} is older than {floor}{why}", f"upgrade to {floor} or later")
    else:
        yield Finding(check, Level.OK, seen.version)


def check_sync(seen: Observation) -> Iterator[Finding]:
    """An acknowledged write is on the disk."""
    check = "sync_interval"
    if seen.monitoring is None:
        yield Finding(check, Level.UNKNOWN, "it cannot be seen whether writes are synced", seen.monitoring_unseen)
    elif not seen.monitoring.sync_always:
        yield Finding(
            check,
            Level.FAIL,
            "not `always`: a power cut loses jobs and results that had a receipt",
            'set `sync_interval: "always"` in the `jetstream` block of every server and restart it',
        )
    else:
        yield Finding(check, Level.OK, "always")


def check_health(seen: Observation) -> Iterator[Finding]:
    """The server can write its streams."""
    check = "server health"
    if seen.monitoring is None:
        yield Finding(check, Level.UNKNOWN, "it cannot be seen", _AS_ABOVE)
    elif seen.monitoring.unhealthy:
        yield Finding(
            check,
            Level.FAIL,
            seen.monitoring.unhealthy,
            "make room on its disk or repair it, then restart nats-server: it does not recover by itself",
        )
    else:
        yield Finding(check, Level.OK, "healthy")


def check_storage_limit(seen: Observation) -> Iterator[Finding]:
    """The server's storage has a limit that somebody chose, and the streams fit into it."""
    check = "storage limit"
    if seen.monitoring is None:
        yield Finding(check, Level.UNKNOWN, "it cannot be seen", _AS_ABOVE)
        return
    limit, used = seen.monitoring.max_storage_bytes, seen.monitoring.storage_bytes
    wanted = sum(stream.max_bytes for stream in seen.streams if stream.max_bytes > 0 and not stream.in_memory)
    if used > 0.8 * limit:
        level = Level.FAIL if used >= limit else Level.WARNING
        yield Finding(
            check,
            level,
            f"{_size(used)} of {_size(limit)} are in use",
            "remove what is not needed, or raise `max_file_store` and restart",
        )
    elif not _chosen(limit):
        yield Finding(
            check,
            Level.WARNING,
            f"{_size(limit)}, which looks like the server's default: a share of what was free when it started",
            "set `max_file_store` in the `jetstream` block",
        )
    elif limit < wanted:
        yield Finding(
            check,
            Level.WARNING,
            f"{_size(limit)}, and the streams alone may grow to {_size(wanted)}",
            "raise `max_file_store`: else one full stream makes all of them refuse",
        )
    else:
        yield Finding(check, Level.OK, f"{_size(used)} of {_size(limit)} in use")


def check_max_payload(seen: Observation) -> Iterator[Finding]:
    """Jobs fit into messages."""
    check = "max_payload"
    advice = f"set `max_payload: {USUAL_PAYLOAD_BYTES >> 20}MB`, the size that the stream of jobs allows"
    if seen.max_payload_bytes < MIN_PAYLOAD_BYTES:
        yield Finding(check, Level.FAIL, f"{_size(seen.max_payload_bytes)}: many jobs and results do not fit", advice)
    elif seen.max_payload_bytes < USUAL_PAYLOAD_BYTES:
        yield Finding(check, Level.WARNING, f"{_size(seen.max_payload_bytes)}: large results do not fit", advice)
    else:
        yield Finding(check, Level.OK, _size(seen.max_payload_bytes))


def check_clock(seen: Observation) -> Iterator[Finding]:
    """The broker's clock and ours agree."""
    check = "clock"
    if seen.clock_ahead_s is None:
        yield Finding(check, Level.UNKNOWN, "the broker's time cannot be seen", "it comes with a look at a stream")
        return
    apart_s = abs(seen.clock_ahead_s)
    where = "ahead of" if seen.clock_ahead_s > 0 else "behind"
    found = f"the broker's clock is {apart_s:.3f} s {where} this machine's"
    if apart_s >= CLOCK_WARNING_S:
        level = Level.FAIL if apart_s >= CLOCK_FAIL_S else Level.WARNING
        yield Finding(check, level, found, "synchronise both clocks (NTP): jobs expire too early or too late")
    else:
        yield Finding(check, Level.OK, found)


def _chosen(limit_bytes: int) -> bool:
    """Whether a person may have written this number: a share of a disk is hardly ever round."""
    return limit_bytes % (1 << 20) == 0 or limit_bytes % 1_000_000 == 0


def _size(count: int) -> str:
    """Bytes for people."""
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if count >= unit:
            return f"{count / unit:.4g} {name}"
    return f"{count} bytes"
