"""What is said to a zygote: MessagePack packets over a SEQPACKET unix socket, one request a connection.

    ForkWorker + [log]                                    -> Forked | NotForked, by the new process itself; then it
                                                             waits for Go, and ends if the connection does
    ForkEngine + [incoming, outgoing, errors, lifeline]   -> Forked + [pidfd] | NotForked, and Ended at its end
    AskMemory                                             -> MemoryUse

In brackets: descriptors that travel with the packet. Both ends are the same user on the same machine, and mostly the
same version of this package: a request that is not understood closes the connection, and the process is started anew.
"""

import msgspec

ZYGOTE_VARIABLE = "HEADRACE_ZYGOTE"
"""Path of the socket, in the environment of workers whose engines are to be forked."""

LAUNCHED_AT_VARIABLE = "HEADRACE_LAUNCHED_AT"
"""Unix time at which a worker was ordered, in its environment: where its cold start is counted from."""

MAX_PACKET_BYTES = 128 * 1024
"""The kernel takes no larger packet with its usual settings; a whole environment has a few thousand bytes."""

WORKER_DESCRIPTORS = 1
ENGINE_DESCRIPTORS = 4


class ForkWorker(msgspec.Struct, frozen=True, tag="fork_worker"):
    """Become `headrace worker` in a session of its own."""

    arguments: tuple[str, ...]
    """As in `("--model", "tiny-shapes")`."""
    environment: dict[str, str]
    """All its variables."""
    folder: str
    """Its working directory."""
    status: str
    """This file gets one line at its end: `exit status 1` or `SIGKILL`; empty: none."""


class Go(msgspec.Struct, frozen=True, tag="go"):
    """To the new process: whoever asked for it knows it."""


class ForkEngine(msgspec.Struct, frozen=True, tag="fork_engine"):
    """Become an engine process that ends with whoever asked."""

    environment: dict[str, str]
    """All its variables."""


class AskMemory(msgspec.Struct, frozen=True, tag="ask_memory"):
    """What the zygote costs while nothing runs."""


ToZygote = ForkWorker | Go | ForkEngine | AskMemory


class Forked(msgspec.Struct, frozen=True, tag="forked"):
    """The process is there."""

    pid: int


class NotForked(msgspec.Struct, frozen=True, tag="not_forked"):
    """The system refused."""

    reason: str


class Ended(msgspec.Struct, frozen=True, tag="ended"):
    """The engine process is gone."""

    status: int
    """Exit status, or the number of the signal that ended it as a negative number."""


class MemoryUse(msgspec.Struct, frozen=True, tag="memory"):
    """Of the zygote alone."""

    rss_bytes: int
    """Resident, shared with its children or not."""
    pss_bytes: int
    """Its share of it: what would be free without it. 0 where the system does not say."""
    children: int
    """Processes it has forked and that run."""
    libraries: tuple[str, ...]
    """Engines whose libraries are imported."""


FromZygote = Forked | NotForked | Ended | MemoryUse
