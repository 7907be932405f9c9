"""A Hub on loopback for the real `huggingface_hub` client: repositories in memory, and the endpoints for reading.

    with Hub() as hub:
        commit = hub.commit("org/name", {"data/train.jsonl": b"…"})
        env = hub.environment(tmp_path)   # for a subprocess: the client reads it at import

Endpoints are those that huggingface_hub 1.x and 2.x and datasets 5 call: api/datasets/<repo>[/revision/<rev>],
…/tree/<rev>[/<path>], …/paths-info/<rev>, …/refs, and datasets/<repo>/resolve/<rev>/<path> (HEAD and GET, ranges).
hub_writing.py has the endpoints for writing, and the faults that a test puts into `hub.faults`.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.support.hub_writing import Fault, answer_write, apply_fault, close_connection


@dataclass
class Repository:
    """A data set: its commits, oldest first, each with all its files; branches and tags by name."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)  # branches
    tags: dict[str, str] = field(default_factory=dict)
    messages: dict[str, tuple[str, str]] = field(default_factory=dict)  # title and description of each commit
    gated: bool = False  # files need accepted terms, which no user here has
    private: bool = False  # visible with a token only

    def resolved(self, revision: str) -> str | None:
        """Return the commit of a branch, tag or commit id; None where there is none."""
        revision = self.refs.get(revision) or self.tags.get(revision, revision)
        return revision if revision in self.commits else None


