"""Invariants of what is around the jobs: queues that end empty, workers that do not grow, faults that were real."""

from collections import defaultdict
from collections.abc import Iterator

from headrace_loadgen.check.history import History
from headrace_loadgen.check.verdict import Finding, Violation
from headrace_loadgen.records import Sample

# Eight uploads at once hold a part of 16 MiB each, and the allocator keeps what they gave back.
MAX_GROWTH_BYTES = 160 << 20
MAX_GROWTH_FILES = 24
# Below this there is no trend to speak of.
MIN_SAMPLES = 40


def drained(history: History) -> Iterator[Finding]:
    """When everything works again, every job ends, and the queue is empty."""
    final = history.evidence.final
    if not final.drained:
        yield Violation("", f"not drained {final.drain_s:.0f} s after the last fault")
    for message in final.jobs_left:
        yield Violation("", f"sequence {message.sequence} is left in JOBS at {message.subject}")
    yield None


def nothing_replaced(history: History) -> Iterator[Finding]:
    """No message of RESULTS was ever deleted or replaced: the server's own count."""
    state = history.evidence.final.results_state
    if state.deleted or (state.messages and state.first_sequence != 1):
        yield Violation(
            "", f"{state.deleted} deleted, first sequence {state.first_sequence}, {state.messages} messages left"
        )
    if state.messages and state.messages != state.last_sequence - state.first_sequence + 1 - state.deleted:
        yield Violation("", f"{state.messages} messages in sequences {state.first_sequence} to {state.last_sequence}")
    yield None


def workers_flat(history: History) -> Iterator[Finding]:
    """A worker's supervisor grows neither in memory nor in open files."""
    by_pid: dict[int, list[Sample]] = defaultdict(list)
    for sample in history.evidence.samples:
        by_pid[sample.pid].append(sample)
    for pid, of_worker in by_pid.items():
        if len(of_worker) < MIN_SAMPLES:
            continue
        quarter = len(of_worker) // 4
        early, late = of_worker[quarter : 2 * quarter], of_worker[-quarter:]
        grown_bytes = _median([s.rss_bytes for s in late]) - _median([s.rss_bytes for s in early])
        grown_files = _median([s.open_files for s in late]) - _median([s.open_files for s in early])
        if grown_bytes > MAX_GROWTH_BYTES:
            yield Violation("", f"worker {pid} grew by {grown_bytes >> 20} MiB")
        elif grown_files > MAX_GROWTH_FILES:
            yield Violation("", f"worker {pid} has {grown_files} more files open")
        else:
            yield None


def faults_happened(history: History) -> Iterator[Finding]:
    """Every fault that was injected really happened."""
    for fault in history.evidence.faults:
        yield None if fault.happened else Violation("", f"{fault.kind} of {fault.target}: {fault.proof}")


def workers_end_well(history: History) -> Iterator[Finding]:
    """A worker that serves ends when it is told to, and only then: by itself, with exit status 0."""
    final = history.evidence.final
    for how in final.worker_exits:
        yield None if how == "exit status 0" else Violation("", f"a worker ended with {how}")
    for how in final.ended_by_themselves:
        # SIGKILL has no other source here than a fault.
        yield None if how.endswith("SIGKILL") else Violation("", f"nobody had touched it: {how}")


def _median(values: list[int]) -> int:
    return sorted(values)[len(values) // 2]
