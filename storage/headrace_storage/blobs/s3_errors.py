"""What the errors of the S3 client mean for a blob."""

from typing import Final

from minio.error import InvalidResponseError, MinioException, S3Error, ServerError
from urllib3.exceptions import HTTPError

from headrace_contracts.errors import BlobError, BlobForbidden, BlobNotFound, BlobUnavailable

# All that the client raises for reasons outside this process. What the local disk raises (OSError) is not among them.
S3_FAILURES: Final = (MinioException, HTTPError)

_FORBIDDEN: Final = ("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch")


def blob_error(key: str, error: Exception) -> BlobError:
    """The BlobError for one of S3_FAILURES.

    No answer, an answer that is not S3's, and any 5xx are worth another try; other refusals are not.
    """
    match error:
        case S3Error(code="NoSuchKey"):
            return BlobNotFound(key)
        case S3Error(code="NoSuchBucket"):
            return BlobUnavailable(key, "its bucket is gone")
        case S3Error():
            status, reason = int(error.response.status), f"S3 says {error.code}: {error.message}"
            if status in (401, 403) or error.code in _FORBIDDEN:
                return BlobForbidden(key, reason)
        case ServerError():
            status, reason = int(error.status_code), str(error)
        case InvalidResponseError():
            # From a proxy or something that is no S3 server. The client keeps the status to itself.
            status, reason = int(error._code), "the answer is not one of S3"
            if status in (401, 403):
                return BlobForbidden(key, reason)
        case _:
            return BlobUnavailable(key, f"no answer from S3 ({type(error).__name__})")
    if status >= 500 or status == 429 or not isinstance(error, S3Error):
        return BlobUnavailable(key, f"{reason} [{status}]")
    return BlobError(key, f"{reason} [{status}]")


def is_beyond_end(error: Exception) -> bool:
    """Whether a range was refused for starting behind the last byte."""
    return isinstance(error, S3Error) and int(error.response.status) == 416
