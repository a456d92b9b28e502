"""Prometheus' own checker, where it can be had."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# `make promtool` puts it there.
_FETCHED = Path(sys.prefix) / "tools" / "promtool"
PROMTOOL = str(_FETCHED) if _FETCHED.is_file() else shutil.which("promtool")

needs_promtool = pytest.mark.skipif(
    PROMTOOL is None,
    reason="NOT TESTED: without promtool (`make promtool`), nothing shows that Prometheus takes our metrics and rules",
)


def promtool(*arguments: str | Path, stdin: str = "") -> tuple[int, str]:
    """Exit status, and all it said."""
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, *map(str, arguments)], input=stdin, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout + done.stderr
