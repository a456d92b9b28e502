"""`headrace auth s3`: a key for files in S3 for every role, as files and on the server."""

from pathlib import Path

import click

from headrace_contracts.errors import SettingsError
from headrace_contracts.names import BLOB_BUCKET
from headrace_storage.auth.folder import Record, S3Place, read_record, write
from headrace_storage.auth.s3_users import ROOT_PASSWORD, ROOT_USER, USERS, read_root, read_users, with_s3

_folder = click.argument("folder", type=click.Path(file_okay=False, path_type=Path))


@click.group()
def s3() -> None:
    """Give every role its own key to the S3 server, which may do no more than the role needs."""


@s3.command()
@_folder
@click.option("--url", required=True, help="Where roles reach the server, as in http://s3.example:9000.")
@click.option("--bucket", default=BLOB_BUCKET, show_default=True, help="Where all files are.")
def init(folder: Path, url: str, bucket: str) -> None:
    """Write keys into a FOLDER that `headrace auth init --s3` made. May be repeated: keys that are there stay."""
    folder = folder.absolute()
    try:
        place = S3Place(url, bucket)
    except ValueError as error:
        raise SettingsError(f"--url and --bucket: {error}") from error
    write_keys(folder, read_record(folder), place)
    click.echo(f"{folder / USERS} (secret)")
    click.echo(f"next: MinIO, with MINIO_ROOT_USER_FILE={folder / ROOT_USER}")
    click.echo(f"                  MINIO_ROOT_PASSWORD_FILE={folder / ROOT_PASSWORD}")
    click.echo("      (one that is there already: put its root key into these two files)")
    click.echo(f"then: headrace auth s3 apply {folder}")
    click.echo(f"or:   SeaweedFS, with -s3.config={folder / USERS}")


@s3.command()
@_folder
def apply(folder: Path) -> None:
    """Make on the running MinIO the users of FOLDER, and what they may do. May be repeated.

    The bucket is made by `headrace auth apply`. SeaweedFS reads s3/users.json when it starts, and needs no more.
    """
    folder = folder.absolute()
    record = read_record(folder)
    if record.s3 is None:
        raise SettingsError(f"{folder} has no keys for S3: `headrace auth s3 init` makes them")
    root, users = read_root(folder), read_users(folder)
    # What it is made with is heavy to import.
    from headrace_storage.auth.minio_users import make_minio_users

    click.echo(f"{make_minio_users(record.s3.url, root, users)} users are on {record.s3.url}, each with its own policy")


def write_keys(folder: Path, record: Record, place: S3Place) -> bool:
    """Bring all files of S3 in `folder` up to date; whether the server has to be told."""
    path = folder / USERS
    before = path.read_bytes() if path.exists() else b""
    _, files = with_s3(folder, record, place)
    write(folder, files, overwrite=True)
    return path.read_bytes() != before


def show_next(folder: Path) -> None:
    """How the server is told."""
    click.echo(f"then: headrace auth s3 apply {folder}; or restart SeaweedFS, with -s3.config={folder / USERS}")
