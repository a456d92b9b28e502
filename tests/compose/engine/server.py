"""Find a Docker Engine that runs, or start one out of Debian's packages, and take it down without a trace.

Ours has its own socket and folders, but shares the machine's network: its bridge is docker0, and its rules are in
iptables, as those of any Engine. So it is not started beside another one, and takes away what it brought.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .client import Docker
from .debian import NotTestable, unpacked

START_DEADLINE_S = 60.0
STOP_DEADLINE_S = 60.0
BRIDGE = "docker0"
FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
# The last seven are what iptables is linked with.
PACKAGES = (
    "docker.io", "containerd", "tini", "runc", "iptables", "iproute2",
    "libnftnl11", "libip4tc2", "libip6tc2", "libxtables12", "libmnl0", "libnetfilter-conntrack3", "libnfnetlink0",
)  # fmt: skip
# Low enough that a daemon without CAP_SYS_RESOURCE may give them to its containers.
ULIMITS = {
    "nofile": {"Name": "nofile", "Soft": 20000, "Hard": 20000},
    "nproc": {"Name": "nproc", "Soft": 5000, "Hard": 5000},
}


def found() -> Docker | None:
    """The Engine of DOCKER_HOST, or of the usual socket, if it answers."""
    program = shutil.which("docker")
    if program is None:
        return None
    docker = Docker(os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock"), program)
    return docker if docker.answers() else None


@contextmanager
def running(tools: Path, folder: Path) -> Iterator[Docker]:
    """An Engine: the one that runs, or ours with its data in `folder` until the end. Packages are kept in `tools`.

    Raises:
        NotTestable: there is none, and none can be started here; the message says why.
    """
    docker = found()
    if docker is not None:
        yield docker
        return
    if "DOCKER_HOST" in os.environ:
        raise NotTestable(f"no Engine answers at DOCKER_HOST={os.environ['DOCKER_HOST']}, or `docker` is not on PATH")
    engine = OwnEngine(tools, folder)
    engine.start()
    try:
        yield engine.docker
    finally:
        engine.stop()


class OwnEngine:
    """dockerd out of Debian's packages, with everything it writes in `folder`."""

    def __init__(self, tools: Path, folder: Path, bip: str = "10.88.0.1/24", pool: str = "10.89.0.0/16") -> None:
        if os.geteuid() != 0:
            raise NotTestable("no Docker Engine answers, and only root can start one")
        self._root = unpacked(PACKAGES, tools / "docker")
        self._folder = folder
        self._bip, self._pool = bip, pool
        self._daemon: subprocess.Popen[bytes] | None = None
        self.docker = Docker(f"unix://{folder}/docker.sock", str(self._root / "usr/bin/docker"))

    @property
    def _environment(self) -> dict[str, str]:
        libraries = self._root / "usr/lib" / f"{os.uname().machine}-linux-gnu"
        return {
            **os.environ,
            "PATH": f"{self._programs}:{self._root}/usr/bin:{self._root}/usr/sbin:{os.environ['PATH']}",
            "LD_LIBRARY_PATH": str(libraries),
            "XTABLES_LIBDIR": str(libraries / "xtables"),
        }

    @property
    def _programs(self) -> Path:
        return self._folder / "programs"

    def start(self) -> None:
        """Start it, and wait until it answers.

        Raises:
            NotTestable: it cannot run here; the message has its last error.
        """
        shutil.rmtree(self._programs, ignore_errors=True)
        self._programs.mkdir(parents=True)
        # In Debian, alternatives make these names, when the package is installed.
        for name in (
            "iptables",
            "iptables-save",
            "iptables-restore",
            "ip6tables",
            "ip6tables-save",
            "ip6tables-restore",
        ):
            (self._programs / name).symlink_to(self._root / "usr/sbin/xtables-nft-multi")
        self._ip = next(
            p for p in (self._root / "bin/ip", self._root / "usr/bin/ip", self._root / "sbin/ip") if p.exists()
        )
        self._refuse_a_second_one()
        self._forwarding = FORWARDING.read_text()
        config = self._folder / "daemon.json"
        config.write_text(json.dumps(self._config()))
        with (self._folder / "dockerd.log").open("wb") as log:
            command = [self._root / "usr/sbin/dockerd", "--config-file", config]
            self._daemon = subprocess.Popen(
                command, env=self._environment, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + START_DEADLINE_S
        while not self.docker.answers():
            if self._daemon.poll() is not None or time.monotonic() > deadline:
                words = self._last_words()
                self.stop()
                raise NotTestable(f"dockerd does not start here: {words}")
            time.sleep(0.1)

    def stop(self) -> None:
        """Stop it with all its containers, and remove its bridges, its rules and its folder. Twice is fine."""
        if self._daemon is None:
            return
        self._daemon.send_signal(signal.SIGTERM)
        try:
            self._daemon.wait(STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            self._daemon.kill()
            self._daemon.wait()
        self._daemon = None
        self._remove_network()
        FORWARDING.write_text(self._forwarding)
        for mount in sorted(_mounts_below(self._folder), reverse=True):
            subprocess.run(["umount", "--lazy", mount], check=False)
        shutil.rmtree(self._folder)

    def _config(self) -> dict[str, object]:
        return {
            "hosts": [self.docker.host],
            "data-root": str(self._folder / "data"),
            "exec-root": str(self._folder / "exec"),
            "pidfile": str(self._folder / "docker.pid"),
            "bip": self._bip,
            "default-address-pools": [{"base": self._pool, "size": 24}],
            "default-ulimits": ULIMITS,
        }

    def _refuse_a_second_one(self) -> None:
        """A daemon that starts flushes the chains of another one, and takes its bridge. Leftovers are removed."""
        self._policy = "ACCEPT"
        saved = self._run("iptables-save", "-t", "filter")
        if ":DOCKER " in saved or BRIDGE in _interfaces():
            # Its containers may outlive it.
            if _runs("dockerd", "containerd-shim"):
                raise NotTestable("another Docker Engine's network is on this machine: set DOCKER_HOST to its address")
            self._remove_network()
            return
        for line in saved.splitlines():
            if line.startswith(":FORWARD "):
                self._policy = line.split()[1]

    def _remove_network(self) -> None:
        bridges = [name for name in _interfaces() if name.startswith((BRIDGE, "br-"))]
        own = [name for name in bridges if self._has_our_address(name)]
        for table in ("filter", "nat"):
            kept = [
                line for line in self._run("iptables-save", "-t", table).splitlines() if not self._is_ours(line, own)
            ]
            kept = [f":FORWARD {self._policy} [0:0]" if line.startswith(":FORWARD") else line for line in kept]
            self._run("iptables-restore", given="\n".join(kept) + "\n")
        for name in own:
            self._run(self._ip, "link", "delete", name)

    def _has_our_address(self, bridge: str) -> bool:
        addresses = self._run(self._ip, "-4", "-oneline", "address", "show", "dev", bridge)
        prefixes = (".".join(network.split(".")[:2]) for network in (self._bip, self._pool))
        return bridge == BRIDGE or any(f"inet {prefix}." in addresses for prefix in prefixes)

    def _is_ours(self, rule: str, bridges: list[str]) -> bool:
        words = rule.removeprefix(":").split()
        prefixes = tuple(f"{'.'.join(network.split('.')[:2])}." for network in (self._bip, self._pool))
        return any(word.startswith(("DOCKER", *prefixes)) or word in bridges for word in words)

    def _run(self, *command: str | Path, given: str | None = None) -> str:
        ran = subprocess.run(
            [str(word) for word in command],
            env=self._environment,
            input=given,
            capture_output=True,
            text=True,
            timeout=30,
        )
        if ran.returncode != 0:
            raise NotTestable(f"{Path(command[0]).name} does not work here: {ran.stderr.strip()}")
        return ran.stdout

    def _last_words(self) -> str:
        lines = (self._folder / "dockerd.log").read_text(errors="replace").splitlines()
        errors = [line for line in lines if "level=fatal" in line or "level=error" in line or "failed to start" in line]
        return (errors or lines or ["it wrote nothing"])[-1]


def _interfaces() -> list[str]:
    return [name for _, name in socket.if_nameindex()]


def _runs(*programs: str) -> bool:
    """Whether a process of one of these names is there, of whichever user."""
    for name in Path("/proc").glob("[0-9]*/comm"):
        # It may have ended meanwhile.
        with suppress(OSError):
            if name.read_text().startswith(programs):
                return True
    return False


def _mounts_below(folder: Path) -> list[str]:
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return [line.split()[1] for line in lines if line.split()[1].startswith(f"{folder}/")]
