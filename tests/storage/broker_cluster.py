"""Three real brokers on loopback that are one cluster, for tests of what goes on while one of them is gone."""

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from headrace_contracts.settings import NatsSettings
from headrace_local.nats_server import find_nats_server

DEADLINE_S = 30.0
NAMES = ("one", "two", "three")

CONFIGURATION = """\
server_name: {name}
listen: 127.0.0.1:{port}
jetstream {{ store_dir: "{folder}", max_file_store: 100G, max_memory_store: 2G }}
cluster {{ name: test, listen: 127.0.0.1:{route}, routes: [{routes}], no_advertise: true }}
"""


class BrokerCluster:
    """The brokers, by name; `kill` is a crash of one."""

    def __init__(self, folder: Path) -> None:
        self._ports = dict(zip(NAMES, _free_ports(3), strict=True))
        routes = dict(zip(NAMES, _free_ports(3), strict=True))
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        for name in NAMES:
            configuration = CONFIGURATION.format(
                name=name,
                port=self._ports[name],
                route=routes[name],
                folder=folder / name,
                routes=", ".join(f'"nats://127.0.0.1:{port}"' for port in routes.values()),
            )
            (folder / f"{name}.conf").write_text(configuration)
            with (folder / f"{name}.log").open("wb") as log:
                self._processes[name] = subprocess.Popen(
                    [find_nats_server(), "-c", str(folder / f"{name}.conf")], stderr=log, stdout=log
                )
        for name, port in self._ports.items():
            _until_listening(name, port)

    def settings(self, *names: str) -> NatsSettings:
        """For a client that knows these brokers alone."""
        return NatsSettings(url=",".join(f"nats://127.0.0.1:{self._ports[name]}" for name in names))

    def kill(self, name: str) -> None:
        """End one without a word."""
        self._processes[name].kill()
        self._processes[name].wait()

    def stop(self) -> None:
        """End all. Twice is fine."""
        for process in self._processes.values():
            process.kill()
            process.wait()


@contextlib.contextmanager
def broker_cluster(folder: Path) -> Iterator[BrokerCluster]:
    """Three brokers, up; their JetStream may still be choosing its leader."""
    cluster = BrokerCluster(folder)
    try:
        yield cluster
    finally:
        cluster.stop()


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as probes:
        found = [probes.enter_context(socket.socket()) for _ in range(count)]
        for probe in found:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in found]


def _until_listening(name: str, port: int) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            assert time.monotonic() < deadline, f"broker {name} does not start"
            time.sleep(0.01)
