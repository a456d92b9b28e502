"""What each column of `headrace top` says, and that it is said at every width."""

import io

import msgspec
import pytest
from rich.console import Console
from top_cases import MINUTE, NOW, ago, alert, decision, worker

from headrace.cli.top_screen import drawn
from headrace.cli.top_text import HEADINGS, header_lines, table_rows
from headrace.durations import compact
from headrace.top import GpuUse, ModelRow, View
from headrace.top.speed import Speed, Speeds, percentile
from headrace.top.view import Firing, Seen, rows_of, slots_of
from headrace_contracts.alert import AlertName, AlertState
from headrace_contracts.heartbeat import EngineState, WorkerPhase
from headrace_contracts.names import Lane
from headrace_contracts.result import Status
from headrace_storage.lanes import LaneState
from headrace_storage.newest_results import MOST_AT_A_LOOK, End, Ends

# Speed.


def ends(*took: tuple[float, float], model: str = "draw", status: Status = Status.SUCCEEDED, skipped: int = 0) -> Ends:
    """Ends of jobs as (seconds ago, seconds it took)."""
    return Ends(tuple(End(model, status, took_s, ago(seconds)) for seconds, took_s in took), skipped, 1)


def test_the_rate_is_of_the_last_minute_and_latencies_of_ten() -> None:
    speeds = Speeds()
    speeds.take(ends((700, 99.0), (300, 5.0), (59, 1.0), (30, 2.0), (1, 3.0)), NOW)
    assert speeds.by_model(NOW) == {"draw": Speed(3 / 60, 2.0, 5.0)}
    later = NOW + 11 * MINUTE
    speeds.take(ends(), later)
    assert speeds.by_model(later) == {}


def test_ends_that_were_not_read_are_counted_by_those_that_were() -> None:
    speeds = Speeds()
    speeds.take(ends(), NOW)
    looked = Ends((*ends((1, 1.0), (1, 1.0), (1, 1.0)).ends, *ends((1, 4.0), model="hear").ends), 36, 1)
    speeds.take(looked, NOW)
    assert {model: speed.jobs_s for model, speed in speeds.by_model(NOW).items()} == {"draw": 30 / 60, "hear": 10 / 60}


def test_a_first_look_at_its_limit_knows_only_the_time_that_it_covers() -> None:
    speeds = Speeds()
    speeds.take(ends(*[(5.0, 1.0)] * MOST_AT_A_LOOK), NOW)
    assert speeds.by_model(NOW)["draw"].jobs_s == MOST_AT_A_LOOK / 5


def test_only_jobs_that_succeeded_say_how_long_jobs_take() -> None:
    speeds = Speeds()
    speeds.take(ends((3, 0.1), status=Status.CANCELED), NOW)
    assert speeds.by_model(NOW) == {"draw": Speed(1 / 60, None, None)}


@pytest.mark.parametrize(
    ("values", "share", "value"),
    [([], 0.5, None), ([7.0], 0.99, 7.0), ([1.0, 2.0], 0.5, 1.0), ([float(n) for n in range(1, 101)], 0.99, 99.0)],
)
def test_percentiles_are_values_that_occurred(values: list[float], share: float, value: float | None) -> None:
    assert percentile(values, share) == value


# A row of each model.


def seen(**known: object) -> Seen:
    usual: dict[str, object] = {
        "models": frozenset({"draw"}),
        "lanes": {},
        "oldest": {},
        "workers": [],
        "decisions": {},
        "firing": {},
        "speeds": {},
        "gpus": (),
        "host": "here",
    }
    return Seen(**{**usual, **known})  # type: ignore[arg-type]


def lanes(model: str, *counts: tuple[int, int]) -> tuple[LaneState, ...]:
    return tuple(LaneState(model, lane, w, h, 0, 30.0, 100, None) for lane, (w, h) in zip(Lane, counts, strict=False))


def test_what_is_not_known_is_not_zero() -> None:
    [row] = rows_of(seen(), NOW)
    assert (row.oldest_wait_s, row.target, row.speed, row.gpus) == (None, None, Speed(), ())
    assert table_rows(view(row))[0] == ("draw", "0", "0", "-", "0", "-", "-", "-", "-", "-", "-", "-")


def test_a_row_adds_up_lanes_and_workers() -> None:
    workers = [
        worker("a", "draw", EngineState.LOADING),
        worker("b", "draw"),
        worker("c", "draw", running=1),
        worker("d", "draw", held=1, slot="gpu:1"),
        worker("e", "draw", EngineState.UNHEALTHY, slot="gpu:0", host="elsewhere"),
        worker("f", "draw", draining=True),
        worker("g", "hear"),
    ]
    [row] = rows_of(
        seen(
            lanes={"draw": lanes("draw", (1, 2), (3, 4))},
            oldest={"draw": ago(75)},
            workers=workers,
            decisions={"draw": decision("draw", 4)},
            gpus=(GpuUse(0, 0.1, 0, 1), GpuUse(1, 0.5, 0, 1)),
        ),
        NOW,
    )
    assert (row.waiting, row.held, row.oldest_wait_s, row.target) == (4, 6, 75.0, 4)
    assert row.workers == {"starting": 1, "idle": 1, "busy": 2, "draining": 1, "unhealthy": 1}
    assert row.gpus == (1,)  # the other GPU 0 is of another machine
    assert slots_of(workers) == {"gpu:0": 1, "gpu:1": 1}


