"""Users and policies on a running MinIO, made as `s3/users.json` says. SeaweedFS reads that file itself."""

from typing import Final
from urllib.parse import urlsplit

import msgspec
import urllib3
from minio.credentials import StaticProvider
from minio.error import MinioAdminException
from minio.minioadmin import MinioAdmin

from headrace_contracts.errors import SettingsError
from headrace_storage.auth.s3_users import ROOT_USER, Credential, Users

_TIMEOUT_S: Final = 10.0
_REGION: Final = "us-east-1"
_REFUSED: Final = ("401", "403")


def make_minio_users(url: str, root: Credential, users: Users) -> int:
    """Make or mend every user and policy, and leave all others alone; returns how many users. May be repeated.

    Args:
        url: of the server.
        root: the key that it was started with.
        users: who is to be there.

    Raises:
        SettingsError: the server does not answer, is no MinIO, or refuses root's key.
    """
    of_roles = [user for user in users.identities if user.policy_names]
    parts = urlsplit(url)
    admin = MinioAdmin(
        endpoint=parts.netloc,
        credentials=StaticProvider(root.access_key, root.secret_key),
        region=_REGION,
        secure=parts.scheme == "https",
        http_client=urllib3.PoolManager(timeout=urllib3.Timeout(_TIMEOUT_S), retries=False),
    )
    try:
        # Looked at first: to another server the writes below are uploads, with the keys in them.
        msgspec.json.decode(admin.policy_list(), type=dict[str, msgspec.Raw])
        for policy in users.policies:
            admin.policy_add(policy.name, policy=msgspec.json.decode(policy.content))
        for user in of_roles:
            [credential], [policy_name] = user.credentials, user.policy_names
            admin.user_add(credential.access_key, credential.secret_key)
            # In place of what the user had: attaching adds to it, and refuses what is there.
            admin.policy_set(policy_name, user=credential.access_key)
    except (MinioAdminException, msgspec.DecodeError, urllib3.exceptions.HTTPError) as error:
        raise SettingsError(f"users of {url}: {_reason(error)}") from error
    return len(of_roles)


def _reason(error: Exception) -> str:
    match error:
        case MinioAdminException() if error._code in _REFUSED:
            return (
                f"it refuses its root key, which is in {ROOT_USER} beside its password: put in what it was started with"
            )
        case MinioAdminException() if error._code == "404":
            return "it is no MinIO. SeaweedFS takes users from s3/users.json (-s3.config)"
        case MinioAdminException():
            return f"it says {error}"
        case msgspec.DecodeError():
            return "it is no MinIO: its answer is not one of MinIO"
        case _:
            return f"no answer ({type(error).__name__})"