class Hub:
    """The server, on a free port of 127.0.0.1, in a thread; `requests` lists the requests, as `GET /path`."""

    def __init__(self, token: str = "hf_loopback") -> None:
        self.token = token
        self.repositories: dict[str, Repository] = {}
        self.requests: list[str] = []
        self.user, self.organizations = "alice", ("org", "o")
        self.objects: dict[str, bytes] = {}  # of Git LFS, by SHA-256
        self.faults: list[Fault] = []
        self.leaks: list[str] = []  # requests to the storage, which is another host, that carried a token
        self.lock = threading.RLock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Handler,), {"hub": self}))
        # shutdown() waits for the end of a poll
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> Hub:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def storage(self) -> str:
        """The storage of large files: another host by name, as on the real Hub."""
        return self.endpoint.replace("127.0.0.1", "localhost")

    def environment(self, home: Path, **more: str) -> dict[str, str]:
        """Environment variables that make the client use this Hub, with its caches below `home` and no real token."""
        return {
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(home),
            "HF_TOKEN": self.token,
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            **more,
        }

    def commit(self, repo: str, files: Mapping[str, bytes], branch: str = "main") -> str:
        """Add or replace `files` on a branch, creating the repository if needed; return the commit's id."""
        repository = self.repositories.setdefault(repo, Repository())
        tree = {**repository.commits.get(repository.refs.get(branch, ""), {}), **files}
        return self.put(repository, tree, branch)

    def put(
        self, repository: Repository, tree: Mapping[str, bytes], branch: str, title: str = "", message: str = ""
    ) -> str:
        """Commit a whole tree on a branch; return the commit's id."""
        listing = "".join(f"{name} {hashlib.sha1(data).hexdigest()}\n" for name, data in sorted(tree.items()))
        about = f"{repository.refs.get(branch, '')}\n{title}\n{message}\n{listing}"
        commit = hashlib.sha1(about.encode()).hexdigest()
        repository.commits[commit] = dict(tree)
        repository.messages[commit] = (title, message)
        repository.refs[branch] = commit
        return commit


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    response_lost = False  # the connection breaks before the response
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._route()

    def do_GET(self) -> None:
        self._route()

    def do_POST(self) -> None:
        self._route()

    def do_PUT(self) -> None:
        self._route()

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _route(self) -> None:
        url = urlsplit(self.path)
        path, self.query = unquote(url.path), parse_qs(url.query)
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.response_lost = False
        if self.headers.get("Authorization") and (self.headers.get("Host") or "").startswith("localhost"):
            self.hub.leaks.append(path)
        request = f"{self.command} {path}"
        self.hub.requests.append(request)
        for fault in self.hub.faults:
            if fault.applies_to(request) and apply_fault(self, fault):
                return
        if answer_write(self, self.hub, path):
            return
        for pattern, answer in _ROUTES:
            if match := re.fullmatch(pattern, path):
                repository = self._repository(match["repo"])
                if repository is not None:
                    answer(self, repository, **match.groupdict())
                return
        self.answer(404, {"error": f"no such page: {path}"})

    def _repository(self, repo: str) -> Repository | None:
        """Return the repository, or None after an error response; like the Hub, hide private ones as if they did not exist."""
        repository = self.hub.repositories.get(repo)
        authorized = self.headers.get("Authorization") == f"Bearer {self.hub.token}"
        if repository is None or (repository.private and not authorized):
            self.answer(404 if authorized else 401, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
            return None
        return repository

    def _commit(self, repository: Repository, revision: str) -> str | None:
        commit = repository.resolved(revision)
        if commit is None:
            self.answer(404, {"error": f"Invalid rev id: {revision}"}, {"X-Error-Code": "RevisionNotFound"})
        return commit

    def info(self, repository: Repository, repo: str, revision: str | None = None) -> None:
        if commit := self._commit(repository, revision or "main"):
            siblings = [{"rfilename": name} for name in sorted(repository.commits[commit])]
            info = {"_id": repo, "id": repo, "sha": commit, "private": repository.private, "gated": repository.gated}
            self.answer(200, {**info, "tags": [], "downloads": 0, "likes": 0, "siblings": siblings})

    def refs(self, repository: Repository, repo: str) -> None:
        branches = [{"name": n, "ref": f"refs/heads/{n}", "targetCommit": c} for n, c in repository.refs.items()]
        tags = [{"name": n, "ref": f"refs/tags/{n}", "targetCommit": c} for n, c in repository.tags.items()]
        self.answer(200, {"branches": branches, "tags": tags, "converts": []})

    def tree(self, repository: Repository, repo: str, revision: str, path: str | None = None) -> None:
        if commit := self._commit(repository, revision):
            below = f"{path.strip('/')}/" if path and path.strip("/") else ""
            tree = repository.commits[commit]
            entries = {name: _file(name, data) for name, data in tree.items() if name.startswith(below)}
            if self.query.get("recursive", ["false"])[0].lower() not in ("true", "1"):
                entries = dict(_level(entries, below))
            if below and not entries:
                self.answer(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
            else:
                self.answer(200, [entries[name] for name in sorted(entries)])

    def paths_info(self, repository: Repository, repo: str, revision: str) -> None:
        if commit := self._commit(repository, revision):
            if "json" in (self.headers.get("Content-Type") or ""):
                paths = json.loads(self.body)["paths"]
            else:
                paths = parse_qs(self.body.decode()).get("paths", [])
            tree = repository.commits[commit]
            self.answer(200, [_file(name, tree[name]) for name in paths if name in tree])

    def resolve(self, repository: Repository, repo: str, revision: str, path: str) -> None:
        if repository.gated:
            self.answer(403, {"error": "Access to this repository is restricted"}, {"X-Error-Code": "GatedRepo"})
        elif commit := self._commit(repository, revision):
            data = repository.commits[commit].get(path)
            if data is None:
                self.answer(
                    404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit}
                )
                return
            headers = {"X-Repo-Commit": commit, "ETag": f'"{_blob(data)}"', "Accept-Ranges": "bytes"}
            byte_range = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
            if byte_range:
                start, end = int(byte_range[1]), min(int(byte_range[2] or len(data)), len(data) - 1)
                headers["Content-Range"] = f"bytes {start}-{end}/{len(data)}"
                self.send(206, data[start : end + 1], "application/octet-stream", headers)
            else:
                self.send(200, data, "application/octet-stream", headers)

    def answer(self, status: int, value: Any, headers: Mapping[str, str] | None = None) -> None:
        """Send JSON; an error message also in the header that the client reads."""
        all_headers = dict(headers or {})
        if status >= 400:
            all_headers["X-Error-Message"] = value["error"]
        self.send(status, json.dumps(value).encode(), "application/json", all_headers)

    def send(self, status: int, data: bytes, kind: str, headers: Mapping[str, str]) -> None:
        if self.response_lost:
            close_connection(self)
            return
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def _blob(data: bytes) -> str:
    """Return Git's id of a file, which the Hub uses as its ETag."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _file(name: str, data: bytes) -> dict[str, Any]:
    return {"type": "file", "path": name, "size": len(data), "oid": _blob(data)}


def _level(entries: Mapping[str, dict[str, Any]], below: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the files and folders directly in a folder."""
    level = []
    for name, entry in entries.items():
        folder, deeper, _ = name.removeprefix(below).partition("/")
        path = below + folder
        level.append(
            (path, {"type": "directory", "path": path, "size": 0, "oid": _blob(path.encode())} if deeper else entry)
        )
    return level


_REPO = r"(?P<repo>[^/]+/[^/]+)"
_REV = r"(?P<revision>[^/]+)"
_ROUTES = (
    (rf"/api/(?:datasets|models)/{_REPO}", _Handler.info),
    (rf"/api/(?:datasets|models)/{_REPO}/revision/{_REV}", _Handler.info),
    (rf"/api/(?:datasets|models)/{_REPO}/refs", _Handler.refs),
    (rf"/api/(?:datasets|models)/{_REPO}/tree/{_REV}(?P<path>/.*)?", _Handler.tree),
    (rf"/api/(?:datasets|models)/{_REPO}/paths-info/{_REV}", _Handler.paths_info),
    (rf"(?:/datasets)?/{_REPO}/resolve/{_REV}/(?P<path>.+)", _Handler.resolve),
)
