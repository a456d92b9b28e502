"""How a local worker process comes to be: by `exec` of its command line, or forked from a warm parent."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol


class Spawner(Protocol):
    """Starts `headrace worker`."""

    async def spawn(self, arguments: Sequence[str], environment: Mapping[str, str], log: Path, status: Path) -> int:
        """Start a worker in a session of its own, which goes on when we end.

        Args:
            arguments: of `headrace worker`, as in `["--model", "tiny-shapes", "--id", "w-1"]`.
            environment: all its variables.
            log: its output is appended there.
            status: gets one line at its end, `exit status 1` or `SIGKILL`, if whoever started it is there to see it.

        Returns:
            Its process id.

        Raises:
            LaunchError: it cannot be started.
        """
        ...
