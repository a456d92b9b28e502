"""`headrace auth`: keys, permissions and the broker's configuration, as files."""

import ipaddress
from pathlib import Path

import click
import msgspec

from headrace.cli.auth_s3 import s3 as s3_commands
from headrace.cli.auth_s3 import show_next, write_keys
from headrace.cli.session import with_client
from headrace.client import Client
from headrace_contracts.clock import SystemClock
from headrace_contracts.errors import SettingsError
from headrace_storage.auth.folder import (
    CONFIGURATION,
    Choices,
    GivenTls,
    NewFile,
    Record,
    new_folder,
    read_record,
    role_folder,
    updated,
    with_tenant,
    write,
)
from headrace_storage.auth.plan import BrokerLimits, IngressLimits
from headrace_storage.auth.roles import Role, Tenant
from headrace_storage.auth.server_conf import server_conf
from headrace_storage.ingress import ensure_ingress
from headrace_storage.topology import ensure_topology, limits_there

_folder = click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
_force = click.option("--force", is_flag=True, help="Replace files that are there.")
_pem = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def auth() -> None:
    """Make keys and permissions for a broker that several people share."""


auth.add_command(s3_commands)


@auth.command()
@_folder
@click.option("--tenant", "tenants", multiple=True, help="A tenant that is trusted; repeat for several.")
@click.option(
    "--untrusted-tenant", "untrusted", multiple=True, help="One that is not: its jobs pass an ingress stream."
)
@click.option("--listen", default="127.0.0.1:4222", show_default=True, help="Address and port of the broker.")
@click.option("--host", "hosts", multiple=True, help="Name that clients reach it by; the default is the address.")
@click.option("--tls", is_flag=True, help="Make a certificate authority and a certificate for the broker.")
@click.option("--tls-cert", type=_pem, help="Certificate of the broker that is there already (PEM).")
@click.option("--tls-key", type=_pem, help="Its key.")
@click.option("--tls-ca", type=_pem, help="The authority that signed it, where machines do not know it.")
@click.option("--s3", is_flag=True, help="Files are in S3: no role gets the object store of the broker.")
@click.option("--max-file-gib", type=click.IntRange(min=1), default=32, show_default=True, help="Most disk it may use.")
@click.option(
    "--max-memory-gib", type=click.IntRange(min=1), default=1, show_default=True, help="Most memory for streams."
)
@click.option("--max-payload-mib", type=click.IntRange(1, 64), default=8, show_default=True, help="Largest message.")
@click.option(
    "--ingress-max-jobs", type=click.IntRange(min=1), default=1000, show_default=True, help="Per untrusted tenant."
)
@click.option(
    "--ingress-max-mib", type=click.IntRange(min=1), default=64, show_default=True, help="Per untrusted tenant."
)
@_force
def init(
    folder: Path,
    tenants: tuple[str, ...],
    untrusted: tuple[str, ...],
    listen: str,
    hosts: tuple[str, ...],
    tls: bool,
    tls_cert: Path | None,
    tls_key: Path | None,
    tls_ca: Path | None,
    s3: bool,
    max_file_gib: int,
    max_memory_gib: int,
    max_payload_mib: int,
    ingress_max_jobs: int,
    ingress_max_mib: int,
    force: bool,
) -> None:
    """Write a broker's configuration into FOLDER, with a key and a headrace.toml for every role."""
    folder = folder.absolute()
    host, port = _address(listen)
    choices = Choices(
        listen_host=f"[{host}]" if ":" in host else host,
        port=port,
        hosts=_hosts(host, hosts),
        tenants=_tenants(tenants, untrusted),
        tls=_tls(tls, tls_cert, tls_key, tls_ca),
        jetstream_blobs=not s3,
        limits=BrokerLimits(max_file_gib << 30, max_memory_gib << 30, max_payload_mib << 20),
        ingress=IngressLimits(max_jobs=ingress_max_jobs, max_bytes=ingress_max_mib << 20),
    )
    record, files = new_folder(folder, choices, SystemClock())
    write(folder, files, overwrite=force)
    _show(folder, record, files)
    click.echo(f"next: nats-server -c {folder / CONFIGURATION}")
    click.echo(f"then: {_with_role(folder, Role.ADMIN)} headrace auth apply {folder}")
    click.echo(f"then: {_with_role(folder, Role.ADMIN)} headrace models add MODEL.toml")
    click.echo(f"then: {_with_role(folder, Role.WORKER)} headrace worker --model MODEL")


