"""The one table of which role may do what with files in S3. Pure.

A policy is a document of AWS' IAM, which MinIO and SeaweedFS read too. As with the broker, each action is one that a
role's code does: a producer neither lists nor deletes, and only the admin makes the bucket.
"""

import msgspec

from headrace_storage.auth.roles import Role

_READ = "s3:GetObject"
# An upload in parts that fails takes back its own parts; for whole files that is no right to delete.
_WRITE = ("s3:PutObject", "s3:AbortMultipartUpload")


class Statement(msgspec.Struct, frozen=True, rename="pascal"):
    """What is allowed where; resources are ARNs."""

    action: tuple[str, ...]
    resource: tuple[str, ...]
    effect: str = "Allow"


class Policy(msgspec.Struct, frozen=True, rename="pascal"):
    """All that one key may do."""

    statement: tuple[Statement, ...]
    version: str = "2012-10-17"


def s3_policy(role: Role, tenant: str | None, bucket: str) -> Policy | None:
    """What a role may do with files; None: nothing, so it has no key.

    Args:
        role: the role; producers and consumers belong to a tenant.
        tenant: whose; files of a tenant begin with its name.
        bucket: where all files are.
    """
    whole, of_tenant = f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/{tenant}/*"
    match role:
        case Role.PRODUCER:
            return Policy((Statement((_READ, *_WRITE), (of_tenant,)),))
        case Role.CONSUMER:
            return Policy((Statement((_READ,), (of_tenant,)),))
        case Role.WORKER | Role.ADMIN:
            # Both may reap: list all files, and delete those that nobody needs.
            files = Statement((_READ, *_WRITE, "s3:DeleteObject"), (f"{whole}/*",))
            of_bucket = ("s3:ListBucket", "s3:CreateBucket") if role is Role.ADMIN else ("s3:ListBucket",)
            return Policy((files, Statement(of_bucket, (whole,))))
        case Role.SCALER:
            return None


def s3_user(role: Role, tenant: str | None, bucket: str) -> str:
    """Name of a role's user and of its policy: two systems may share one server, with a bucket each."""
    return "-".join((bucket, role) if tenant is None else (bucket, role, tenant))
