"""The panels of Headrace's dashboard, row by row: what an operator asks. Change one here, then `make dashboard`.

Only the scaler that leads shows queues and workers. Where two do for a moment, while the lease changes hands, the
larger number counts: `max by (model)` around sums `by (model, instance)`, as in compose/prometheus/headrace.rules.yml.
"""

from typing import Final

from panel import BLUE, GREEN, GREY, ORANGE, RED, YELLOW, Panel, Query

_MODEL: Final = '{model=~"$model"}'
_JOBS: Final = '{model=~"$model",lane=~"$lane"}'

_WAITING: Final = f"max by (model) (sum by (model, instance) (headrace_jobs_waiting{_JOBS}))"
_OLDEST: Final = f"max by (model) (headrace_oldest_wait_seconds{_MODEL})"
_WORKERS: Final = f"max by (model, phase) (headrace_workers{_MODEL})"
_FAILED: Final = '{model=~"$model",lane=~"$lane",status="failed"}'
_OTHERWISE: Final = '{model=~"$model",lane=~"$lane",status!="succeeded"}'
_RESULTS: Final = f"rate(headrace_results_total{_JOBS}[$__rate_interval])"
_COST: Final = f"sum by (model) (rate(headrace_worker_cost_total{_MODEL}[$__rate_interval])) * 3600"
_TIME: Final = f"rate(headrace_worker_seconds_total{_MODEL}[$__rate_interval])"

# A model has one colour everywhere: the one here, or else one that follows from its name, which may be a dark one.
MODELS: Final = {
    "tiny-shapes": "#6ed0e0",
    "whisper-tiny-en": "semi-dark-orange",
    "smollm2-135m": "light-purple",
}
_STATUSES: Final = {"succeeded": GREEN, "failed": RED, "expired": ORANGE, "canceled": GREY}
_PHASES: Final = {"busy": GREEN, "idle": BLUE, "starting": YELLOW, "draining": GREY, "unhealthy": RED}
_STATES: Final = {"ready": GREEN, "loading": YELLOW, "recovering": ORANGE, "unhealthy": RED}

# A worker that ends cannot be read for the seconds until it is no target any more: that is as it should be.
_UNREAD: Final = "up == 0 and max_over_time(up[30s]) == 0 and up offset 30s == 0"

_NO_LEADER: Final = "no scaler leads"


def _quantile(share: float, name: str, by: str = "model, le") -> str:
    return f"histogram_quantile({share}, sum by ({by}) (rate(headrace_{name}_seconds_bucket{_JOBS}[$__rate_interval])))"


def _p99_and_p50(name: str) -> tuple[Query, ...]:
    """One name for both, and so one colour."""
    return (Query(_quantile(0.99, name), "{{model}}"), Query(_quantile(0.5, name), "{{model}}", dashed=True))


AT_A_GLANCE: Final = (
    Panel(
        "Jobs waiting",
        "Jobs that no worker holds, of the chosen models and lanes. The next row says which, and why.",
        "short",
        (Query(f"sum({_WAITING})", "waiting"),),
        "stat",
        steps=((None, GREEN), (1, BLUE), (100, ORANGE)),
        empty=_NO_LEADER,
    ),
    Panel(
        "Oldest wait",
        "Age of the oldest job that no worker holds. If it grows while workers are busy, raise `max_workers`; if "
        "there are none, see 'Why no more workers'.",
        "s",
        (Query(f"max({_OLDEST})", "oldest"),),
        "stat",
        steps=((None, GREEN), (30, YELLOW), (60, RED)),
        decimals=1,
        empty=_NO_LEADER,
    ),
    Panel(
        "Workers ready",
        "Workers that are idle or busy. None is as it should be while nothing waits.",
        "short",
        (Query('sum(max by (model, phase) (headrace_workers{model=~"$model",phase=~"idle|busy"}))', "ready"),),
        "stat",
        steps=((None, BLUE),),
        empty=_NO_LEADER,
    ),
    Panel(
        "End to end p99",
        "From submission to the committed result, of all chosen models together; the third row says where it goes.",
        "s",
        (Query(_quantile(0.99, "job_total", by="le"), "p99"),),
        "stat",
        steps=((None, BLUE),),
        decimals=1,
        empty="no job ended",
    ),
    Panel(
        "Jobs failed",
        "Share of the jobs that ended lately as `failed`. 'Failures and retries' says of what, `headrace dead ls` "
        "which.",
        "percentunit",
        (
            Query(
                f"sum(rate(headrace_results_total{_FAILED}[$__rate_interval])) / (sum({_RESULTS}) > 0)",
                "failed",
            ),
        ),
        "stat",
        steps=((None, GREEN), (0.01, YELLOW), (0.05, RED)),
        decimals=1,
        empty="no job ended",
    ),
    Panel(
        "Cost",
        "Money that workers cost now, busy or not, in the currency of the prices in the settings. 0: no price is set.",
        "suffix: / h",
        (Query(f"sum({_COST})", "cost"),),
        "stat",
        steps=((None, BLUE),),
        decimals=2,
        empty=_NO_LEADER,
    ),
    Panel(
        "Scrapes failing",
        "Processes that Prometheus has not been able to read for 30 s. A worker that was stopped is gone within "
        "seconds; one that stays hangs, or its metrics port cannot be reached.",
        "short",
        (Query(f"count({_UNREAD}) or vector(0)", "not read"),),
        "stat",
        steps=((None, GREEN), (1, RED)),
        empty="Prometheus reads nothing",
    ),
    Panel(
        "Broker",
        "Whether every process has a connection to the broker, and it stores. FAILS: processes reconnect by "
        "themselves, `headrace doctor` says what the broker lacks.",
        "short",
        (Query("min(headrace_broker_connected) * (min(headrace_broker_healthy) or vector(1))", "healthy"),),
        "stat",
        steps=((None, RED), (1, GREEN)),
        names={"0": "FAILS", "1": "healthy"},
        empty="nothing runs",
    ),
)

