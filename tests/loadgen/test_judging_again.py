"""`python -m headrace_loadgen check`: evidence that was kept is judged once more, without any server."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
from click.testing import CliRunner
from histories import Run, good_run

from headrace_loadgen import evidence
from headrace_loadgen.check import check
from headrace_loadgen.cli import main
from headrace_loadgen.evidence import load_evidence
from headrace_loadgen.journal import Journal
from headrace_loadgen.records import Fault, FaultKind
from headrace_loadgen.report import write_markdown


def kept(run: Run, folder: Path) -> Path:
    found = run.evidence()
    (folder / evidence.PLAN).write_bytes(msgspec.json.encode(found.plan))
    (folder / evidence.FINAL).write_bytes(msgspec.json.encode(found.final))
    files: dict[str, Sequence[object]] = {
        evidence.CLIENT: found.client,
        evidence.ENGINE: found.engine,
        evidence.FAULTS: found.faults,
        evidence.SEEN: found.seen,
        evidence.RESULTS: found.results,
    }
    for name, records in files.items():
        with Journal[object](folder / name) as journal:
            for record in records:
                journal.write(record)
    return folder


def test_evidence_comes_back_from_its_folder(tmp_path: Path) -> None:
    run = good_run()
    run.rest["faults"] = [Fault(FaultKind.WORKER_KILL, "w", 1.0, 1.1, True, "SIGKILL", (7,))]
    assert load_evidence(kept(run, tmp_path)) == run.evidence()


def test_a_good_run_is_good_again(tmp_path: Path) -> None:
    ran = CliRunner().invoke(main, ["check", str(kept(good_run(), tmp_path))])
    assert ran.exit_code == 0, ran.output
    assert "every invariant holds" in ran.output


def test_a_violation_is_named_with_its_job_and_the_exit_status_says_so(tmp_path: Path) -> None:
    run = good_run()
    run.asked("lost-job")
    ran = CliRunner().invoke(main, ["check", str(kept(run, tmp_path))])
    assert ran.exit_code == 1
    assert "VIOLATED conservation: lost-job: 0 results" in ran.output


def test_the_page_has_every_table_and_every_violation(tmp_path: Path) -> None:
    run = good_run()
    run.asked("lost-job")
    path = tmp_path / "pages" / "chaos.md"
    write_markdown(run.evidence(), check(run.evidence()), path, "Chaos", "make chaos")
    text = path.read_text()
    for heading in ("# Chaos", "## Jobs", "## Faults", "## Invariants", "## Violations"):
        assert f"{heading}\n" in text
    assert "- **conservation** `lost-job`: 0 results" in text
