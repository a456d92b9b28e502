"""Brokers of our own: one server, or a cluster of three whose streams have three replicas."""

from collections.abc import Sequence
from pathlib import Path

from headrace_loadgen.system.s3_server import free_ports
from headrace_local.nats_server import NatsServer

CLUSTER = 3


class ClusterNode(NatsServer):
    """One server of a cluster."""

    def __init__(self, folder: Path, name: str, route: int, routes: Sequence[int], sync_always: bool) -> None:
        super().__init__(folder, sync_always=sync_always)
        self.name = name
        self._route = route
        self._routes = routes

    def _configuration(self) -> str:
        routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in self._routes)
        # Not advertised: clients stay on the wires we gave them.
        cluster = f'name: headrace, listen: "127.0.0.1:{self._route}", routes: [{routes}], no_advertise: true'
        alone = super()._configuration().replace("server_name: headrace", f"server_name: {self.name}")
        return f"{alone}cluster {{ {cluster} }}\n"


def brokers(folder: Path, count: int, sync_always: bool) -> list[NatsServer]:
    """One server, or the servers of a cluster; none is started."""
    if count == 1:
        return [NatsServer(folder / "nats", sync_always=sync_always)]
    routes = free_ports(count)
    return [
        ClusterNode(folder / f"nats-{number}", f"n{number}", route, routes, sync_always)
        for number, route in enumerate(routes)
    ]