WAITING: Final = (
    Panel(
        "Jobs waiting, by model",
        "The backlog. A saw tooth is work that comes in batches; a line that only rises needs more workers.",
        "short",
        (Query(_WAITING, "{{model}}"),),
        colours=MODELS,
        empty=_NO_LEADER,
    ),
    Panel(
        "Oldest wait, by model",
        "Dashed: the age at which the alert fires (`alert_oldest_age_s`). A model far above the others starves: see "
        "its `max_workers` and `priority`.",
        "s",
        (
            Query(_OLDEST, "{{model}}"),
            Query("max(headrace_alert_oldest_age_seconds)", "alert", dashed=True),
        ),
        colours={**MODELS, "alert": RED},
        empty=_NO_LEADER,
    ),
    Panel(
        "Workers by phase, wanted and allowed",
        "Dashed: wanted by the scaler, and the most there may be. Wanted above what is there: starting, or the next "
        "panel says why not. Unhealthy: the engine cannot start, see the worker's log.",
        "short",
        (
            Query(f"sum by (phase) ({_WORKERS})", "{{phase}}"),
            Query(f"sum(max by (model) (headrace_workers_wanted{_MODEL}))", "wanted", dashed=True),
            Query(f"sum(max by (model) (headrace_workers_max{_MODEL}))", "max", dashed=True),
        ),
        colours={**_PHASES, "wanted": "white", "max": ORANGE},
        stacked=True,
        decimals=0,
        empty=_NO_LEADER,
    ),
    Panel(
        "Why no more workers",
        "Models whose workers are wanted and not started, now. `max_workers`: raise it. `no_slot`: add cores, a GPU "
        "or a machine. `never_fits`: one worker needs more than any slot has. `crash_loop`, `backoff`: starts fail, "
        "see the scaler's log. `paused`: by an operator.",
        "short",
        (Query(f"max by (model, reason) (headrace_blocked{_MODEL}) == 1"),),
        "table",
        empty="nothing is held up",
        columns={"model": "model", "reason": "reason"},
    ),
)

SLOW: Final = (
    Panel(
        "Time in the queue: p99, dashed p50",
        "From submission until a worker took the job. High while workers are idle: cold starts. High while all are "
        "busy: too few of them.",
        "s",
        _p99_and_p50("job_queue"),
        colours=MODELS,
        logarithmic=True,
        empty="no job ended",
    ),
    Panel(
        "Time in the engine: p99, dashed p50",
        "Of jobs that succeeded. A p99 far from the p50: inputs of different sizes, or jobs that share a batch or a "
        "core.",
        "s",
        _p99_and_p50("job_run"),
        colours=MODELS,
        logarithmic=True,
        empty="no job succeeded",
    ),
    Panel(
        "End to end: p99, dashed p50",
        "From submission until the result was committed: what a client waits. Beyond queue and engine it is retries, "
        "inputs, and the store.",
        "s",
        _p99_and_p50("job_total"),
        colours=MODELS,
        logarithmic=True,
        empty="no job ended",
    ),
    Panel(
        "Cold start by phase",
        "Mean of the workers started in the chosen time; some phases overlap. `spawn` and `import` long: switch the "
        "zygote on. `weights`: they are fetched, keep the cache. `load`: the model itself.",
        "s",
        (
            Query(
                f"sort_desc(sum by (phase) (increase(headrace_cold_start_phase_seconds_sum{_MODEL}[$__range]))"
                f" / (sum by (phase) (increase(headrace_cold_start_phase_seconds_count{_MODEL}[$__range])) > 0))",
                "{{phase}}",
            ),
        ),
        "bargauge",
        steps=((None, BLUE), (10, YELLOW), (60, RED)),
        empty="no worker was started",
    ),
)

