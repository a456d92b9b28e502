"""Checks of what Headrace keeps on the broker: streams, consumers, blobs, rights, workers. One function each."""

from collections.abc import Iterator

from headrace_contracts.heartbeat import EngineState
from headrace_contracts.names import Stream
from headrace_storage.doctor.finding import Finding, Level
from headrace_storage.doctor.observation import Observation, Sight
from headrace_storage.topology import ACK_WAIT_S

NEAR_FULL = 0.8
FULL = 0.99

_NOT_SEEN = "it cannot be looked at: these credentials may not, or nobody answered"
_OPERATOR = "try an operator's credentials"


def check_streams(seen: Observation) -> Iterator[Finding]:
    """Every stream and bucket is there, with our settings; all that differs is named."""
    for stream in seen.streams:
        check = f"stream {stream.name}"
        if stream.sight is Sight.DENIED:
            yield Finding(check, Level.UNKNOWN, _NOT_SEEN, _OPERATOR)
        elif stream.sight is Sight.MISSING:
            yield Finding(
                check, Level.FAIL, "there is none", "`headrace models add FILE.toml`, or a worker's start, creates it"
            )
        elif stream.differences:
            yield Finding(
                check,
                Level.FAIL,
                "; ".join(stream.differences),
                "change it to these values, or remove it when it is empty and let Headrace create it",
            )
        else:
            yield Finding(check, Level.OK, "as it should be")


def check_room(seen: Observation) -> Iterator[Finding]:
    """No stream is near its limits. One that drops its oldest is full by design."""
    for stream in seen.streams:
        if stream.sight is not Sight.THERE or stream.name in (Stream.EVENTS, Stream.LOGS):
            continue
        used = stream.used_bytes / stream.max_bytes if stream.max_bytes > 0 else 0.0
        if used > NEAR_FULL:
            yield Finding(
                f"room in {stream.name}",
                Level.FAIL if used >= FULL else Level.WARNING,
                f"{used:.0%} of its {stream.max_bytes} bytes are in use",
                _HOW_TO_MAKE_ROOM.get(stream.name, "remove what is not needed, or raise its max_bytes"),
            )
        messages = stream.fullest_messages / stream.max_messages_per_subject if stream.fullest_subject else 0.0
        if messages > NEAR_FULL:
            yield Finding(
                f"room in {stream.fullest_subject}",
                Level.FAIL if messages >= FULL else Level.WARNING,
                f"{stream.fullest_messages} of at most {stream.max_messages_per_subject} jobs wait or run",
                "start more workers for this model, or have this tenant submit less",
            )


_HOW_TO_MAKE_ROOM = {
    "JOBS": "start more workers, or submit less: a full queue refuses jobs",
    "DEAD": "`headrace dead ls`, then redrive or drop: workers cannot end broken jobs while it is full",
    "RESULTS": "results go after 7 days; until there is room workers hold on to finished jobs: raise its max_bytes",
}


def check_consumers(seen: Observation) -> Iterator[Finding]:
    """Every model of the registry has its consumers, and they deliver a job until it is settled."""
    if seen.models is None:
        yield Finding("models", Level.UNKNOWN, f"the registry cannot be read: {seen.models_unseen}", _OPERATOR)
        return
    for model in seen.models:
        lanes = [consumer for consumer in seen.consumers if consumer.model == model]
        problems = [consumer for consumer in lanes if consumer.sight is not Sight.THERE or consumer.differences]
        for consumer in problems:
            check = f"consumer {consumer.name}"
            if consumer.sight is Sight.DENIED:
                yield Finding(check, Level.UNKNOWN, _NOT_SEEN, _OPERATOR)
            elif consumer.sight is Sight.MISSING:
                yield Finding(
                    check, Level.FAIL, "there is none: its jobs wait for ever", "`headrace models add` it again"
                )
            else:
                yield Finding(
                    check,
                    Level.FAIL,
                    "; ".join(consumer.differences),
                    "change it to these values: jobs are lost or repeated otherwise",
                )
        leases = sorted({consumer.ack_wait_s for consumer in lanes if consumer.sight is Sight.THERE})
        if leases and leases != [ACK_WAIT_S]:
            yield Finding(
                f"lease of {model}",
                Level.WARNING,
                f"ack_wait is {' and '.join(f'{lease:g} s' for lease in leases)}, not {ACK_WAIT_S:g} s",
                "fine if it was meant: shorter finds dead workers sooner, and runs jobs twice after shorter pauses",
            )
        if not problems:
            yield Finding(f"consumers of {model}", Level.OK, "as they should be")


def check_workers(seen: Observation) -> Iterator[Finding]:
    """Somebody serves every model."""
    for model in seen.models or ():
        check = f"workers of {model}"
        states = [state for name, state in seen.engines if name == model]
        waiting = sum(consumer.waiting for consumer in seen.consumers if consumer.model == model)
        waits = f", and {waiting} jobs wait" if waiting else ""
        if not states:
            yield Finding(check, Level.WARNING, f"none is alive{waits}", f"`headrace worker --model {model}`")
        elif all(state is EngineState.UNHEALTHY for state in states):
            yield Finding(
                check, Level.FAIL, f"the engine of none of {len(states)} starts{waits}", "`headrace status` says why"
            )
        else:
            ready = states.count(EngineState.READY)
            yield Finding(check, Level.OK, f"{len(states)} alive, {ready} ready{waits}")


def check_blobs(seen: Observation) -> Iterator[Finding]:
    """Files can be stored and read."""
    if seen.blobs_failure is not None:
        yield Finding(
            "object store",
            Level.FAIL,
            f"{seen.blobs_place}: {seen.blobs_failure}",
            "check S3_ENDPOINT_URL and its credentials, or JetStream's room: jobs with files cannot run",
        )
    elif not seen.blobs_place:
        yield Finding(
            "object store",
            Level.WARNING,
            "these credentials may not use the one in JetStream",
            "fine unless they are for workers, or for clients that send files",
        )
    else:
        yield Finding("object store", Level.OK, f"{seen.blobs_place}: put, stat, get and delete of a probe")


def check_rights(seen: Observation) -> Iterator[Finding]:
    """What these credentials may not do; for most roles that is as it should be."""
    if not seen.denials:
        yield Finding("rights", Level.OK, "all that was tried is allowed")
    for denial in seen.denials:
        yield Finding(
            "rights",
            Level.WARNING,
            f"these credentials may not {denial.action}",
            f"fine unless they are for {denial.needed_by}",
        )
