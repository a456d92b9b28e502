"""The commands of docs/security.md, as a shell runs them."""

import asyncio
import os
import re
import sys
from pathlib import Path

import pytest
from secured import free_port

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[2] / "docs" / "security.md"


def block(language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


async def test_the_commands_of_the_page_run(tmp_path: Path) -> None:
    commands = block("sh")
    assert "headrace auth init broker" in commands
    commands = commands.replace("--tls\n", f"--tls --listen 127.0.0.1:{free_port()}\n")
    (tmp_path / "echo.toml").write_text(block("toml"))
    script = f"set -e\ntrap 'kill $(jobs -p); wait' EXIT\n{commands}"
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("NATS_", "S3_", "HEADRACE_"))}
    process = await asyncio.create_subprocess_exec(
        *("bash", "-c", script),
        cwd=tmp_path,
        env={**clean, "PATH": f"{Path(sys.executable).parent}:{clean['PATH']}"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(90):
        out, _ = await process.communicate()
    assert process.returncode == 0, out.decode()
    assert out.decode().count('"echo": "hello"') == 2
