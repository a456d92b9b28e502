"""`python -m headrace_workers.zygote --socket PATH`: import everything, then fork what is asked for.

The socket appears when everything is imported. Without it, or without an answer, workers start as they always do.
"""

import argparse
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from headrace_contracts.model import EngineKind
from headrace_workers.engine_environment import QUIET

# Requests that wait while one is served, which takes some milliseconds.
_BACKLOG = 128


def main(arguments: list[str] | None = None) -> int:
    """Serve until SIGTERM, or until the starter is gone; exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m headrace_workers.zygote", description="Start workers and engines in milliseconds."
    )
    parser.add_argument("--socket", type=Path, required=True, help="where it listens; made anew, for this user only")
    parser.add_argument(
        "--engine",
        action="append",
        type=EngineKind,
        choices=list(EngineKind),
        help="import what this engine needs; repeat for several; default: all that are installed",
    )
    parser.add_argument("--spec", action="append", type=Path, default=[], help="a model as JSON: import what it needs")
    parser.add_argument("--cache", type=Path, default=Path("~/.cache/headrace"), help="folder of the weight cache")
    parser.add_argument("--die-with-starter", action="store_true", help="end when standard input does")
    parser.add_argument("--take-along", action="store_true", help="end the workers it forked with the starter, too")
    options = parser.parse_args(arguments)
    # Before any library is imported: some read them then, and start threads, which no fork survives.
    os.environ.update({**QUIET, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"})
    # A library that asks for GPUs while it is imported shall not wake CUDA, which no fork survives either.
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    from headrace_workers.zygote.server import Zygote
    from headrace_workers.zygote.warm_up import warm_up

    libraries = warm_up(options.engine or (() if options.spec else list(EngineKind)), options.spec, options.cache)
    with _listening(options.socket) as listener:
        starter = sys.stdin.fileno() if options.die_with_starter or options.take_along else None
        Zygote(listener, libraries, starter, takes_along=options.take_along).main()
    return 0


@contextlib.contextmanager
def _listening(path: Path) -> Iterator[socket.socket]:
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        before = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(before)
        listener.listen(_BACKLOG)
        try:
            yield listener
        finally:
            path.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
