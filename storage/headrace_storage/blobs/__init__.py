"""Files by key: the port, its stores, and the choice between them."""

from nats.aio.client import Client

from headrace_contracts.settings import Settings
from headrace_storage.blobs.jetstream import JetStreamBlobs
from headrace_storage.blobs.memory import MemoryBlobs
from headrace_storage.blobs.port import BlobInfo, BlobStore
from headrace_storage.blobs.sweep import sweep

__all__ = ["BlobInfo", "BlobStore", "JetStreamBlobs", "MemoryBlobs", "open_blobs", "sweep"]


def open_blobs(settings: Settings, nc: Client, *, of_tenant: bool = False) -> BlobStore:
    """The store these settings ask for, not yet entered: S3 where it is configured, else JetStream by way of `nc`.

    Args:
        settings: where files are, and whose we are.
        nc: used by the JetStream store, and left open.
        of_tenant: credentials that reach the tenant's own files are enough. Whoever needs all files is refused on entry
            instead of at every file.
    """
    if settings.s3 is None:
        return JetStreamBlobs(nc)
    # The S3 client is heavy to import, and most processes on one machine never need it.
    from headrace_storage.blobs.s3 import S3Blobs

    return S3Blobs(settings.s3, tenant=settings.tenant if of_tenant else None)
