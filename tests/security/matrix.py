"""What each role may do, as a table of attempts; `python tests/security/matrix.py` writes it into the docs.

An attempt is one publish or subscription. Roles of tenants speak of tenant `acme`; `stranger` is untrusted and does the
same as itself. The subjects are spelled out here, so that a slip in the code that makes them shows.
"""

from pathlib import Path

import msgspec

PAGE = Path(__file__).parents[2] / "docs" / "security.md"
BEGIN, END = "<!-- matrix: begin -->", "<!-- matrix: end -->"

WHO = ("producer", "consumer", "producer, untrusted", "consumer, untrusted", "worker", "scaler", "admin")
PRODUCER, CONSUMER, STRANGER, STRANGER_CONSUMER, WORKER, SCALER, ADMIN = WHO


class Attempt(msgspec.Struct, frozen=True):
    """`verb` is `publish` or `subscribe`; `<own>` in a subject stands for the tenant that tries."""

    what: str
    verb: str
    subjects: tuple[str, ...]
    allowed: tuple[str, ...]


def publish(what: str, *subjects: str, allowed: tuple[str, ...] = ()) -> Attempt:
    return Attempt(what, "publish", subjects, (*allowed, ADMIN))


def subscribe(what: str, *subjects: str, allowed: tuple[str, ...] = ()) -> Attempt:
    return Attempt(what, "subscribe", subjects, (*allowed, ADMIN))


API = "$JS.API"
TENANTS = (PRODUCER, CONSUMER, STRANGER, STRANGER_CONSUMER)

