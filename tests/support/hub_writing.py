"""The endpoints for writing of the Hub on loopback (create, preupload, Git LFS, commit, tag), and faults.

The requests are those of huggingface_hub with Xet turned off: POST api/repos/create, api/validate-yaml,
api/datasets/<repo>/preupload/<rev>, datasets/<repo>.git/info/lfs/objects/batch, PUT lfs/<oid>, POST
api/datasets/<repo>/commit/<rev> (JSON lines) and …/tag/<rev>, GET …/commits/<rev> and api/whoami-v2; for models
api/models/<repo> and <repo>.git.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.support.hub import Hub, Repository, _Handler

LFS_ENDINGS = (".parquet", ".html", ".safetensors")


@dataclass
class Fault:
    """A fault of requests (`METHOD /path`) that match `pattern`, `times` times after the first `skip`.

    `status`: of the response; 0 breaks the connection. `late`: after the request was carried out. `seconds`: delay before.
    """

    pattern: str
    status: int | None = None
    times: int = 10**6
    skip: int = 0
    late: bool = False
    seconds: float = 0.0
    errors: tuple[str, ...] = ()  # further messages in the response
    headers: dict[str, str] = field(default_factory=dict)

    def applies_to(self, request: str) -> bool:
        if not re.search(self.pattern, request) or self.times <= 0:
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.times -= 1
        return True


def apply_fault(handler: _Handler, fault: Fault) -> bool:
    """Apply a fault; return whether the request needs no response any more."""
    time.sleep(fault.seconds)
    if fault.status is None:
        return False
    if fault.late:
        handler.response_lost = True
        return False
    if fault.status:
        errors = {"errors": [{"message": message} for message in fault.errors]} if fault.errors else {}
        handler.answer(fault.status, {"error": f"fault {fault.status}", **errors}, fault.headers)
    else:
        close_connection(handler)
    return True


def close_connection(handler: _Handler) -> None:
    handler.close_connection = True
    handler.connection.shutdown(socket.SHUT_RDWR)


def check_token(handler: _Handler) -> bool:
    """Return whether the token may write; send an error response if not."""
    if handler.headers.get("Authorization") == f"Bearer {handler.hub.token}":
        return True
    handler.answer(401, {"error": "Invalid credentials in Authorization header"})
    return False


def create(handler: _Handler) -> None:
    body = json.loads(handler.body)
    name = f"{body.get('organization') or handler.hub.user}/{body['name']}"
    if body.get("organization") not in (None, handler.hub.user, *handler.hub.organizations):
        handler.answer(403, {"error": "You don't have the rights to create a data set under this namespace"})
    elif name in handler.hub.repositories:
        handler.answer(
            409, {"error": "You already created this dataset repo", "url": f"{handler.hub.endpoint}/datasets/{name}"}
        )
    else:
        handler.hub.commit(name, {".gitattributes": b"*.parquet filter=lfs\n"})
        handler.hub.repositories[name].private = body.get("visibility") == "private"
        handler.answer(200, {"url": f"{handler.hub.endpoint}/datasets/{name}", "name": name, "id": name})


def validate_yaml(handler: _Handler) -> None:
    import yaml  # type: ignore[import-untyped]

    content = json.loads(handler.body)["content"]
    head = re.match(r"---\n(.*?)\n---\n", content, re.DOTALL)
    try:
        valid = isinstance(yaml.safe_load(head[1]) if head else None, dict)
    except yaml.YAMLError:
        valid = False
    errors = [] if valid else [{"message": "the metadata is no YAML mapping"}]
    handler.answer(200 if valid else 400, {"errors": errors, "warnings": [], "error": "bad YAML"})


def whoami(handler: _Handler) -> None:
    if check_token(handler):
        orgs = [{"name": name} for name in handler.hub.organizations]
        handler.answer(200, {"type": "user", "name": handler.hub.user, "orgs": orgs, "auth": {}})


def preupload(handler: _Handler, repository: Repository, repo: str, revision: str) -> None:
    tree = repository.commits[repository.refs["main"]]
    answers = []
    for file in json.loads(handler.body)["files"]:
        name = file["path"]
        lfs = name.endswith(LFS_ENDINGS)
        content = tree.get(name)
        oid = None if content is None else hashlib.sha256(content).hexdigest() if lfs else _blob(content)
        answers.append({"path": name, "uploadMode": "lfs" if lfs else "regular", "shouldIgnore": False, "oid": oid})
    handler.answer(200, {"files": answers})


def _blob(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def lfs_batch(handler: _Handler, repository: Repository, repo: str) -> None:
    objects = []
    for requested in json.loads(handler.body)["objects"]:
        entry: dict[str, Any] = {"oid": requested["oid"], "size": requested["size"]}
        if requested["oid"] not in handler.hub.objects:
            entry["actions"] = {"upload": {"href": f"{handler.hub.storage}/lfs/{requested['oid']}"}}
        objects.append(entry)
    handler.answer(200, {"transfer": "basic", "objects": objects})


def lfs_put(handler: _Handler, oid: str) -> None:
    """Store a large file."""
    if hashlib.sha256(handler.body).hexdigest() != oid:
        handler.answer(400, {"error": "other bytes than announced"})
    else:
        handler.hub.objects[oid] = handler.body
        handler.answer(200, {})


def commit(handler: _Handler, repository: Repository, repo: str, revision: str) -> None:
    """Commit all operations or none, under a lock, and only on top of the given parent."""
    entries = [json.loads(line) for line in handler.body.splitlines()]
    header = entries[0]["value"]
    with handler.hub.lock:
        head = repository.refs["main"]
        if header.get("parentCommit") not in (None, head):
            handler.answer(412, {"error": "A commit has happened since. Please refresh and try again."})
            return
        tree = dict(repository.commits[head])
        for entry in entries[1:]:
            value = entry["value"]
            if entry["key"] == "file":
                tree[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                tree[value["path"]] = handler.hub.objects[value["oid"]]
            elif entry["key"] == "deletedFile":
                del tree[value["path"]]
        commit_id = handler.hub.put(repository, tree, "main", header["summary"], header["description"])
    url = f"{handler.hub.endpoint}/datasets/{repo}/commit/{commit_id}"
    handler.answer(200, {"success": True, "commitOid": commit_id, "commitUrl": url})


def commits(handler: _Handler, repository: Repository, repo: str, revision: str) -> None:
    entries = [
        {"id": commit_id, "title": title, "message": message, "authors": [], "date": "2026-01-01T00:00:00.000Z"}
        for commit_id, (title, message) in reversed(repository.messages.items())
    ]
    handler.answer(200, entries)


def tag(handler: _Handler, repository: Repository, repo: str, revision: str) -> None:
    name, commit_id = json.loads(handler.body)["tag"], repository.resolved(revision)
    if name in repository.tags:
        handler.answer(409, {"error": f"Tag {name} already exists"})
    elif commit_id is None:
        handler.answer(404, {"error": "Revision not found"}, {"X-Error-Code": "RevisionNotFound"})
    else:
        repository.tags[name] = commit_id
        handler.answer(200, {})


_REPO, _REV = r"(?P<repo>[^/]+/[^/]+)", r"(?P<revision>[^/]+)"
# (method, path, handler, whether it needs a token); first of no repository, then of one.
PAGES = (
    ("POST", r"/api/repos/create", create, True),
    ("POST", r"/api/validate-yaml", validate_yaml, True),
    ("GET", r"/api/whoami-v2", whoami, True),
    ("PUT", r"/lfs/(?P<oid>[0-9a-f]{64})", lfs_put, False),
)
WRITES = (
    ("POST", rf"/api/(?:datasets|models)/{_REPO}/preupload/{_REV}", preupload),
    ("POST", rf"(?:/datasets)?/{_REPO}\.git/info/lfs/objects/batch", lfs_batch),
    ("POST", rf"/api/(?:datasets|models)/{_REPO}/commit/{_REV}", commit),
    ("POST", rf"/api/(?:datasets|models)/{_REPO}/tag/{_REV}", tag),
    ("GET", rf"/api/(?:datasets|models)/{_REPO}/commits/{_REV}", commits),
)


def answer_write(handler: _Handler, hub: Hub, path: str) -> bool:
    """Answer a request that writes; return whether it was one."""
    for method, pattern, page, needs_token in PAGES:
        if handler.command == method and (match := re.fullmatch(pattern, path)):
            if not needs_token or check_token(handler):
                page(handler, **match.groupdict())
            return True
    for method, pattern, write in WRITES:
        if handler.command == method and (match := re.fullmatch(pattern, path)):
            if check_token(handler):
                repository = handler._repository(match["repo"])
                if repository is not None:
                    write(handler, repository, **match.groupdict())
            return True
    return False
