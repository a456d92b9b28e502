"""What the scaler makes of heartbeats, of what the launcher says, and of arrivals: no broker, no process, no clock."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from headrace_contracts.cost import SlotKind
from headrace_contracts.heartbeat import Account, EngineState, EngineStatus, WorkerPhase, WorkerStatus
from headrace_contracts.names import Lane
from headrace_scaler.launchers.port import Launched
from headrace_scaler.observing.arrivals import MOST_REMEMBERED, Arrivals
from headrace_scaler.observing.service_time import ServiceTimes
from headrace_scaler.observing.workers import LOOKS_APART_S, SILENCE_S, Seen, WorkerWatch
from headrace_scaler.policy.observation import Need, WorkerView
from headrace_storage.arrivals import Arrival

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
ONE_CORE = Need(SlotKind.CPU, 1)


def status(worker: str = "w", **of_engine: object) -> WorkerStatus:
    engine = msgspec.structs.replace(
        EngineStatus("m", EngineState.READY, 1, (), 0, idle_since=NOON),
        **of_engine,
    )
    return WorkerStatus(worker, "host", 1, NOON, NOON, draining=False, engines=(engine,), slot="cpu")


def launched(worker: str = "w", ended: str | None = None, ordered_s_ago: float = 0.0) -> Launched:
    ordered_at = (NOON - timedelta(seconds=ordered_s_ago)).timestamp()
    return Launched(worker, "m", "cpu", ONE_CORE, ordered_at, ended)


class Looking:
    """A watch that is looked through again and again."""

    def __init__(self) -> None:
        self.watch = WorkerWatch()

    def at(
        self, second: float, *statuses: WorkerStatus, launched: tuple[Launched, ...] = (), runs_as: str = ""
    ) -> Seen:
        return self.watch.look(statuses, launched, {"m": runs_as}, 1000 + second, NOON + timedelta(seconds=second))


def only(seen: Seen) -> WorkerView:
    [view] = seen.workers["m"]
    return view


def test_a_worker_is_starting_from_its_order_until_its_engine_is_ready() -> None:
    looking = Looking()
    looking.at(0)
    silent = only(looking.at(5, launched=(launched(ordered_s_ago=-2),)))
    loading = status(state=EngineState.LOADING, idle_since=None)
    spoke = only(looking.at(6, loading, launched=(launched(ordered_s_ago=-2),)))
    ready = looking.at(7, status(), launched=(launched(ordered_s_ago=-2),))
    assert (silent.phase, silent.since) == (WorkerPhase.STARTING, 1002)
    assert (spoke.phase, spoke.since) == (WorkerPhase.STARTING, 1002)
    assert (only(ready).phase, only(ready).need) == (WorkerPhase.IDLE, ONE_CORE)
    assert [worker.id for worker, _ in ready.became_ready] == ["w"]
    assert looking.at(8, status(), launched=(launched(),)).became_ready == ()


def test_a_worker_that_speaks_before_it_has_an_engine_is_starting() -> None:
    first_words = msgspec.structs.replace(status(), engines=())
    view = only(Looking().at(0, first_words, launched=(launched(),)))
    assert (view.phase, view.id) == (WorkerPhase.STARTING, "w")


def test_the_start_of_a_worker_that_was_there_before_us_counts_from_our_first_look() -> None:
    looking = Looking()
    view = only(looking.at(0, launched=(launched(ordered_s_ago=3600),)))
    assert (view.phase, view.since) == (WorkerPhase.STARTING, 1000)


@pytest.mark.parametrize(
    ("engine", "phase"),
    [
        ({"idle_since": NOON}, WorkerPhase.IDLE),
        ({"idle_since": NOON, "state": EngineState.RECOVERING}, WorkerPhase.IDLE),
        ({"idle_since": None, "running": ("j",)}, WorkerPhase.BUSY),
        ({"idle_since": None, "held": 1}, WorkerPhase.BUSY),
        ({"idle_since": None, "held": 1, "state": EngineState.UNHEALTHY}, WorkerPhase.BUSY),
        ({"idle_since": None, "state": EngineState.UNHEALTHY}, WorkerPhase.UNHEALTHY),
        ({"idle_since": None, "state": EngineState.RECOVERING}, WorkerPhase.STARTING),
        ({"idle_since": None, "state": EngineState.LOADING}, WorkerPhase.STARTING),
    ],
)
def test_the_phase_of_a_worker_follows_from_its_heartbeat(engine: dict[str, object], phase: WorkerPhase) -> None:
    assert only(Looking().at(1, status(**engine))).phase is phase


def test_a_worker_that_agreed_to_drain_drains_whatever_its_last_heartbeat_says() -> None:
    looking = Looking()
    assert only(looking.at(0, status())).phase is WorkerPhase.IDLE
    looking.watch.agreed_to_drain(["w"])
    assert (only(looking.at(1, status())).phase, only(looking.at(2, status())).since) == (WorkerPhase.DRAINING, 1001)


def test_a_worker_that_agreed_to_drain_drains_after_its_last_heartbeat_too() -> None:
    """Between that and its end it is neither one that may have a job, nor one that hangs."""
    looking = Looking()
    looking.at(0, status(), launched=(launched(),))
    looking.watch.agreed_to_drain(["w"])
    silent = only(looking.at(1, launched=(launched(),)))
    assert (silent.phase, silent.since) == (WorkerPhase.DRAINING, 1001)
    assert only(looking.at(1 + SILENCE_S, launched=(launched(),))).phase is WorkerPhase.DRAINING


def test_idle_time_counts_from_the_last_job() -> None:
    view = only(Looking().at(30, status(idle_since=NOON + timedelta(seconds=10))))
    assert view.since == pytest.approx(1010)


def test_a_worker_that_forgot_its_heartbeat_with_the_broker_may_have_a_job() -> None:
    looking = Looking()
    looking.at(0, status(), launched=(launched(),))
    for second in range(1, int(SILENCE_S)):
        assert only(looking.at(second, launched=(launched(),))).phase is WorkerPhase.BUSY
    assert only(looking.at(SILENCE_S + 2, launched=(launched(),))).phase is WorkerPhase.UNHEALTHY


def test_silence_while_nobody_could_look_does_not_count() -> None:
    looking = Looking()
    looking.at(0, status(), launched=(launched(),))
    looking.at(1, launched=(launched(),))
    after_outage = 2 + LOOKS_APART_S + SILENCE_S
    assert only(looking.at(after_outage, launched=(launched(),))).phase is WorkerPhase.BUSY


def test_a_worker_that_ended_before_it_was_ready_is_a_failed_start_told_once() -> None:
    looking = Looking()
    dead = launched(ended="exit status 1: error: no such model")
    first = looking.at(0, launched=(dead,))
    assert [failed.reason for failed in first.failed_starts["m"]] == ["exit status 1: error: no such model"]
    assert first.ended == ("w",)
    assert looking.at(1, launched=(dead,)).failed_starts == {}
    assert first.workers == {}


@pytest.mark.parametrize("was_ready", [True, False])
def test_the_end_of_a_worker_that_was_ready_or_ended_well_is_no_failed_start(was_ready: bool) -> None:
    looking = Looking()
    looking.at(0, *([status()] if was_ready else []), launched=(launched(),))
    dead = launched(ended="SIGKILL" if was_ready else "exit status 0")
    seen = looking.at(1, status(), launched=(dead,))
    assert seen.failed_starts == {}
    assert seen.ended == ("w",)
    assert seen.workers == {}, "its last heartbeat outlives it"
    assert looking.at(2, status()).workers == {}, "and outlives what the launcher knew of it"
    assert looking.at(3).workers == {}


def test_a_worker_started_by_hand_is_not_ours_and_one_of_another_scaler_is() -> None:
    by_hand = msgspec.structs.replace(status(), slot="")
    assert not only(Looking().at(0, by_hand)).ours
    assert only(Looking().at(0, status())).ours


def test_a_worker_that_runs_an_older_entry_is_outdated() -> None:
    looking = Looking()
    assert looking.at(0, status(runs_as="old"), runs_as="new").outdated == {"m": ("w",)}
    assert looking.at(1, status(runs_as="new"), runs_as="new").outdated == {}
    by_hand = msgspec.structs.replace(status(runs_as="old"), slot="")
    assert looking.at(2, by_hand, runs_as="new").outdated == {}


def test_service_time_is_busy_seconds_per_job_and_follows_the_work() -> None:
    times = ServiceTimes()
    assert times.of("m") is None
    times.update([status(account=Account(busy_s=20.0, jobs=10))])
    assert times.of("m") == pytest.approx(2.0)
    times.update([status(account=Account(busy_s=23.0, jobs=10))])
    assert times.of("m") == pytest.approx(2.0), "a running job counts when it has ended"
    times.update([status(account=Account(busy_s=24.0, jobs=11))])
    assert times.of("m") == pytest.approx((20 * 50 / 51 + 4) / (10 * 50 / 51 + 1))
    for jobs in range(12, 1000):
        times.update([status(account=Account(busy_s=24.0 + (jobs - 11) * 0.5, jobs=jobs))])
    assert times.of("m") == pytest.approx(0.5, rel=0.01)


def test_the_service_time_outlives_the_workers_it_was_measured_on() -> None:
    times = ServiceTimes()
    times.update([status(account=Account(busy_s=20.0, jobs=10))])
    times.update([])
    assert times.of("m") == pytest.approx(2.0)


def arrival(sequence: int, second: float = 0.0, lane: Lane = Lane.NORMAL) -> Arrival:
    return Arrival("m", lane, sequence, NOON + timedelta(seconds=second))


def test_the_oldest_waiting_job_is_the_first_behind_what_was_delivered() -> None:
    arrivals = Arrivals()
    for sequence in (3, 5, 9):
        arrivals.heard(arrival(sequence, sequence), now=0)
    assert arrivals.oldest_after("m", Lane.NORMAL, delivered=0, waiting=3) == NOON + timedelta(seconds=3)
    assert arrivals.oldest_after("m", Lane.NORMAL, delivered=3, waiting=2) == NOON + timedelta(seconds=5)
    assert arrivals.oldest_after("m", Lane.HIGH, delivered=0, waiting=1) is None
    assert arrivals.oldest_after("m", Lane.NORMAL, delivered=9, waiting=0) is None


def test_of_jobs_that_were_not_all_heard_nobody_knows_the_oldest() -> None:
    arrivals = Arrivals()
    arrivals.heard(arrival(7), now=0)
    assert arrivals.oldest_after("m", Lane.NORMAL, delivered=0, waiting=2) is None


def test_arrivals_are_counted_over_half_a_minute_and_bounded_in_memory() -> None:
    arrivals = Arrivals()
    for sequence in range(MOST_REMEMBERED + 500):
        arrivals.heard(arrival(sequence), now=sequence / 1000)
    now = (MOST_REMEMBERED + 500) / 1000
    assert arrivals.rate("m", now) == pytest.approx((MOST_REMEMBERED + 500) / 30, rel=0.01)
    assert arrivals.rate("m", now + 31) == 0
    assert arrivals.oldest_after("m", Lane.NORMAL, delivered=-1, waiting=MOST_REMEMBERED + 500) is None
