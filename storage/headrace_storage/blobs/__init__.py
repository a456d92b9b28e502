"""Files by key: the port, its stores, and the choice between them."""

from nats.aio.client import Client

from headrace_contracts.settings import Settings
from headrace_storage.blobs.jetstream import JetStreamBlobs
from headrace_storage.blobs.memory import MemoryBlobs
from headrace_storage.blobs.port import BlobInfo, BlobStore
from headrace_storage.blobs.sweep import sweep

__all__ = ["BlobInfo", "BlobStore", "JetStreamBlobs", "MemoryBlobs", "open_blobs", "sweep"]


def open_blobs(settings: Settings, nc: Client) -> BlobStore:
    """The store these settings ask for, not yet entered: S3 where it is configured, else JetStream by way of `nc`.

    The JetStream store uses the connection and leaves it open.
    """
    if settings.s3 is None:
        return JetStreamBlobs(nc)
    # The S3 client is heavy to import, and most processes on one machine never need it.
    from headrace_storage.blobs.s3 import S3Blobs

    return S3Blobs(settings.s3)
