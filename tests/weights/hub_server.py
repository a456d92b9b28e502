"""A model hub on a loopback port, speaking the part of the hub's HTTP protocol that huggingface_hub uses.

    GET  /api/models/<repo>[/revision/<rev>]?blobs=True     commit, and each file's size and hash
    HEAD /<repo>/resolve/<rev>/<path>                       X-Repo-Commit, ETag; large files: X-Linked-*, 302 to the CDN
    GET  the same, or the CDN's address                     the bytes; ranges are honoured

The CDN is the same server under another host name, as the real one is another host. It can be told to misbehave.
"""

import hashlib
import json
import re
import threading
from enum import Enum, auto
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

LOGIN_PAGE = b"<!doctype html><html><body>Please log in to this network</body></html>"

# Real hubs keep what git would choke on in LFS; so small a bound lets tests use small files.
LFS_FROM_BYTES = 2000


class Mode(Enum):
    """How the hub behaves."""

    OK = auto()
    CUT_ONCE = auto()
    """The first download of a large file ends after `cut_at_bytes`; the next request may go on from there."""
    CUT_ALWAYS = auto()
    """No download of a large file gets past its first `cut_at_bytes`."""
    WRONG_BYTES = auto()
    """Large files have the right size and other content."""
    WRONG_SMALL_BYTES = auto()
    """Small files have the right size and other content."""
    HTML_API = auto()
    HTML_FILE = auto()
    """A login page answers in place of every file, as a captive portal does: with 200 and nothing of the hub's."""
    HTML_CDN = auto()
    """The hub is fine; a proxy puts its page in place of what the CDN sends."""
    UNAUTHORIZED = auto()
    GATED = auto()
    OTHER_COMMIT = auto()
    """Whatever revision is asked for, the branch's newest commit answers."""


class HubServer:
    """A hub with repositories that tests fill. Use as a context manager."""

    def __init__(self) -> None:
        self.mode = Mode.OK
        self.cut_at_bytes = 1000
        self.requests: list[tuple[str, str, str | None]] = []
        """Method, path and Range header of every request."""
        self._commits: dict[str, dict[str, dict[str, bytes]]] = {}
        self._branch: dict[str, str] = {}
        self._cut: set[str] = set()
        self.renamed: dict[str, str] = {}
        """Old names of repositories to new ones; the hub redirects."""
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> "HubServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def port(self) -> int:
        return self._server.server_address[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def commit(self, repo: str, files: dict[str, bytes]) -> str:
        """Put a new commit on the repository's main branch; its id."""
        content = repr((repo, sorted(files.items()), self._branch.get(repo)))
        commit = hashlib.sha1(content.encode()).hexdigest()
        self._commits.setdefault(repo, {})[commit] = dict(files)
        self._branch[repo] = commit
        return commit

    def rewrite(self, repo: str, commit: str, files: dict[str, bytes]) -> None:
        """Change what a commit holds, as only a dishonest or broken hub can."""
        self._commits[repo][commit] = dict(files)

    def downloads(self) -> list[str]:
        """Paths of all GETs of file content."""
        return [path for method, path, _ in self.requests if method == "GET" and not path.startswith("/api/")]

    def find(self, repo: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """Commit and files of a revision."""
        if repo not in self._branch:
            return None
        commit = self._branch[repo] if revision == "main" or self.mode is Mode.OTHER_COMMIT else revision
        files = self._commits[repo].get(commit)
        return None if files is None else (commit, files)

    def blob(self, sha256: str) -> bytes:
        """Content of a large file by its hash."""
        every = (f for commits in self._commits.values() for files in commits.values() for f in files.values())
        return next(content for content in every if hashlib.sha256(content).hexdigest() == sha256)

    def cut_now(self, key: str) -> bool:
        """Whether this download of a large file is to be cut."""
        if self.mode is Mode.CUT_ONCE and key not in self._cut:
            self._cut.add(key)
            return True
        return self.mode is Mode.CUT_ALWAYS


def listing(repo: str, commit: str, files: dict[str, bytes]) -> dict[str, object]:
    """The answer of the API."""
    siblings = []
    for path, content in files.items():
        entry: dict[str, object] = {"rfilename": path, "size": len(content), "blobId": git_sha1(content)}
        if len(content) >= LFS_FROM_BYTES:
            entry["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
        siblings.append(entry)
    return {"id": repo, "sha": commit, "siblings": siblings, "tags": [], "downloads": 0}


def git_sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((self.command, path, self.headers.get("Range")))
        old = next((name for name in self.hub.renamed if f"/{name}/" in f"{path}/"), None)
        if old is not None:
            self._send(307, b"", {"Location": self.path.replace(old, self.hub.renamed[old])})
        elif api := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?", path):
            self._api(api[1], api[2] or "main")
        elif file := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._file(file[1], file[2], file[3])
        elif path.startswith("/cdn/"):
            self._cdn(path.removeprefix("/cdn/"))
        else:
            self._send(404, b"", {})

    def _api(self, repo: str, revision: str) -> None:
        if self.hub.mode is Mode.HTML_API:
            return self._send(200, LOGIN_PAGE, {"Content-Type": "text/html"})
        found = self._found(repo, revision)
        if found is not None:
            self._send(200, json.dumps(listing(repo, *found)).encode(), {"Content-Type": "application/json"})
        return None

    def _found(self, repo: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """Commit and files, unless an error was sent in their place."""
        if self.hub.mode is Mode.UNAUTHORIZED:
            return self._send(401, b"{}", {"X-Error-Message": "Invalid username or password."})
        if self.hub.mode is Mode.GATED:
            return self._send(403, b"{}", {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted."})
        found = self.hub.find(repo, revision)
        if found is None:
            code = "RevisionNotFound" if self.hub.find(repo, "main") else "RepoNotFound"
            self._send(404, b"{}", {"X-Error-Code": code})
        return found

    def _file(self, repo: str, revision: str, name: str) -> None:
        if self.hub.mode is Mode.HTML_FILE:
            return self._send(200, LOGIN_PAGE, {"Content-Type": "text/html"})
        found = self._found(repo, revision)
        if found is None:
            return None
        commit, files = found
        if name not in files:
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        content = files[name]
        if len(content) < LFS_FROM_BYTES:
            headers = {"X-Repo-Commit": commit, "ETag": f'"{git_sha1(content)}"'}
            return self._send(200, _wrong(content) if self.hub.mode is Mode.WRONG_SMALL_BYTES else content, headers)
        sha256 = hashlib.sha256(content).hexdigest()
        linked = {"X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(len(content)), "X-Repo-Commit": commit}
        return self._send(302, b"", {**linked, "Location": f"http://localhost:{self.hub.port}/cdn/{sha256}"})

    def _cdn(self, sha256: str) -> None:
        content = self.hub.blob(sha256)
        if self.hub.mode is Mode.HTML_CDN:
            return self._send(200, LOGIN_PAGE, {"Content-Type": "text/html"})
        if self.hub.mode is Mode.WRONG_BYTES:
            content = _wrong(content)
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").rstrip("-"))
        headers = {"ETag": f'"{sha256}"'}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        cut = max(0, self.hub.cut_at_bytes - start) if self.hub.cut_now(sha256) else None
        return self._send(206 if start else 200, content[start:], headers, cut=cut)

    def _send(self, status: int, body: bytes, headers: dict[str, str], cut: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body if cut is None else body[:cut])
        if cut is not None:
            self.close_connection = True


def _wrong(content: bytes) -> bytes:
    return bytes([content[0] ^ 1]) + content[1:]
