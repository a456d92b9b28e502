"""Talks to a model hub through huggingface_hub: resolve a revision, list its files, fetch one, check its bytes.

HF_ENDPOINT and HF_TOKEN are honoured. Every failure becomes one sentence; nothing that a hub sends is believed before
its size and hash are what the hub's own listing says.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from headrace_contracts.errors import WeightsError
from headrace_workers.weights.hub_files import HubFile
from headrace_workers.weights.manifest import WeightFile, measure

# For answers about a repository; a silent download ends after HF_HUB_DOWNLOAD_TIMEOUT.
_TIMEOUT_S = 30.0

Advance = Callable[[int], None]


class Revision(msgspec.Struct, frozen=True):
    """What a branch, tag or commit of a repository is now."""

    commit: str
    files: tuple[HubFile, ...]


class Hub:
    """One hub; `endpoint` None means HF_ENDPOINT, else the public one."""

    def __init__(self, endpoint: str | None = None) -> None:
        # Plain HTTP follows redirects, proxies and mirrors; the chunk protocol needs further hosts. Read at import.
        os.environ.setdefault("HF_HUB_DISABLE_XET", "1")
        from huggingface_hub import HfApi

        self._api = HfApi(endpoint=endpoint, library_name="headrace")
        self.endpoint: str = self._api.endpoint

    def resolve(self, repo: str, revision: str | None = None) -> Revision:
        """The commit and listing of a revision; None: the repository's default branch.

        Raises:
            WeightsError: no such repository or revision, no access, or no hub that answers.
        """
        with self._errors(f"{repo} at {revision or 'its default branch'}", repo):
            try:
                info = self._api.model_info(repo, revision=revision, files_metadata=True, timeout=_TIMEOUT_S)
            except (ValueError, TypeError, KeyError) as error:
                # No JSON, or JSON of something else. HTTP errors are no ValueError, but for a bad request.
                if isinstance(error, OSError):
                    raise
                raise WeightsError(self._no_hub(repo)) from error
        if info.sha is None or info.siblings is None:
            raise WeightsError(self._no_hub(repo))
        return Revision(info.sha, tuple(self._listed(repo, sibling) for sibling in info.siblings))

    def fetch(self, repo: str, commit: str, file: HubFile, folder: Path, advance: Advance) -> WeightFile:
        """Download one file to `folder` and return what arrived, checked against the listing.

        A file that is there already and right is not fetched again; one that is wrong is removed.

        Raises:
            WeightsError: it could not be had, or is not what the hub lists.
        """
        present = _checked(folder, file)
        if present is not None:
            advance(file.size_bytes)
            return present
        (folder / file.path).unlink(missing_ok=True)
        with self._errors(f"{file.path} of {repo}", repo):
            self._api.hf_hub_download(
                repo,
                file.path,
                revision=commit,
                local_dir=folder,
                # Not the user's own cache: what is fetched here is judged by what this hub sends now.
                cache_dir=folder / ".cache" / "none",
                tqdm_class=partial(_Bar, advance=advance),
            )
        fetched = _checked(folder, file)
        if fetched is None:
            (folder / file.path).unlink(missing_ok=True)
            raise WeightsError(
                f"{file.path} of {repo} came with other bytes than {self.endpoint} lists for commit {commit[:12]}: "
                "a proxy may have changed it; try again, or another network"
            )
        return fetched

    def _listed(self, repo: str, sibling: Any) -> HubFile:  # noqa: ANN401 huggingface_hub has no types here
        name: str = sibling.rfilename
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise WeightsError(
                f"{self.endpoint} lists a file {name!r} in {repo} that would land outside its folder: refused"
            )
        if sibling.size is None or (sibling.lfs is None and sibling.blob_id is None):
            raise WeightsError(f"{self.endpoint} lists no size or hash of {name} in {repo}: it cannot be checked")
        if sibling.lfs is not None:
            return HubFile(name, sibling.lfs.size, sibling.lfs.sha256, None)
        return HubFile(name, sibling.size, None, sibling.blob_id)

    @contextmanager
    def _errors(self, what: str, repo: str) -> Iterator[None]:
        """Turn whatever huggingface_hub and its HTTP client raise into one sentence."""
        from httpx2 import HTTPError
        from huggingface_hub import errors

        try:
            yield
        except errors.OfflineModeIsEnabled as error:
            raise WeightsError(f"cannot fetch {what}: HF_HUB_OFFLINE is set; unset it to pull") from error
        except errors.GatedRepoError as error:
            raise WeightsError(
                f"{repo} is gated: accept its terms at {self.endpoint}/{repo} and set HF_TOKEN to that account's token"
            ) from error
        except errors.RepositoryNotFoundError as error:
            raise WeightsError(
                f"{self.endpoint} has no repository {repo}, or it is private: check the name, or set HF_TOKEN"
            ) from error
        except errors.RevisionNotFoundError as error:
            raise WeightsError(
                f"{self.endpoint} has no longer what was asked: {what}; `--update` takes the present commit"
            ) from error
        except errors.HfHubHTTPError as error:
            raise WeightsError(self._refused(what, error)) from error
        except errors.LocalEntryNotFoundError as error:
            # huggingface_hub looked for a copy on this machine because the hub's answer was no good.
            cause = error.__cause__
            if cause is None or isinstance(cause, errors.FileMetadataError):
                raise WeightsError(self._no_hub(what)) from error
            sentence = self._refused if isinstance(cause, errors.HfHubHTTPError) else self._failed
            raise WeightsError(sentence(what, cause)) from error
        except (HTTPError, OSError, ValueError) as error:
            raise WeightsError(self._failed(what, error)) from error

    def _refused(self, what: str, error: Any) -> str:  # noqa: ANN401 huggingface_hub has no types here
        status: int = error.response.status_code
        if status in (401, 403):
            return f"{self.endpoint} refuses {what} (HTTP {status}): check the repository's name and HF_TOKEN"
        return self._failed(what, error)

    def _failed(self, what: str, error: BaseException) -> str:
        if str(error).startswith("Consistency check failed"):
            return (
                f"{what} came from {self.endpoint} with another size than it lists: "
                "the connection was cut, or a login page or proxy answered in its place; try again"
            )
        lines = str(error).strip().splitlines()
        reason = lines[0].rstrip(".")[:300] if lines else type(error).__name__
        return f"cannot fetch {what} from {self.endpoint} ({reason}): try again"

    def _no_hub(self, what: str) -> str:
        return (
            f"the answer about {what} is not that of a model hub: a login page, captive portal or proxy stands "
            f"between, or HF_ENDPOINT ({self.endpoint}) names no hub; open it in a browser"
        )


def _checked(folder: Path, file: HubFile) -> WeightFile | None:
    """What is on disk, if it is what the hub lists."""
    found = measure(folder, file.path)
    if found is None or found.size_bytes != file.size_bytes:
        return None
    if file.sha256 is not None:
        return found if found.sha256 == file.sha256 else None
    content = (folder / file.path).read_bytes()
    # The hash git knows a blob by; it is no proof against forgery, but it is what the hub lists for small files.
    digest = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    return found if digest == file.git_sha1 else None


class _Bar:
    """Looks enough like a progress bar to huggingface_hub; passes on how many bytes came, and shows nothing."""

    def __init__(self, *, advance: Advance, **_: object) -> None:
        self._advance = advance

    def __enter__(self) -> "_Bar":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, n: float | None = 1) -> None:
        """`n` more bytes; negative when a file starts again."""
        self._advance(int(n or 0))