@auth.command("add-tenant")
@_folder
@click.argument("tenant")
@click.option("--untrusted", is_flag=True, help="Its jobs pass an ingress stream.")
@_force
def add_tenant(folder: Path, tenant: str, untrusted: bool, force: bool) -> None:
    """Add TENANT to a FOLDER that `headrace auth init` made."""
    folder = folder.absolute()
    record = read_record(folder)
    path = folder / CONFIGURATION
    if not force and path.read_text(encoding="utf-8") != server_conf(record.plan):
        raise SettingsError(f"{path} was changed by hand: --force writes it anew, without the change")
    changed, files = with_tenant(record, Tenant(tenant, trusted=not untrusted))
    write(folder, files, overwrite=force, replaced=(CONFIGURATION, "auth.json"))
    if changed.s3 is not None:
        write_keys(folder, changed, changed.s3)
    _show(folder, changed, files)
    # Reloading lets the tenant in and leaves its account without JetStream. A restart takes less than a second.
    click.echo("next: restart nats-server; workers and clients reconnect by themselves")
    if untrusted:
        click.echo(f"then: {_with_role(folder, Role.ADMIN)} headrace auth apply {folder}")
    if changed.s3 is not None:
        show_next(folder)


@auth.command()
@_folder
def update(folder: Path) -> None:
    """Write the configuration of FOLDER anew, as this version of Headrace wants it; all keys stay.

    For an upgrade: what a role may do can change with a version. What was changed in the file by hand is gone.
    """
    folder = folder.absolute()
    text = (folder / CONFIGURATION).read_text(encoding="utf-8") if (folder / CONFIGURATION).exists() else ""
    record = read_record(folder)
    write(folder, updated(record), overwrite=True)
    users_changed = record.s3 is not None and write_keys(folder, record, record.s3)
    if text == (folder / CONFIGURATION).read_text(encoding="utf-8"):
        click.echo(f"{folder / CONFIGURATION} is as this version wants it")
    else:
        click.echo(f"wrote {folder / CONFIGURATION}")
        click.echo("next: restart nats-server; workers and clients reconnect by themselves")
        click.echo(f"then: {_with_role(folder, Role.ADMIN)} headrace auth apply {folder}")
    if users_changed:
        show_next(folder)


@auth.command()
@_folder
@click.option(
    "--replicas", type=click.IntRange(1, 5), help="Copies of every stream, where none is there yet.  [default: 1]"
)
def apply(folder: Path, replicas: int | None) -> None:
    """Create on the running broker what the roles need: streams, buckets, ingress streams. May be repeated.

    And the bucket for files, where they are in S3: its users have to be there (`headrace auth s3 apply`).
    """
    plan = read_record(folder).plan

    async def call(client: Client) -> None:
        limits = await limits_there(client.connection)
        if replicas is not None:
            limits = msgspec.structs.replace(limits, replicas=replicas)
        await ensure_topology(client.connection, limits)
        for tenant in plan.untrusted:
            await ensure_ingress(client.connection, tenant.name, plan.ingress)
        if plan.jetstream_blobs or client.settings.s3 is not None:
            # Opening the store makes its bucket, which no tenant may do.
            await client.blobs()

    with_client(call)
    click.echo(f"streams and buckets are there, and ingress streams of {len(plan.untrusted)} tenants")


def _address(listen: str) -> tuple[str, int]:
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise SettingsError(f"--listen is {listen!r} and must be ADDRESS:PORT, as in 127.0.0.1:4222")
    return host.strip("[]"), int(port)


def _hosts(listen_host: str, given: tuple[str, ...]) -> tuple[str, ...]:
    try:
        everywhere = ipaddress.ip_address(listen_host).is_unspecified
    except ValueError:
        everywhere = False
    if everywhere and not given:
        raise SettingsError(f"the broker listens on {listen_host}: say by --host which name clients reach it by")
    return given or (listen_host,)


def _tenants(trusted: tuple[str, ...], untrusted: tuple[str, ...]) -> tuple[Tenant, ...]:
    names = [*trusted, *untrusted]
    if len(set(names)) != len(names):
        raise SettingsError(f"a tenant is named twice: {', '.join(sorted(names))}")
    if not names:
        trusted = ("default",)
    return tuple([Tenant(name) for name in trusted] + [Tenant(name, trusted=False) for name in untrusted])


def _tls(own: bool, certificate: Path | None, key: Path | None, ca: Path | None) -> GivenTls | bool:
    if certificate is None and key is None and ca is None:
        return own
    if own or certificate is None or key is None:
        raise SettingsError("either --tls, or --tls-cert and --tls-key (and --tls-ca) together")
    return GivenTls(certificate, key, ca)


def _show(folder: Path, record: Record, files: list[NewFile]) -> None:
    for file in files:
        click.echo(f"{folder / file.path}" + (" (secret)" if file.secret else ""))
    if record.plan.tls is None and not record.url.startswith(("nats://127.", "nats://localhost", "nats://[::1]")):
        click.echo("warning: without TLS, jobs and results can be read on the network (keys cannot)", err=True)


def _with_role(folder: Path, role: Role) -> str:
    return f"HEADRACE_CONFIG={folder / role_folder(role) / 'headrace.toml'}"
