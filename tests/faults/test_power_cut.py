"""A power cut: what reached the disk is all there is. Receipts are kept where the broker syncs, and only there.

The store lies on a file system in a file. A copy of that file, while the server is frozen, has what a disk would have.
"""

import asyncio
import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from headrace_contracts import codec
from headrace_contracts.codec import Encoding
from headrace_contracts.job import JobBody
from headrace_contracts.names import Lane
from headrace_contracts.settings import NatsSettings
from headrace_loadgen.nemesis.processes import stop_for
from headrace_local.nats_server import NatsServer
from headrace_storage.connection import Connection
from headrace_storage.jobs import submit_job
from headrace_storage.topology import ensure_topology

pytestmark = pytest.mark.slow

JOBS = 300
IMAGE_BYTES = 300 << 20


@contextlib.contextmanager
def mounted(image: Path, at: Path) -> Iterator[Path]:
    at.mkdir(exist_ok=True)
    mounting = subprocess.run(["mount", "-o", "loop", image, at], capture_output=True, text=True)
    if mounting.returncode:
        pytest.skip(f"NOT TESTED: a power cut needs the right to mount a file system: {mounting.stderr.strip()}")
    try:
        yield at
    finally:
        subprocess.run(["umount", at], check=True)


def new_image(path: Path) -> Path:
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("NOT TESTED: a power cut needs mkfs.ext4 (Debian and Ubuntu: apt install e2fsprogs)")
    with path.open("wb") as file:
        file.truncate(IMAGE_BYTES)
    subprocess.run(["mkfs.ext4", "-q", path], check=True)
    return path


async def submit(connection: Connection, job_id: str) -> None:
    body = JobBody(input=msgspec.Raw(codec.encode({"echo": job_id}, Encoding.JSON)))
    await submit_job(connection, "acme", "m", Lane.NORMAL, body, Encoding.JSON, job_id)


async def with_receipt_then_power_cut(folder: Path, sync_always: bool) -> int:
    """Submit, cut the power, start again; jobs that are there then, or 0 if not even the stream is."""
    image, copy = new_image(folder / "disk"), folder / "disk-after"
    with mounted(image, folder / "before") as disk:
        server = NatsServer(disk / "nats", sync_always=sync_always)
        async with server, Connection(NatsSettings(url=server.url)) as connection:
            await ensure_topology(connection)
            await asyncio.gather(*(submit(connection, f"job-{n}") for n in range(JOBS)))
            assert server.pid is not None
            # What the kernel has not written yet is not in the copy, as it would not be on a disk.
            freezing = asyncio.create_task(stop_for(server.pid, 5.0))
            await asyncio.sleep(0.2)
            await asyncio.to_thread(shutil.copyfile, image, copy)
            assert await freezing == "T"
    with mounted(copy, folder / "after") as disk:
        async with (
            NatsServer(disk / "nats", sync_always=sync_always) as server,
            Connection(NatsSettings(url=server.url)) as connection,
        ):
            await ensure_topology(connection)
            return int((await connection.js.stream_info("JOBS")).state.messages)


async def test_every_job_with_a_receipt_survives(tmp_path: Path) -> None:
    assert await with_receipt_then_power_cut(tmp_path, sync_always=True) == JOBS


async def test_without_syncing_jobs_are_lost(tmp_path: Path) -> None:
    """Else the test above would prove nothing."""
    assert await with_receipt_then_power_cut(tmp_path, sync_always=False) < JOBS