ATTEMPTS = (
    publish("submit a job of its tenant", "jobs.<own>.m.normal", "jobs.<own>.m.high", allowed=(PRODUCER, WORKER)),
    publish("submit a job of another tenant", "jobs.other.m.normal", "jobs.*.m.normal", allowed=(WORKER,)),
    publish("submit into its ingress stream", "ingress.<own>.m.normal", "ingress.<own>.m.cancel", allowed=(STRANGER,)),
    publish("submit into another's ingress stream", "ingress.other.m.normal"),
    subscribe("listen to jobs", "jobs.<own>.>", "jobs.>", "ingress.>"),
    publish(
        "read a result of its tenant",
        f"{API}.DIRECT.GET.RESULTS.results.<own>.m.j",
        f"{API}.DIRECT.GET.RESULTS.results.<own>.*.j",
        allowed=(*TENANTS, WORKER),
    ),
    publish(
        "read a result of another tenant",
        f"{API}.DIRECT.GET.RESULTS.results.other.m.j",
        f"{API}.DIRECT.GET.RESULTS.results.*.m.j",
        allowed=(WORKER,),
    ),
    publish(
        "read results by sequence", f"{API}.DIRECT.GET.RESULTS", f"{API}.STREAM.MSG.GET.RESULTS", allowed=(WORKER,)
    ),
    subscribe("listen to results of its tenant", "results.<own>.>", "results.<own>.m.j", allowed=TENANTS),
    subscribe("listen to results of another tenant", "results.other.>", "results.>", "results.*.m.j"),
    publish("end or cancel a job of its tenant", "results.<own>.m.j", allowed=(PRODUCER, WORKER)),
    publish("end or cancel a job of another tenant", "results.other.m.j", "results.*.m.j", allowed=(WORKER,)),
    publish("stop a running job of its tenant", "control.cancel.<own>.m.j", allowed=(PRODUCER, WORKER)),
    publish("stop a running job of another tenant", "control.cancel.other.m.j", allowed=(WORKER,)),
    publish("have a worker drain", "control.drain.w", allowed=(SCALER,)),
    subscribe("listen to drains", "control.drain.w", allowed=(WORKER,)),
    subscribe("listen to cancels", "control.cancel.*.*.*", allowed=(WORKER,)),
    publish(
        "follow events of its tenant",
        f"{API}.CONSUMER.CREATE.EVENTS.n.events.<own>.m.j.>",
        allowed=(PRODUCER, CONSUMER),
    ),
    subscribe("listen to events of its tenant", "events.<own>.m.j.>", allowed=TENANTS),
    publish(
        "follow events of another tenant",
        f"{API}.CONSUMER.CREATE.EVENTS.n.events.other.m.j.>",
        f"{API}.CONSUMER.CREATE.EVENTS.n.events.>",
        f"{API}.CONSUMER.CREATE.EVENTS.n",
        f"{API}.CONSUMER.CREATE.EVENTS",
        f"{API}.DIRECT.GET.EVENTS",
    ),
    publish(
        "see who began a job of its tenant",
        f"{API}.DIRECT.GET.EVENTS.events.<own>.*.j.started",
        allowed=(*TENANTS, WORKER),
    ),
    publish(
        "see who began a job of another tenant", f"{API}.DIRECT.GET.EVENTS.events.other.*.j.started", allowed=(WORKER,)
    ),
    publish("read another event of another tenant", f"{API}.DIRECT.GET.EVENTS.events.other.*.j.chunk"),
    subscribe("listen to events of another tenant", "events.other.>", "events.>"),
    publish(
        "read log lines of its tenant's jobs",
        f"{API}.CONSUMER.CREATE.LOGS.n.logs.<own>.m.j",
        allowed=(PRODUCER, CONSUMER),
    ),
    publish("read the last log line of a job", f"{API}.DIRECT.GET.LOGS.logs.<own>.*.j", allowed=TENANTS),
    subscribe("listen to log lines of its tenant's jobs", "logs.<own>.m.j", allowed=TENANTS),
    publish(
        "read log lines of another tenant",
        f"{API}.CONSUMER.CREATE.LOGS.n.logs.other.m.j",
        f"{API}.CONSUMER.CREATE.LOGS.n.logs.>",
        f"{API}.CONSUMER.CREATE.LOGS.n.logs.*.m.j",
        f"{API}.CONSUMER.CREATE.LOGS.n",
        f"{API}.CONSUMER.CREATE.LOGS",
        f"{API}.CONSUMER.MSG.NEXT.LOGS.n",
        f"{API}.DIRECT.GET.LOGS",
        f"{API}.DIRECT.GET.LOGS.logs.other.m.j",
        f"{API}.STREAM.MSG.GET.LOGS",
    ),
    subscribe("listen to log lines of another tenant", "logs.other.>", "logs.>", "logs.*.m.j"),
    publish("log a line about a job", "logs.<own>.m.j", "logs.other.m.j", allowed=(WORKER,)),
    publish("publish an event", "events.<own>.m.j.chunk", "events.other.m.j.chunk", allowed=(WORKER,)),
    subscribe("listen to everything", ">", "*", "*.>"),
    subscribe("listen to another role's inbox", "_INBOX.>", "_INBOX_producer_other.>", "_INBOX_admin.>"),
    publish("publish into another role's inbox", "_INBOX_worker.x", "_INBOX_producer_other.x"),
    publish("draw jobs", f"{API}.CONSUMER.MSG.NEXT.JOBS.m-high", allowed=(WORKER,)),
    publish("draw from an ingress stream", f"{API}.CONSUMER.MSG.NEXT.INGRESS_stranger.forward", allowed=(WORKER,)),
    publish("draw from another consumer", f"{API}.CONSUMER.MSG.NEXT.RESULTS.c", f"{API}.CONSUMER.MSG.NEXT.EVENTS.c"),
    publish("answer for a delivered job", "$JS.ACK.JOBS.m-high.1.1.1.1.0", allowed=(WORKER,)),
    publish("answer for another delivery", "$JS.ACK.RESULTS.c.1.1.1.1.0", "$JS.ACK.KV_MODELS.c.1.1.1.1.0"),
    publish("read waiting jobs", f"{API}.DIRECT.GET.JOBS", allowed=(WORKER, SCALER)),
    subscribe("hear of arrivals", "arrivals.*.*", allowed=(SCALER,)),
    publish(
        "read waiting jobs of another tenant", f"{API}.DIRECT.GET.JOBS.jobs.other.m.high", f"{API}.STREAM.MSG.GET.JOBS"
    ),
    publish("remove a message from JOBS", f"{API}.STREAM.MSG.DELETE.JOBS", allowed=(WORKER,)),
    publish(
        "remove a message from another stream",
        *(f"{API}.STREAM.MSG.DELETE.{stream}" for stream in ("RESULTS", "EVENTS", "LOGS", "DEAD", "KV_MODELS")),
    ),
    publish(
        "purge, change or delete a stream",
        *(f"{API}.STREAM.{verb}.{name}" for verb in ("PURGE", "UPDATE", "DELETE") for name in ("JOBS", "RESULTS")),
        f"{API}.STREAM.DELETE.KV_MODELS",
        f"{API}.STREAM.PURGE.INGRESS_stranger",
    ),
    publish(
        "create a stream", f"{API}.STREAM.CREATE.JOBS", f"{API}.STREAM.CREATE.SPY", f"{API}.STREAM.CREATE.KV_MODELS"
    ),
    publish(
        "restore what a restart loses",
        f"{API}.STREAM.CREATE.EVENTS",
        f"{API}.STREAM.CREATE.LOGS",
        f"{API}.STREAM.CREATE.KV_WORKERS",
        allowed=(WORKER,),
    ),
    publish("snapshot or restore a stream", f"{API}.STREAM.SNAPSHOT.JOBS", f"{API}.STREAM.RESTORE.JOBS"),
    publish("restore a consumer of JOBS", f"{API}.CONSUMER.CREATE.JOBS.m-high.jobs.*.m.high", allowed=(WORKER,)),
    publish(
        "change or delete a consumer of JOBS",
        f"{API}.CONSUMER.CREATE.JOBS",
        f"{API}.CONSUMER.CREATE.JOBS.c",
        f"{API}.CONSUMER.DURABLE.CREATE.JOBS.c",
        f"{API}.CONSUMER.DELETE.JOBS.m-high",
        f"{API}.CONSUMER.PAUSE.JOBS.m-high",
        f"{API}.CONSUMER.UNPIN.JOBS.m-high",
    ),
    publish("create a consumer of RESULTS", f"{API}.CONSUMER.CREATE.RESULTS.c.results.<own>.>"),
    publish("see the backlog", f"{API}.CONSUMER.INFO.JOBS.m-high", f"{API}.STREAM.INFO.JOBS", allowed=(WORKER, SCALER)),
    publish("see all backlogs", f"{API}.CONSUMER.LIST.JOBS", allowed=(WORKER, SCALER)),
    publish("see the account", f"{API}.INFO", allowed=(WORKER, SCALER)),
    publish(
        "see how full streams are",
        f"{API}.STREAM.INFO.DEAD",
        f"{API}.STREAM.INFO.KV_ATTEMPTS",
        allowed=(WORKER, SCALER),
    ),
    publish("see all streams", f"{API}.STREAM.LIST"),
    publish(
        "read models",
        f"{API}.STREAM.INFO.KV_MODELS",
        f"{API}.DIRECT.GET.KV_MODELS.$KV.MODELS.m",
        allowed=(*TENANTS, WORKER, SCALER),
    ),
    publish("write models", "$KV.MODELS.m"),
    publish("read heartbeats", f"{API}.DIRECT.GET.KV_WORKERS.$KV.WORKERS.w", allowed=(WORKER, SCALER)),
    publish("read all heartbeats", f"{API}.DIRECT.GET.KV_WORKERS", allowed=(WORKER, SCALER)),
    publish("read all models", f"{API}.DIRECT.GET.KV_MODELS", allowed=(WORKER, SCALER)),
    publish("write heartbeats", "$KV.WORKERS.w", allowed=(WORKER,)),
    publish("read attempts", f"{API}.DIRECT.GET.KV_ATTEMPTS.$KV.ATTEMPTS.<own>.m.j", allowed=(WORKER,)),
    publish("write attempts", "$KV.ATTEMPTS.<own>.m.j", allowed=(WORKER,)),
    publish("remove records of attempts", f"{API}.STREAM.PURGE.KV_ATTEMPTS", allowed=(WORKER,)),
    publish("take the lease to reap", "$KV.LEASES.reaper", allowed=(WORKER,)),
    publish("take the lease to scale", "$KV.LEASES.scaler", allowed=(SCALER,)),
    publish("raise an alert", "alerts.backlog.m", allowed=(SCALER,)),
    publish("see of which models there are alerts", f"{API}.STREAM.INFO.ALERTS", allowed=(WORKER, SCALER)),
    publish(
        "read past alerts",
        f"{API}.STREAM.MSG.GET.ALERTS",
        f"{API}.DIRECT.GET.ALERTS",
        f"{API}.DIRECT.GET.ALERTS.alerts.decision.m",
        allowed=(SCALER,),
    ),
    subscribe("listen to alerts", "alerts.>", allowed=(SCALER,)),
    publish("write accounts", "$KV.ACCOUNTS.m.w.2026112503", allowed=(WORKER,)),
    publish("bury a job", "dead.<own>.m.j", allowed=(WORKER,)),
    publish("read what was buried", f"{API}.DIRECT.GET.DEAD", f"{API}.DIRECT.GET.DEAD.dead.<own>.m.j"),
    subscribe("listen to what is buried", "dead.<own>.>", "dead.>"),
    publish(
        "read the broker's object store, all tenants' files",
        f"{API}.DIRECT.GET.OBJ_headrace",
        f"{API}.STREAM.MSG.GET.OBJ_headrace",
        allowed=(PRODUCER, CONSUMER, WORKER),
    ),
    publish(
        "write to the broker's object store", "$O.headrace.C.n", "$O.headrace.M.bmFtZQ==", allowed=(PRODUCER, WORKER)
    ),
    publish(
        "remove from the broker's object store",
        f"{API}.STREAM.PURGE.OBJ_headrace",
        f"{API}.STREAM.MSG.DELETE.OBJ_headrace",
        allowed=(WORKER,),
    ),
    publish(
        "remove the broker's object store", f"{API}.STREAM.DELETE.OBJ_headrace", f"{API}.STREAM.UPDATE.OBJ_headrace"
    ),
    publish("see how the server syncs", "$SYS.REQ.SERVER.PING.JSZ", allowed=(WORKER, SCALER)),
    publish(
        "speak to the server itself", "$SYS.REQ.SERVER.PING", "$SYS.REQ.ACCOUNT.PING.CONNZ", "$JS.EVENT.ADVISORY.x"
    ),
    subscribe("listen to the server itself", "$JS.EVENT.ADVISORY.>", "$JS.API.>", "$JS.ACK.>"),
)


def table() -> str:
    """The matrix in Markdown."""
    lines = [f"| may | {' | '.join(WHO)} |", f"| --- |{' --- |' * len(WHO)}"]
    for attempt in ATTEMPTS:
        marks = " | ".join("yes" if who in attempt.allowed else "no" for who in WHO)
        lines.append(f"| {attempt.what} | {marks} |")
    return "\n".join(lines)


def with_table(page: str) -> str:
    """The page with the table of now between its marks."""
    before, rest = page.split(BEGIN, 1)
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{rest.split(END, 1)[1]}"


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
