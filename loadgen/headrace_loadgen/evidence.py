"""The evidence of one run: a folder of journals, and all of them in memory."""

from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from headrace_contracts.codec import decode, encoding_of
from headrace_contracts.errors import UndecodableMessage
from headrace_contracts.result import Result
from headrace_loadgen.journal import read_journal
from headrace_loadgen.records import (
    AnyClientRecord,
    AttemptsSeen,
    Fault,
    Final,
    Plan,
    Sample,
    StoredMessage,
)
from headrace_workers.engines.execution_journal import Entry

PLAN = "plan.json"
CLIENT = "client.jsonl"
ENGINE = "engine.jsonl"
FAULTS = "faults.jsonl"
SEEN = "results-as-they-came.jsonl"
RESULTS = "results-at-the-end.jsonl"
ATTEMPTS = "attempts-as-they-came.jsonl"
SAMPLES = "samples.jsonl"
FINAL = "final.json"


@dataclass(frozen=True)
class Evidence:
    """Everything the checker may look at."""

    plan: Plan
    client: list[AnyClientRecord]
    engine: list[Entry]
    faults: list[Fault]
    seen: list[StoredMessage]
    """Results, each written down once, soon after it was stored."""
    results: list[StoredMessage]
    """The whole stream of results, read again at the end."""
    final: Final
    attempts: list[AttemptsSeen] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)


def load_evidence(folder: Path) -> Evidence:
    """Read a run's folder."""
    return Evidence(
        plan=msgspec.json.decode((folder / PLAN).read_bytes(), type=Plan),
        client=read_journal(folder / CLIENT, AnyClientRecord),  # type: ignore[arg-type]  # a union is no type[T] to mypy
        engine=read_journal(folder / ENGINE, Entry),
        faults=read_journal(folder / FAULTS, Fault),
        seen=read_journal(folder / SEEN, StoredMessage),
        results=read_journal(folder / RESULTS, StoredMessage),
        final=msgspec.json.decode((folder / FINAL).read_bytes(), type=Final),
        attempts=read_journal(folder / ATTEMPTS, AttemptsSeen),
        samples=read_journal(folder / SAMPLES, Sample),
    )


def decode_result(message: StoredMessage) -> Result | None:
    """The result in a message; None if it is none."""
    try:
        return decode(message.data, Result, encoding_of(message.headers, message.data))
    except UndecodableMessage:
        return None
