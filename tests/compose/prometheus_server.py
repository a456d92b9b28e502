"""A real Prometheus that scrapes what it is told to, where one can be had."""

import asyncio
import contextlib
import json
import re
import shutil
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

# `make prometheus` puts it there.
_FETCHED = Path(sys.prefix) / "tools" / "prometheus"
PROMETHEUS = str(_FETCHED) if _FETCHED.is_file() else shutil.which("prometheus")

needs_prometheus = pytest.mark.skipif(
    PROMETHEUS is None,
    reason="NOT TESTED: without Prometheus (`make prometheus`), nothing shows that the dashboard finds anything",
)

DEADLINE_S = 30.0
_LOOK_EVERY_S = 0.05
_LISTENS = re.compile(r'msg="Listening on" address=(\S+)')


class Prometheus:
    """Asks a server that runs."""

    def __init__(self, address: str) -> None:
        self._address = address

    async def ask(self, query: str) -> list[dict[str, Any]]:
        """Lines that there are now; an error of the query is raised with Prometheus' own words."""
        return await asyncio.to_thread(self._ask, query)

    async def until_found(self, query: str) -> list[dict[str, Any]]:
        async with asyncio.timeout(DEADLINE_S):
            while not (found := await self.ask(query)):
                await asyncio.sleep(_LOOK_EVERY_S)
        return found

    def _ask(self, query: str) -> list[dict[str, Any]]:
        url = f"http://{self._address}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
        try:
            with urllib.request.urlopen(url, timeout=DEADLINE_S) as answer:
                found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{query}: {json.load(error)['error']}") from error
        return found


@contextlib.asynccontextmanager
async def scraping(jobs: Mapping[str, list[str]], rules: str, folder: Path) -> AsyncIterator[Prometheus]:
    """Run Prometheus on the addresses of each job, each second."""
    assert PROMETHEUS is not None
    configs = [{"job_name": name, "static_configs": [{"targets": targets}]} for name, targets in jobs.items()]
    every = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    (folder / "rules.yml").write_text(rules)
    config = folder / "prometheus.yml"
    # JSON is YAML.
    config.write_text(json.dumps({"global": every, "rule_files": ["rules.yml"], "scrape_configs": configs}))
    log = folder / "prometheus.log"
    arguments = [
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'data'}",
        "--web.listen-address=127.0.0.1:0",
    ]
    with log.open("w") as file:
        process = subprocess.Popen([PROMETHEUS, *arguments], stdout=file, stderr=file)
    try:
        yield Prometheus(await _address(process, log))
    finally:
        process.terminate()
        try:
            await asyncio.to_thread(process.wait, DEADLINE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


async def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    """Where it listens, once it is ready to answer."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            said = log.read_text()
            assert process.poll() is None, said
            if (listens := _LISTENS.search(said)) and "ready to receive web requests" in said:
                return listens[1]
            await asyncio.sleep(_LOOK_EVERY_S)
