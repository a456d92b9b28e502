"""Blobs in S3: MinIO, SeaweedFS, or any service with its API.

The client blocks, so its calls run in threads of their own; it never retries by itself, for whoever decides on retries
must see each failure. Keeps the hash of a blob as user metadata (`x-amz-meta-sha256`).
"""

import asyncio
import hashlib
import io
import math
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Final, Self, TypeVar
from urllib.parse import urlsplit

import urllib3
from minio import Minio
from minio.error import S3Error

from headrace_contracts.errors import (
    BlobError,
    BlobForbidden,
    BlobKeyRefused,
    BlobMismatch,
    BlobNotFound,
    BlobUnavailable,
)
from headrace_contracts.settings import S3Settings
from headrace_storage.blobs.keys import check_existing, check_new
from headrace_storage.blobs.landing import Landing, check_sha256
from headrace_storage.blobs.port import BlobInfo
from headrace_storage.blobs.s3_errors import S3_FAILURES, blob_error, is_beyond_end

# Blobs in transfer at once; each upload holds one part in memory.
_THREADS: Final = 8
_PART_BYTES: Final = 16 * 1024 * 1024
_PIECE_BYTES: Final = 1024 * 1024
_LIST_PAGE: Final = 1000
_CONNECT_TIMEOUT_S: Final = 5.0
_SHA256_HEADER: Final = "x-amz-meta-sha256"
_LONGEST_URL_S: Final = 7 * 24 * 3600
_NO_FILE: Final = "no-such-file"

T = TypeVar("T")


