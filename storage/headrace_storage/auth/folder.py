"""The folder that `headrace auth init` makes: what is in it, and how it is written.

    nats.conf                       for nats-server; public keys only
    auth.json                       the plan it was made from
    tls/                            authority and server certificate, where they are ours
    s3/                             users of an S3 server, where files are in one: see `s3_users`
    worker/  scaler/  admin/        a role each: <role>.nk (secret), headrace.toml, ca.pem
    tenants/<tenant>/producer/  tenants/<tenant>/consumer/

A role's folder is complete in itself: it may be copied to where its processes run.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from headrace_contracts.clock import Clock
from headrace_contracts.errors import SettingsError
from headrace_contracts.names import BLOB_BUCKET
from headrace_contracts.settings import S3Settings
from headrace_storage.auth.certificates import new_certificates
from headrace_storage.auth.keys import KeyPair, new_user_key
from headrace_storage.auth.plan import BrokerLimits, IngressLimits, Plan, TlsFiles, User, roles_needed
from headrace_storage.auth.roles import TENANT_API, Role, Tenant, inbox_prefix
from headrace_storage.auth.server_conf import server_conf

CONFIGURATION = "nats.conf"
RECORD = "auth.json"

_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


class NewFile(msgspec.Struct, frozen=True):
    """A file to write, by its path inside the folder."""

    path: str
    text: str
    secret: bool = False

    def __repr__(self) -> str:
        return f"<NewFile {self.path}>"


class S3Place(msgspec.Struct, frozen=True):
    """Where files are."""

    url: str
    bucket: str = BLOB_BUCKET

    def __post_init__(self) -> None:
        # As settings take it. The bucket becomes part of patterns that say who may do what.
        S3Settings(self.url, "", "", self.bucket)
        if not _BUCKET.fullmatch(self.bucket):
            raise ValueError(f"bucket {self.bucket!r} must be 3 to 63 of the characters a-z 0-9 . -")


class Record(msgspec.Struct, frozen=True):
    """What auth.json remembers: no secrets."""

    plan: Plan
    url: str
    """Where clients find the broker."""
    ca: str | None = None
    """The authority that signed its certificate (PEM); None: no TLS, or one that every machine knows."""
    s3: S3Place | None = None
    """The S3 server that roles have keys for; None: they were given none."""


class GivenTls(msgspec.Struct, frozen=True):
    """A certificate that is there already; paths."""

    certificate: Path
    key: Path
    ca: Path | None = None


class Choices(msgspec.Struct, frozen=True):
    """What the operator decided."""

    listen_host: str
    port: int
    hosts: tuple[str, ...]
    """Names clients reach the broker by; the first is in their settings."""
    tenants: tuple[Tenant, ...]
    tls: GivenTls | bool = False
    """True: with an authority and a certificate of our own."""
    jetstream_blobs: bool = True
    limits: BrokerLimits = BrokerLimits()
    ingress: IngressLimits = IngressLimits()


def new_folder(folder: Path, choices: Choices, clock: Clock) -> tuple[Record, list[NewFile]]:
    """Everything for a new broker; nothing is written.

    Raises:
        SettingsError: a library is missing, or a given certificate cannot be read.
    """
    tls_files, tls, ca = _tls(folder, choices, clock)
    keys = {place: new_user_key() for place in roles_needed(choices.tenants)}
    plan = Plan(
        listen=f"{choices.listen_host}:{choices.port}",
        store_folder=str(folder / "jetstream"),
        tenants=choices.tenants,
        users=_users(keys),
        limits=choices.limits,
        ingress=choices.ingress,
        jetstream_blobs=choices.jetstream_blobs,
        tls=tls,
    )
    scheme = "nats" if tls is None else "tls"
    record = Record(plan, f"{scheme}://{_bracketed(choices.hosts[0])}:{choices.port}", ca)
    return record, [*_of_the_server(record), *tls_files, *_of_roles(record, keys)]


def with_tenant(record: Record, tenant: Tenant) -> tuple[Record, list[NewFile]]:
    """The same broker with one more tenant: the files that change, and those that are new.

    Raises:
        SettingsError: there is a tenant of this name.
    """
    if any(known.name == tenant.name for known in record.plan.tenants):
        raise SettingsError(f"tenant {tenant.name!r} is there already")
    keys = {place: new_user_key() for place in roles_needed((tenant,)) if place[1] is not None}
    plan = msgspec.structs.replace(
        record.plan, tenants=(*record.plan.tenants, tenant), users=(*record.plan.users, *_users(keys))
    )
    changed = msgspec.structs.replace(record, plan=plan)
    return changed, [*_of_the_server(changed), *_of_roles(changed, keys)]


def updated(record: Record) -> list[NewFile]:
    """The same broker as this version of Headrace configures it: rights of roles may change, keys do not."""
    return _of_the_server(record)


def record_file(record: Record) -> NewFile:
    """The record as it is kept."""
    return NewFile(RECORD, msgspec.json.format(msgspec.json.encode(record), indent=2).decode() + "\n")


def read_record(folder: Path) -> Record:
    """The record of a folder.

    Raises:
        SettingsError: it is none that `headrace auth init` made.
    """
    try:
        return msgspec.json.decode((folder / RECORD).read_bytes(), type=Record)
    except (OSError, msgspec.DecodeError) as error:
        raise SettingsError(f"{folder} was not made by `headrace auth init`: {RECORD}: {error}") from error


def role_folder(role: Role, tenant: str | None = None) -> str:
    """Where a role's files are, inside the folder."""
    return str(role) if tenant is None else f"tenants/{tenant}/{role}"