def test_jobs_for_a_model_that_was_removed_are_shown() -> None:
    rows = rows_of(seen(lanes={"ghost": lanes("ghost", (1, 0)), "gone": lanes("gone", (0, 0))}), NOW)
    assert [(row.name, row.registered) for row in rows] == [("draw", True), ("ghost", False)]
    assert "not in the registry" in table_rows(view(rows[1]))[0][HEADINGS.index("DECISION")]


def test_alerts_fire_until_they_are_resolved() -> None:
    firing = Firing()
    firing.take([alert("draw", AlertName.BACKLOG, since=ago(1)), alert("draw", AlertName.OLDEST_AGE, since=ago(9))])
    firing.take([alert("hear", AlertName.BACKLOG), alert("hear", AlertName.BACKLOG, AlertState.RESOLVED)])
    assert {model: [a.alert for a in alerts] for model, alerts in firing.by_model().items()} == {
        "draw": [AlertName.OLDEST_AGE, AlertName.BACKLOG]
    }
    firing.take([alert("draw", AlertName.OLDEST_AGE, AlertState.RESOLVED)])
    assert [a.alert for a in firing.by_model()["draw"]] == [AlertName.BACKLOG]


# On the screen.


def view(*rows: ModelRow, **changes: object) -> View:
    usual = View(NOW, "nats://127.0.0.1:4222", "2.15.1", "host-1-4711", {"cpu": 2, "gpu:0": 12}, rows)
    return msgspec.structs.replace(usual, **changes)


FULL = ModelRow(
    name="tiny-shapes",
    waiting=123456,
    held=1234,
    oldest_wait_s=75.0,
    workers={WorkerPhase.STARTING: 1, WorkerPhase.IDLE: 1, WorkerPhase.BUSY: 12},
    target=14,
    speed=Speed(123.4, 1.234, 245.6),
    gpus=(0,),
    decision=decision("tiny-shapes", 4, "no_slot", "5 jobs wait for 2 workers, and each takes 6 s " * 3),
    alerts=(alert("tiny-shapes", AlertName.BACKLOG),),
    registered=True,
)
LONG = msgspec.structs.replace(FULL, name="a-model-with-a-name-of-64-characters-" + 27 * "x", workers={}, alerts=())
GPU = GpuUse(0, 0.43, 12 << 30, 80 << 30)


@pytest.mark.parametrize("width", [80, 100, 120, 200])
def test_no_number_is_cut_at_any_width(width: int) -> None:
    lines = screen(view(FULL, LONG, gpus=(GPU,), outage="the connection is lost", outage_since=ago(3)), width)
    assert all(len(line) <= width for line in lines)
    [row] = [line for line in lines if line.startswith("tiny-shapes ") and "123456" in line]
    busy = ["1s", "1i", "12b"] if width < 110 else ["1", "starting,", "1", "idle,", "12", "busy"]
    assert row.split() == ["tiny-shapes", "123456", "1234", "1m15s", *busy, "14", "123", "1.2s", "4m06s", "0:43%"]
    text = " ".join(" ".join(lines).split())
    assert "scaler host-1-4711 slots: cpu 2, gpu:0 12" in text
    assert "gpu:0 43% 12.0/80.0 GiB" in text
    assert "NO ANSWER from the broker since 11:59:57 UTC: the connection is lost. What follows is from 12:00:00" in text
    assert "ALERT backlog since 12:00:00 UTC: 120 jobs wait" in text
    assert "[no_slot]" in text


def test_columns_of_gpus_are_absent_where_there_is_none() -> None:
    row = msgspec.structs.replace(FULL, gpus=())
    assert not any("GPU" in line or "gpu:0 43%" in line for line in screen(view(row), 120))


def test_an_empty_registry_and_no_scaler_are_said() -> None:
    text = " ".join(screen(view(leader=None, slots={}), 100))
    assert "no scaler" in text
    assert "the registry is empty" in text


def test_text_has_every_column() -> None:
    [row] = table_rows(view(FULL))
    assert len(row) == len(HEADINGS)
    assert row[-1] == "backlog since 12:00:00 UTC: 120 jobs wait"
    assert list(header_lines(view())) == [
        "12:00:00 UTC   nats://127.0.0.1:4222 (2.15.1)   scaler host-1-4711   slots: cpu 2, gpu:0 12"
    ]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.34, "340ms"),
        (12.34, "12.3s"),
        (59.97, "1m00s"),
        (245.6, "4m06s"),
        (3599.6, "1h00m"),
        (7500.0, "2h05m"),
        (86_399.0, "1d00h"),
        (90_000.0, "1d01h"),
    ],
)
def test_durations_in_a_column(seconds: float, said: str) -> None:
    assert compact(seconds) == said


def screen(shown: View, width: int) -> list[str]:
    into = io.StringIO()
    Console(width=width, file=into).print(drawn(shown, width))
    return [line.rstrip() for line in into.getvalue().splitlines()]
