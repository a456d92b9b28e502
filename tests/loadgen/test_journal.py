"""Journals: whole lines only, and everything that was written comes back."""

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from headrace_contracts.tasks.synthetic import Behaviour, SyntheticInput
from headrace_loadgen.journal import Journal, parse_journal, read_journal
from headrace_loadgen.records import (
    Accepted,
    AnyClientRecord,
    BacklogRead,
    Fault,
    FaultKind,
    StoredMessage,
    Submitting,
)


def test_records_come_back(tmp_path: Path) -> None:
    path = tmp_path / "client.jsonl"
    written: list[AnyClientRecord] = [
        Submitting(1.0, "a", "m", SyntheticInput(Behaviour.CRASH, seed=3), 2.5),
        Submitting(1.0, "b", "m", None),
        Accepted(2.0, "a", duplicate=True),
        BacklogRead(3.0, "", "m", 4, 2.9),
    ]
    with Journal[AnyClientRecord](path) as journal:
        for record in written:
            journal.write(record)
    assert read_journal(path, AnyClientRecord) == written  # type: ignore[arg-type]


def test_bytes_and_times_come_back(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    message = StoredMessage(1.0, 7, "results.a.b.c", {"X": "y"}, b"\x00\xff", datetime(2026, 1, 1, tzinfo=UTC))
    with Journal[StoredMessage](path) as journal:
        journal.write(message)
    assert read_journal(path, StoredMessage) == [message]


def test_a_line_that_was_never_finished_is_left_out() -> None:
    fault = Fault(FaultKind.BROKER_KILL, "b", 1.0, 2.0, True, "seen")
    whole = msgspec.json.encode(fault) + b"\n"
    for cut in range(len(whole)):
        assert parse_journal(whole + whole[:cut], Fault) == [fault]


def test_a_damaged_line_is_an_error() -> None:
    with pytest.raises(msgspec.DecodeError):
        parse_journal(b"{\n", Fault)


def test_no_file_is_no_record(tmp_path: Path) -> None:
    assert read_journal(tmp_path / "none", Fault) == []


WRITER = """
import sys
from pathlib import Path
from headrace_loadgen.journal import Journal
from headrace_loadgen.records import Accepted
with Journal[Accepted](Path(sys.argv[1])) as journal:
    for number in range(500):
        journal.write(Accepted(float(number), sys.argv[2]))
"""


def test_processes_do_not_tear_each_others_lines(tmp_path: Path) -> None:
    path = tmp_path / "shared.jsonl"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(n)]) for n in range(3)]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    records = read_journal(path, Accepted)
    for n in range(3):
        assert [record.at_s for record in records if record.job_id == str(n)] == [float(m) for m in range(500)]