def write(folder: Path, files: Sequence[NewFile], *, overwrite: bool = False, replaced: Sequence[str] = ()) -> None:
    """Write files, secret ones readable by their owner alone; all of them or, if one is there, none.

    Args:
        folder: made if missing.
        files: what to write.
        overwrite: replace files that are there.
        replaced: paths that may be there, because the caller knows what is in them.

    Raises:
        SettingsError: a file is there; it names all of them.
        OSError: the folder cannot be written.
    """
    there = [file.path for file in files if file.path not in replaced and (folder / file.path).exists()]
    if there and not overwrite:
        raise SettingsError(
            f"in {folder} there are already {', '.join(there)}: choose another folder, or replace them with --force "
            "(processes that use the old keys are then refused)"
        )
    for file in files:
        target = folder / file.path
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        part = target.with_name(f".{target.name}.part")
        part.unlink(missing_ok=True)
        # The mode before the content: at no moment can others read a seed.
        part.touch(mode=0o600 if file.secret else 0o644, exist_ok=False)
        part.write_text(file.text, encoding="utf-8")
        part.replace(target)


def _users(keys: "dict[tuple[Role, str | None], KeyPair]") -> tuple[User, ...]:
    return tuple(User(role, pair.public, tenant) for (role, tenant), pair in keys.items())


def _of_the_server(record: Record) -> list[NewFile]:
    return [NewFile(CONFIGURATION, server_conf(record.plan)), record_file(record)]


def _of_roles(record: Record, keys: "dict[tuple[Role, str | None], KeyPair]") -> list[NewFile]:
    files = []
    trusted = {tenant.name: tenant.trusted for tenant in record.plan.tenants}
    for (role, tenant), pair in keys.items():
        at = role_folder(role, tenant)
        files.append(NewFile(f"{at}/{role}.nk", pair.seed + "\n", secret=True))
        files.append(NewFile(f"{at}/headrace.toml", _settings(record, role, tenant, trusted)))
        if record.ca is not None:
            files.append(NewFile(f"{at}/ca.pem", record.ca))
    return files


def _settings(record: Record, role: Role, tenant: str | None, trusted: dict[str, bool]) -> str:
    """A role's headrace.toml; relative paths in it are taken from where it lies."""
    lines = [f"# The {role}{f' of tenant {tenant}' if tenant else ''}, for HEADRACE_CONFIG."]
    if tenant is not None:
        lines.append(f'tenant = "{tenant}"')
        if not trusted[tenant]:
            lines.append("ingress = true")
    lines += ["", "[nats]", f'url = "{record.url}"', f'nkey = "{role}.nk"']
    lines.append(f'inbox_prefix = "{inbox_prefix(role, tenant)}"')
    if tenant is not None:
        lines.append(f'js_api_prefix = "{TENANT_API}"')
    if record.ca is not None:
        lines.append('ca = "ca.pem"')
    if not record.plan.jetstream_blobs:
        lines += [
            "",
            "# Files are in S3: `headrace auth s3 init`, or fill in [s3], or set S3_ENDPOINT_URL, AWS_ACCESS_KEY_ID",
        ]
    return "\n".join([*lines, ""])


def _tls(folder: Path, choices: Choices, clock: Clock) -> tuple[list[NewFile], TlsFiles | None, str | None]:
    """Files to write, paths for the server, and the authority for clients."""
    match choices.tls:
        case False:
            return [], None, None
        case GivenTls(certificate=certificate, key=key, ca=ca):
            try:
                for path in (certificate, key):
                    path.read_bytes()
                text = None if ca is None else ca.read_text(encoding="ascii")
            except (OSError, UnicodeDecodeError) as error:
                raise SettingsError(f"certificates for the broker: {error}") from error
            return [], TlsFiles(str(certificate.resolve()), str(key.resolve())), text
    made = new_certificates(choices.hosts, clock)
    files = [
        NewFile("tls/ca.pem", made.ca),
        NewFile("tls/ca.key", made.ca_key, secret=True),
        NewFile("tls/server.pem", made.certificate),
        NewFile("tls/server.key", made.key, secret=True),
    ]
    return files, TlsFiles(str(folder / "tls" / "server.pem"), str(folder / "tls" / "server.key")), made.ca


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