FAILING: Final = (
    Panel(
        "Jobs that ended, per second",
        "By status. Expired: their `ttl_s` was over before a worker had time for them.",
        "suffix: / s",
        (Query(f"sum by (status) ({_RESULTS}) > 0", "{{status}}"),),
        colours=_STATUSES,
        stacked=True,
        empty="no job ended",
    ),
    Panel(
        "Failures and retries, by code",
        "In the chosen time. A retry is an attempt that failed and was followed by another; a failure is final, and "
        "where it was the attempts that ran out, the message is in the dead letters: `headrace dead ls`.",
        "short",
        (
            Query(
                f"sum by (code) (increase(headrace_results_total{_OTHERWISE}[$__range])) >= 0.5",
                "{{code}}",
            ),
            Query(f"sum by (code) (increase(headrace_retries_total{_MODEL}[$__range])) >= 0.5", "{{code}}, retried"),
            Query("max(headrace_dead_letters) > 0", "dead letters kept"),
        ),
        "bargauge",
        steps=((None, ORANGE),),
        decimals=0,
        empty="nothing failed",
    ),
    Panel(
        "Engines by state",
        "Of all workers. Recovering: the process died and is started again. Unhealthy: it cannot be started, and its "
        "worker takes no jobs of the model. Dashed: workers that ended before they were ready.",
        "short",
        (
            Query(f"sum by (state) (headrace_engine_state{_MODEL})", "{{state}}"),
            Query(
                f"sum(increase(headrace_worker_failed_starts_total{_MODEL}[$__rate_interval]))",
                "failed starts",
                dashed=True,
            ),
        ),
        colours={**_STATES, "failed starts": RED},
        stacked=True,
        decimals=0,
        empty="no worker runs",
    ),
    Panel(
        "Alerts that fire",
        "Of Prometheus' rules. What to do about each: docs/operations.md.",
        "short",
        (Query('max by (alertname, model, severity) (ALERTS{alertstate="firing",model=~"$model|"})'),),
        "table",
        empty="none",
        columns={"alertname": "alert", "model": "model", "severity": "severity"},
    ),
)

COST_AND_MACHINE: Final = (
    Panel(
        "Cost per hour, by model",
        "What a model's workers cost, starting and idle ones too. Without prices in the settings it is 0.",
        "suffix: / h",
        (Query(_COST, "{{model}}"),),
        colours=MODELS,
        empty=_NO_LEADER,
    ),
    Panel(
        "What the workers' time goes to",
        "Much idle: shorten `idle_timeout_s`. Much starting: lengthen it, or keep `min_workers`.",
        "percentunit",
        (Query(f"sum by (kind) ({_TIME}) / ignoring (kind) group_left () (sum({_TIME}) > 0)", "{{kind}}"),),
        colours={"busy": GREEN, "idle": BLUE, "starting": YELLOW},
        stacked=True,
        most=1,
        empty="no worker runs",
    ),
    Panel(
        "Cores, GPUs and storage in use",
        "Cores and GPU memory that workers were given, and what GPUs say of themselves. All cores given while jobs "
        "wait: add a machine. GPU memory used far above given: another program is on it. Storage near 100%: the "
        "broker refuses jobs, see 'Full, failing, gone' in docs/operations.md.",
        "percentunit",
        (
            Query("1 - max by (slot) (headrace_slot_free_cores / headrace_slot_cores)", "cores given"),
            Query(
                "1 - max by (slot) (headrace_slot_free_memory_bytes / headrace_slot_memory_bytes)",
                "{{slot}} memory given",
                dashed=True,
            ),
            Query("max by (gpu) (headrace_gpu_utilization_ratio)", "{{gpu}} busy"),
            Query(
                "max by (gpu) (headrace_gpu_memory_used_bytes) / max by (gpu) (headrace_gpu_memory_total_bytes)",
                "{{gpu}} memory used",
            ),
            Query("max(headrace_broker_storage_bytes / headrace_broker_storage_limit_bytes)", "broker's storage"),
            Query("max by (stream) (headrace_stream_bytes / headrace_stream_limit_bytes) > 0.5", "stream {{stream}}"),
        ),
        most=1,
        empty=_NO_LEADER,
    ),
    Panel(
        "Memory of processes",
        "Resident, of all workers of a job name together; the zygote is the warm parent of workers. What only rises "
        "leaks: `recycle` in the model's file ends a worker after so many jobs.",
        "bytes",
        (
            Query('sum by (job) (process_resident_memory_bytes{job=~"headrace.*"})', "{{job}}"),
            Query("max(headrace_zygote_memory_bytes)", "zygote"),
        ),
        colours={"headrace-worker": BLUE, "headrace-scaler": YELLOW, "zygote": GREY},
        empty="nothing runs",
    ),
)

ROWS: Final[tuple[tuple[int, tuple[Panel, ...]], ...]] = (
    (3, AT_A_GLANCE),
    (6, WAITING),
    (6, SLOW),
    (6, FAILING),
    (5, COST_AND_MACHINE),
)
"""Height and panels of each row, which share its width. 26 in all: one screen of 1080 pixels."""