class S3Blobs:
    """A `BlobStore` in one bucket, created on entry if it is not there.

    Args:
        settings: service, credentials and bucket.
        tenant: whose files the credentials may be limited to, so that they may not look at the bucket; None: no limit.
        timeout_s: longest silence of the service before a call gives up.
    """

    def __init__(self, settings: S3Settings, *, tenant: str | None = None, timeout_s: float = 30.0) -> None:
        self._settings = settings
        self._bucket = settings.bucket
        self._tenant = tenant
        self._timeout = urllib3.Timeout(connect=min(_CONNECT_TIMEOUT_S, timeout_s), read=timeout_s)

    async def __aenter__(self) -> Self:
        url = urlsplit(self._settings.endpoint_url)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="headrace-s3")
        self._http = urllib3.PoolManager(maxsize=_THREADS, timeout=self._timeout, retries=False)
        self._client = Minio(
            url.netloc,
            access_key=self._settings.access_key_id,
            secret_key=self._settings.secret_access_key,
            secure=url.scheme == "https",
            # Given, so that the client does not ask the service for it.
            region=self._settings.region,
            http_client=self._http,
        )
        try:
            await self._call(self._bucket, self._ensure_bucket)
        except BlobForbidden as error:
            await self._close()
            raise BlobKeyRefused(self._settings.endpoint_url, self._settings.access_key_id, error.reason) from error
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._close()

    async def put(self, key: str, source: bytes | Path, content_type: str) -> BlobInfo:
        """Upload from memory or straight from disk, in parts where it is large, and look at what is there then."""
        check_new(key)
        stop = threading.Event()
        try:
            return await self._call(key, lambda: self._upload(key, source, content_type, stop))
        finally:
            stop.set()

    async def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        """One request; a range is a range for the service too."""
        check_existing(key)
        if length == 0:
            await self.stat(key)
            return b""
        return await self._call(key, lambda: self._download(key, start, length))

    async def get_to(self, key: str, target: Path, *, size_bytes: int, sha256: str) -> None:
        """One request, written to the file as it comes."""
        check_existing(key)
        stop = threading.Event()
        try:
            await self._call(key, lambda: self._download_to(key, Landing(key, target, size_bytes, sha256), stop))
        finally:
            stop.set()

    async def stat(self, key: str) -> BlobInfo:
        """A HEAD request; no hash if the blob was uploaded by URL."""
        check_existing(key)
        return await self._call(key, lambda: self._stat(key))

    async def delete(self, key: str) -> None:
        """Remove the object."""
        check_existing(key)
        try:
            await self._call(key, lambda: self._client.remove_object(self._bucket, key))
        except BlobNotFound:
            return

    async def list(self, prefix: str) -> AsyncIterator[BlobInfo]:
        """Page through the bucket; S3 lists neither hash nor content type."""
        found = self._client.list_objects(self._bucket, prefix=prefix, recursive=True)
        while page := await self._call(prefix, lambda: list(islice(found, _LIST_PAGE))):
            for item in page:
                # Some services list the folders they keep their objects in.
                if not item.is_dir:
                    yield BlobInfo(item.object_name, item.size, "", "", item.last_modified)

    async def presign_get(self, key: str, expires_s: float) -> str:
        """Signed here, without asking the service."""
        check_existing(key)
        url: str = self._client.presigned_get_object(self._bucket, key, expires=_expiry(expires_s))
        return url

    async def presign_put(self, key: str, expires_s: float) -> str:
        """Signed here, without asking the service."""
        check_new(key)
        url: str = self._client.presigned_put_object(self._bucket, key, expires=_expiry(expires_s))
        return url

    async def _call(self, key: str, work: Callable[[], T]) -> T:
        """Run blocking work in our threads; errors of the client become BlobErrors."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except S3_FAILURES as error:
            raise blob_error(key, error) from error

    async def _close(self) -> None:
        # Waits for calls whose caller was cancelled: they stop at their next piece, or at the timeout.
        await asyncio.to_thread(self._threads.shutdown, cancel_futures=True)
        self._http.clear()

    # What follows runs in threads.

    def _ensure_bucket(self) -> None:
        try:
            if self._client.bucket_exists(self._bucket):
                return
        except S3Error as error:
            if error.code != "AccessDenied" or self._tenant is None:
                raise
            self._check_tenants_key(self._tenant)
            return
        try:
            self._client.make_bucket(self._bucket)
        except S3Error as error:
            # Made by another process since we looked.
            if error.code not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
                raise

    def _check_tenants_key(self, tenant: str) -> None:
        """A key for one tenant's files may read those; a wrong one may not, and only an answer with a body says so."""
        try:
            self._client.get_object(self._bucket, f"{tenant}/{_NO_FILE}").close()
        except S3Error as error:
            if error.code != "NoSuchKey":
                raise

    def _upload(self, key: str, source: bytes | Path, content_type: str, stop: threading.Event) -> BlobInfo:
        with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
            upload = _Upload(key, file, stop)
            self._client.put_object(
                self._bucket,
                key,
                upload,
                upload.size_bytes,
                content_type=content_type,
                metadata={"sha256": upload.sha256},
                part_size=_PART_BYTES,
                # The client's own parallel uploads leave a thread behind for each one that fails.
                num_parallel_uploads=1,
            )
        seen = self._stat(key)
        if seen.sha256 == upload.sha256 and seen.size_bytes != upload.size_bytes:
            raise BlobUnavailable(key, f"the service kept {seen.size_bytes} of {upload.size_bytes} bytes")
        return BlobInfo(key, upload.size_bytes, upload.sha256, content_type, seen.stored_at)

    def _download(self, key: str, start: int, length: int | None) -> bytes:
        try:
            response = self._client.get_object(self._bucket, key, offset=start, length=length or 0)
        except S3Error as error:
            if is_beyond_end(error):
                return b""
            raise
        with response:
            data: bytes = response.read()
            size_bytes = int(response.headers.get("Content-Range", f"/{len(data)}").rpartition("/")[2])
            sha256 = response.headers.get(_SHA256_HEADER)
        if sha256 is not None and len(data) == size_bytes:
            check_sha256(key, hashlib.sha256(data).hexdigest(), sha256)
        return data

    def _download_to(self, key: str, landing: Landing, stop: threading.Event) -> None:
        with landing, self._client.get_object(self._bucket, key) as response:
            while piece := response.read(_PIECE_BYTES):
                if stop.is_set():
                    return
                landing.write(piece)
            landing.finish()

    def _stat(self, key: str) -> BlobInfo:
        found = self._client.stat_object(self._bucket, key)
        stored_at: datetime = found.last_modified
        return BlobInfo(key, found.size, found.metadata.get(_SHA256_HEADER, ""), found.content_type, stored_at)


class _Upload:
    """A file as the client reads it: what it gets is what was hashed, or the upload fails and replaces nothing."""

    def __init__(self, key: str, file: io.BufferedReader | io.BytesIO, stop: threading.Event) -> None:
        self._key = key
        self._file = file
        self._stop = stop
        # The hash travels ahead of the bytes, as a header, so a file is read twice.
        self.sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        self.size_bytes = file.seek(0, io.SEEK_END)
        file.seek(0)
        self._digest = hashlib.sha256()

    def read(self, size: int) -> bytes:
        """The next bytes.

        Raises:
            BlobMismatch: the file is not what it was when it was hashed.
            BlobError: the caller has gone.
        """
        if self._stop.is_set():
            raise BlobError(self._key, "the upload was cut off")
        data = self._file.read(size)
        self._digest.update(data)
        at_end = self._file.tell() == self.size_bytes
        if len(data) < size or (at_end and self._digest.hexdigest() != self.sha256):
            raise BlobMismatch(self._key, "its file changed while it was uploaded")
        return data


def _expiry(expires_s: float) -> timedelta:
    """A time S3 accepts: whole seconds, at most a week."""
    if not 0 < expires_s <= _LONGEST_URL_S:
        raise ValueError(f"expires_s is {expires_s:g} and must be above 0 and at most {_LONGEST_URL_S} (7 days)")
    return timedelta(seconds=math.ceil(expires_s))
