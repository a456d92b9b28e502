"""`make chaos` as a user runs it: a short run, and one that is stopped by Ctrl-C and leaves nothing behind."""

import asyncio
import signal
import sys
from pathlib import Path

import psutil
import pytest

from headrace_loadgen.evidence import load_evidence

pytestmark = pytest.mark.slow

DEADLINE_S = 240.0


async def start(folder: Path, *options: str) -> asyncio.subprocess.Process:
    command = [sys.executable, "-m", "headrace_loadgen", "chaos", "--dir", str(folder), "--workers", "2", *options]
    return await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )


def left_behind(folder: Path) -> list[list[str]]:
    """Processes that have to do with a folder."""
    found = []
    for process in psutil.process_iter():
        try:
            command, environment = process.cmdline(), process.environ()
        except psutil.Error:
            continue
        if any(str(folder) in word for word in (*command, *environment.values())):
            found.append(command)
    return found


async def test_a_short_run_keeps_every_promise(tmp_path: Path) -> None:
    folder, page = tmp_path / "run", tmp_path / "page.md"
    chaos = await start(folder, "--seed", "5", "--minutes", "0.25", "--jobs", "300", "--markdown", str(page))
    async with asyncio.timeout(DEADLINE_S):
        output = (await chaos.communicate())[0].decode()
    assert chaos.returncode == 0, output
    assert "every invariant holds" in output
    assert str(folder) in output.replace("\n", "")
    found = load_evidence(folder)
    assert len(found.results) == 300
    assert len(found.faults) > 1
    assert "## Invariants" in page.read_text()
    assert left_behind(folder) == []


async def test_ctrl_c_stops_it_and_leaves_no_process(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    chaos = await start(folder, "--seed", "6", "--minutes", "5", "--jobs", "3000")
    async with asyncio.timeout(DEADLINE_S):
        while not (folder / "client.jsonl").exists() or not (folder / "client.jsonl").stat().st_size:
            await asyncio.sleep(0.05)
        assert left_behind(folder) != []
        chaos.send_signal(signal.SIGINT)
        output = (await chaos.communicate())[0].decode()
    assert chaos.returncode == 130, output
    assert "stopped" in output
    assert "Traceback" not in output
    assert left_behind(folder) == []
