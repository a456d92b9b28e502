"""`python -m headrace_workers.decoding FD`: the nursery, on one end of a socket pair."""

import signal
import socket
import sys
import tempfile

from headrace_workers.decoding.nursery import Nursery
from headrace_workers.decoding.recording import decode_recording, warm_up


def main() -> None:
    """Serve the supervisor until it is gone."""
    # Signals of a terminal or a container reach the whole group: it is the supervisor who decides when this ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with tempfile.TemporaryFile() as silence:
        warm_up(silence.fileno())
    Nursery(socket.socket(fileno=int(sys.argv[1])), decode_recording).main()


if __name__ == "__main__":
    main()
