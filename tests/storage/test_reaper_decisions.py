"""What the reaper decides, without a broker."""

import math
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_contracts.errors import ErrorCode
from headrace_contracts.heartbeat import EngineState, EngineStatus, WorkerStatus
from headrace_contracts.settings import ReaperSettings
from headrace_storage.blobs import BlobInfo
from headrace_storage.reading import Stored
from headrace_storage.reaper.consumers import missing
from headrace_storage.reaper.files import Kind, files_named_by, files_named_in, is_old_enough, kind_of
from headrace_storage.reaper.possession import free_from, holders_of
from headrace_storage.reaper.survey import ConsumerState
from headrace_storage.reaper.unroutable import why_unroutable
from headrace_storage.reaper.waiting import Waiting, WaitingJobs
from headrace_storage.topology import ACK_WAIT_S, HEARTBEAT_TTL_S

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def job(sequence: int, deadline_s: float, consumer: str = "m-low") -> Waiting:
    return Waiting(deadline_s, sequence, consumer, "t", "m", f"seq-{sequence}")


def message(data: bytes) -> Stored:
    return Stored("jobs.t.m.low", {}, data, 1, NOW)


@given(st.lists(st.floats(1, 1000), max_size=60), st.integers(1, 10))
def test_every_job_is_due_in_time_however_small_the_memory(deadlines_s: list[float], limit: int) -> None:
    """As the reaper does it: take what is due, read what was forgotten, again and again as time passes."""
    queue = {number + 1: deadline_s for number, deadline_s in enumerate(deadlines_s)}
    waiting = WaitingJobs(limit)
    ended: dict[int, float] = {}
    for now_s in sorted({*deadlines_s, 0.0}):
        for _ in range(2 + len(deadlines_s)):
            for sequence in range(waiting.next_sequence("m-low"), len(deadlines_s) + 1):
                if sequence in queue:
                    waiting.add(job(sequence, queue[sequence]))
                assert len(waiting) <= limit
            waiting.read_up_to("m-low", len(deadlines_s))
            for due in waiting.due(now_s):
                assert due.deadline_s <= now_s
                ended[due.sequence] = queue.pop(due.sequence)
        assert all(deadline_s > now_s for deadline_s in queue.values())
    assert len(ended) == len(deadlines_s)


def test_a_job_that_was_delivered_is_forgotten_and_one_of_another_lane_is_not() -> None:
    waiting = WaitingJobs()
    for one in (job(3, 1.0), job(4, 1.0), job(2, 1.0, "m-high")):
        waiting.add(one)
    waiting.keep_undelivered({"m-low": 3, "m-high": 1})
    assert sorted(one.sequence for one in waiting) == [2, 4]
    waiting.keep_undelivered({"m-low": 3})
    assert [one.sequence for one in waiting] == [4]


@pytest.mark.parametrize(
    ("subject", "code"),
    [
        ("jobs.t.known.low", None),
        ("jobs.t.unknown.low", ErrorCode.UNKNOWN_MODEL),
        ("jobs.t.known.urgent", ErrorCode.INVALID_INPUT),
        ("jobs.t.known.LOW", ErrorCode.INVALID_INPUT),
        ("jobs.té.known.low", ErrorCode.INVALID_INPUT),
        ("jobs.t.kn own.low", ErrorCode.INVALID_INPUT),
        (f"jobs.t.{'x' * 65}.low", ErrorCode.INVALID_INPUT),
    ],
)
def test_which_subjects_nobody_serves(subject: str, code: ErrorCode | None) -> None:
    error = why_unroutable(subject, ["known"])
    assert (None if error is None else error.code) == code


def test_missing_consumers_get_the_lease_of_the_others() -> None:
    there = ConsumerState("m-low", NOW, 5.0, 0, 0)
    assert missing("m", {"m-low": there}) == (["m-high", "m-normal"], 5.0)
    assert missing("m", {}) == (["m-high", "m-normal", "m-low"], ACK_WAIT_S)


def engine(model: str, running: tuple[str, ...] = (), held: int = 0) -> WorkerStatus:
    return WorkerStatus("w", "h", 1, NOW, NOW, False, (EngineStatus(model, EngineState.READY, 1, running, held),))


def test_from_when_nobody_can_have_a_job_that_was_never_delivered() -> None:
    second = timedelta(seconds=1)
    since_before, since_after = holders_of([], NOW - second), holders_of([], NOW + second)
    assert free_from(NOW, "m", NOW - second, since_before, None) == 0.0
    assert free_from(NOW, "m", NOW + second, since_before, None) == NOW.timestamp() + 1 + 1200
    assert free_from(NOW, "m", NOW - second, since_after, None) == NOW.timestamp() + 1 + HEARTBEAT_TTL_S
    for busy in (engine("m", ("other",)), engine("m", held=1)):
        assert free_from(NOW, "m", NOW - second, holders_of([busy], NOW + second), None) == math.inf
        assert free_from(NOW, "m", NOW - second, holders_of([busy], NOW - second), None) == 0.0
        assert free_from(NOW, "n", NOW - second, holders_of([busy], NOW + second), None) < math.inf
    assert free_from(NOW, "m", NOW - second, holders_of([engine("m")], NOW + second), None) < math.inf


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("t/m/j/1-a/out.bin", Kind.ARTIFACT),
        ("t/inputs/0123", Kind.INPUT),
        ("t/inputs/j/1-a/out.bin", Kind.INPUT),  # also that of a model called `inputs`: it is kept for longer
        ("t/inputs", Kind.FOREIGN),
        ("inputs/t/x", Kind.FOREIGN),
        ("t/m/j/out.bin", Kind.FOREIGN),
        ("t/m/j/1/2/out.bin", Kind.FOREIGN),
        ("t/m.1/j/1/out.bin", Kind.FOREIGN),
        ("t/m//1/out.bin", Kind.FOREIGN),
        ("", Kind.FOREIGN),
        ("/////", Kind.FOREIGN),
        ("../m/j/1/x", Kind.FOREIGN),
    ],
)
def test_kinds_of_files(key: str, kind: Kind) -> None:
    assert kind_of(key) is kind


def test_files_are_looked_at_after_their_time() -> None:
    settings = ReaperSettings(orphan_grace_s=60, input_retention_s=3600)
    for key, least_s in (("t/m/j/1/x", 60), ("t/inputs/x", 3600)):
        blob = BlobInfo(key, 1, "", "", NOW)
        assert not is_old_enough(blob, settings, NOW + timedelta(seconds=least_s))
        assert is_old_enough(blob, settings, NOW + timedelta(seconds=least_s + 1))
    assert not is_old_enough(BlobInfo("t/else", 1, "", "", NOW), settings, NOW + timedelta(days=9999))


@given(st.binary(max_size=200))
def test_no_bytes_can_upset_the_reading_of_files(data: bytes) -> None:
    for found in (message(data), message(b"{" + data), message(b"\x81" + data), message(b"\xc7\x02\x05" + data)):
        list(files_named_in(found))
        files_named_by(found)


def test_deep_bodies_do_not_exhaust_the_stack() -> None:
    for body in (b'{"a":' * 50_000, b"\x81\xa1a" * 50_000, b'{"a":' + b"[" * 50_000):
        assert list(files_named_in(message(body))) == []
        assert files_named_by(message(body)) is None
