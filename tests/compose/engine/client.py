"""The Engine's own client, as a Python object: commands go out, text comes back."""

import os
import subprocess
from pathlib import Path
from typing import NamedTuple

COMMAND_DEADLINE_S = 120.0


class CommandFailed(AssertionError):
    """The command ended with an error; the message has its last lines."""


class Docker(NamedTuple):
    """One Engine, and the client that speaks to it."""

    host: str
    program: str

    @property
    def environment(self) -> dict[str, str]:
        """For everything that talks to this Engine. The classic builder: BuildKit needs a plugin."""
        return {**os.environ, "DOCKER_HOST": self.host, "DOCKER_BUILDKIT": "0"}

    def __call__(self, *words: str | Path, timeout_s: float = COMMAND_DEADLINE_S, check: bool = True) -> str:
        """What `docker WORDS` printed.

        Raises:
            CommandFailed: it failed, and `check` is set.
        """
        ran = subprocess.run(
            [self.program, *map(str, words)], env=self.environment, capture_output=True, text=True, timeout=timeout_s
        )
        if check and ran.returncode != 0:
            last = "\n".join((ran.stdout + ran.stderr).splitlines()[-30:])
            raise CommandFailed(f"docker {' '.join(map(str, words))} ended with {ran.returncode}:\n{last}")
        return ran.stdout.strip()

    def has_image(self, name: str) -> bool:
        """Whether the Engine has it without asking a registry."""
        return bool(self("image", "ls", "--quiet", name))

    def build(self, tag: str, folder: Path, timeout_s: float = COMMAND_DEADLINE_S) -> None:
        """Build the Dockerfile in `folder`."""
        self("build", "--quiet", "--tag", tag, folder, timeout_s=timeout_s)

    def answers(self) -> bool:
        """Whether an Engine is there."""
        try:
            return bool(self("version", "--format", "{{.Server.Version}}", timeout_s=20.0))
        except (CommandFailed, subprocess.TimeoutExpired):
            return False
