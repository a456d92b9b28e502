"""Keys for an S3 server in the folder that `headrace auth init` made: one for each role that reaches files.

    s3/users.json       every user, key and policy, as SeaweedFS reads it; MinIO is told by `minio_users`
    s3/root-user        key of the server itself, as MinIO reads it (MINIO_ROOT_USER_FILE)
    s3/root-password
    <role>/headrace.toml gets an [s3] with the role's own key

Keys that are there stay; what they may do is written anew.
"""

import secrets
import tomllib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import msgspec

from headrace_contracts.errors import SettingsError
from headrace_storage.auth.folder import NewFile, Record, S3Place, record_file, role_folder
from headrace_storage.auth.plan import roles_needed
from headrace_storage.auth.s3_policies import s3_policy, s3_user

USERS = "s3/users.json"
ROOT_USER, ROOT_PASSWORD = "s3/root-user", "s3/root-password"

# What `headrace auth init --s3` leaves to be filled in.
_LEFT_OPEN = "# Files are in S3"


class Credential(msgspec.Struct, frozen=True, rename="camel"):
    """An S3 key."""

    access_key: str
    secret_key: str

    def __repr__(self) -> str:
        return f"<Credential {self.access_key}>"


class Identity(msgspec.Struct, frozen=True, rename="camel"):
    """A user: what it may do is in policies, but for root, which may do everything."""

    name: str
    credentials: tuple[Credential, ...]
    actions: tuple[str, ...] = ()
    policy_names: tuple[str, ...] = ()


class NamedPolicy(msgspec.Struct, frozen=True):
    """A policy's document, as text in the text."""

    name: str
    content: str


class Users(msgspec.Struct, frozen=True):
    """s3/users.json, in the form that SeaweedFS has for it."""

    identities: tuple[Identity, ...] = ()
    policies: tuple[NamedPolicy, ...] = ()


def with_s3(folder: Path, record: Record, place: S3Place) -> tuple[Record, list[NewFile]]:
    """The same broker with a key for S3 in every role that uses files: what is to be written, which may be nothing new.

    Raises:
        SettingsError: the broker's own object store is in use, or a role has an [s3] that is not from here.
    """
    if record.plan.jetstream_blobs:
        raise SettingsError(f"{folder} is for files in the broker: make one with `headrace auth init --s3`")
    known = {identity.name: identity for identity in _known_users(folder)}
    root = _root(folder)
    identities = [Identity("root", (root,), actions=("Admin", "Read", "Write", "List", "Tagging"))]
    policies, files = [], []
    for role, tenant in roles_needed(record.plan.tenants):
        user, policy = partial(s3_user, role, tenant), s3_policy(role, tenant, place.bucket)
        key = Credential("", "")
        if policy is not None:
            name = user(place.bucket)
            key = known[name].credentials[0] if name in known else Credential(name, secrets.token_hex(16))
            identities.append(Identity(name, (key,), policy_names=(name,)))
            policies.append(NamedPolicy(name, msgspec.json.encode(policy).decode()))
        path = f"{role_folder(role, tenant)}/headrace.toml"
        files.append(NewFile(path, _with_key(folder / path, user, place, key), secret=True))
    users = msgspec.json.encode(Users(tuple(identities), tuple(policies)))
    changed = msgspec.structs.replace(record, s3=place)
    # Keys before those who use them: after a break between the two, the next run goes on with the same keys.
    of_s3 = [
        NewFile(ROOT_USER, root.access_key, secret=True),
        NewFile(ROOT_PASSWORD, root.secret_key, secret=True),
        NewFile(USERS, msgspec.json.format(users, indent=2).decode() + "\n", secret=True),
    ]
    return changed, [*of_s3, *files, record_file(changed)]


def read_users(folder: Path) -> Users:
    """The users of a folder.

    Raises:
        SettingsError: it has none, or they cannot be read.
    """
    try:
        return msgspec.json.decode((folder / USERS).read_bytes(), type=Users)
    except (OSError, msgspec.DecodeError) as error:
        raise SettingsError(f"{folder} has no keys for S3 (`headrace auth s3 init`): {error}") from error


def read_root(folder: Path) -> Credential:
    """The key of the server itself.

    Raises:
        SettingsError: it is not there.
    """
    for path in (ROOT_USER, ROOT_PASSWORD):
        if not (folder / path).is_file():
            raise SettingsError(f"{folder / path} is missing: a MinIO is told of users by its root key")
    return _root(folder)


def _root(folder: Path) -> Credential:
    return Credential(_secret(folder / ROOT_USER), _secret(folder / ROOT_PASSWORD))


def _known_users(folder: Path) -> tuple[Identity, ...]:
    return read_users(folder).identities if (folder / USERS).exists() else ()


def _secret(path: Path) -> str:
    """What is in a file; something new if it is not there."""
    try:
        return path.read_text(encoding="utf-8").strip() or secrets.token_hex(16)
    except FileNotFoundError:
        return secrets.token_hex(16)


def _with_key(path: Path, user: Callable[[str], str], place: S3Place, key: Credential) -> str:
    """A role's settings with its key, in a last section of ours; `user` names the role's user for a bucket."""
    try:
        text = path.read_text(encoding="utf-8")
        there = tomllib.loads(text).get("s3")
        if there is not None:
            text = text.removesuffix(_as_ours(there, user))
            there = tomllib.loads(text).get("s3")
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{path}: {error}") from error
    if there is not None:
        raise SettingsError(f"{path} has an [s3] of its own: remove it, and the role gets a key")
    kept = [line for line in text.splitlines() if not line.startswith(_LEFT_OPEN)]
    return "\n".join(kept).rstrip("\n") + "\n" + _section(place, key)


def _as_ours(there: Mapping[str, object], user: Callable[[str], str]) -> str:
    """The text of a section that says this, if it is from here, whatever the record says: it may be older, or newer."""
    url, bucket, name, secret = (
        str(there.get(field, "")) for field in ("endpoint_url", "bucket", "access_key_id", "secret_access_key")
    )
    try:
        return _section(S3Place(url, bucket), Credential(name, secret)) if name in ("", user(bucket)) else ""
    except ValueError:
        return ""


def _section(place: S3Place, key: Credential) -> str:
    about = "" if key.access_key else "# Where files are. This role reads none, and has no key.\n"
    return (
        f'\n[s3]\n{about}endpoint_url = "{place.url}"\nbucket = "{place.bucket}"\n'
        f'access_key_id = "{key.access_key}"\nsecret_access_key = "{key.secret_key}"\n'
    )
