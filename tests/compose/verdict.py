"""Runs the tests of the compose stack, then all others that ask a Docker Engine, on the same one.

Ends with one line that says what they showed, and what they could not.
"""

import signal
import sys
from pathlib import Path

import pytest


class Verdict:
    """Listens to pytest: what passed, and why the rest was not tested."""

    def __init__(self) -> None:
        self.passed = 0
        self.untested: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count a test, or note why it was skipped."""
        if report.passed and report.when == "call":
            self.passed += 1
        if report.skipped and isinstance(report.longrepr, tuple):
            reason = report.longrepr[2].removeprefix("Skipped: ").removeprefix("NOT TESTED: ")
            if reason not in self.untested:
                self.untested.append(reason)

    def line(self, status: int) -> str:
        """The last line. No test that passed is not a success, whatever pytest says."""
        untested = f"NOT TESTED: {'; '.join(self.untested)}" if self.untested else ""
        if status != 0:
            return f"compose: FAILED (pytest ended with {status})"
        if self.passed == 0:
            return f"compose: {untested or 'NOT TESTED: no test was selected'}"
        return f"compose: passed ({self.passed} tests)" + (f"; {untested}" if untested else "")


def main(arguments: list[str]) -> int:
    """Run them; pytest's exit status. SIGTERM is as Ctrl-C: the Engine and the stack are taken down first."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    verdict = Verdict()
    folders = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "scaler")]
    chosen = ["-m", "compose or docker", "--capture=no", "--verbose"]
    status = int(pytest.main([*folders, *chosen, *arguments], plugins=[verdict]))
    print(verdict.line(status), flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
