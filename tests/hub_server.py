"""A stand-in for the Hugging Face hub: as much of its HTTP interface as its own client needs.

Repositories are commits in memory. Weights go through Git LFS and come from another host name, as
on the hub; every request is recorded.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

TOKEN = "hf_writer"  # the one account: it owns the names under `ada/`
LARGE = (".safetensors", ".bin", ".pkl", ".onnx")


class Refusal(Exception):
    """What a request is answered with when it fails."""

    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


@dataclass
class Repository:
    """A repository: its commits, oldest first, and what its branches and tags point to."""

    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    titles: list[str] = field(default_factory=list)
    references: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes], title: str, branch: str = "main") -> str:
        seed = f"{len(self.commits)} {title} {sorted(files)}"
        commit = hashlib.sha1(seed.encode()).hexdigest()
        self.commits[commit] = files
        self.titles.append(title)
        self.references[branch] = commit
        return commit

    def resolve(self, revision: str) -> str:
        commit = self.references.get(revision, revision)
        if commit not in self.commits:
            raise Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit


def blob_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def pointer_of(content: bytes) -> bytes:
    """The text that Git keeps in the place of a large file."""
    digest = hashlib.sha256(content).hexdigest()
    lines = ("version https://git-lfs.github.com/spec/v1", f"oid sha256:{digest}")
    return "\n".join([*lines, f"size {len(content)}", ""]).encode()


class HubServer:
    """The hub, for the time of a ``with`` block.

    Attributes:
        endpoint: its address.
        repositories: by name.
        requests: ``METHOD path`` of all that came.
        status: when not 0, all that every request is answered with.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.requests: list[str] = []
        self.large: dict[str, bytes] = {}
        self.status = 0
        self.yaml: list[str] = []  # the cards that were checked
        self.before_commit: Callable[[], object] = lambda: None
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self.elsewhere = f"http://localhost:{self._server.server_port}"

    def __enter__(self) -> HubServer:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Be gone: whoever asks from now on finds nobody."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()

    def add(self, name: str, files: dict[str, bytes], **options: bool) -> str:
        """Make a repository, with one commit."""
        self.repositories[name] = Repository(**options)
        return self.repositories[name].commit({".gitattributes": b"", **files}, "initial commit")

    def fetched(self) -> list[str]:
        """Return the names of the files whose contents were sent."""
        large = {hashlib.sha256(content).hexdigest(): name for name, content in self._all()}
        names = []
        for request in self.requests:
            if match := re.match(r"GET /cdn/(\w+)", request):
                names.append(large[match[1]])
            elif match := re.match(r"GET /[^/]+/[^/]+/resolve/[^/]+/(.+)", request):
                names.append(match[1])
        return sorted(names)

    def _all(self) -> list[tuple[str, bytes]]:
        return [
            file
            for repository in self.repositories.values()
            for files in repository.commits.values()
            for file in files.items()
        ]


@contextmanager
def running_hub(home: Path, patch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """Run a hub, and have the client ask it, with an empty cache and no account."""
    from huggingface_hub import constants
    from huggingface_hub.utils import close_session

    from seqlab import hub

    with HubServer() as server:
        for name, value in {
            "ENDPOINT": server.endpoint,
            "HUGGINGFACE_CO_URL_TEMPLATE": server.endpoint
            + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_XET": True,
            "HF_HUB_CACHE": str(home / "hub"),
            "HF_TOKEN_PATH": str(home / "token"),
            "HF_STORED_TOKENS_PATH": str(home / "stored_tokens"),
        }.items():
            patch.setattr(constants, name, value)
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_OIDC_RESOURCE"):
            patch.delenv(name, raising=False)
        patch.setenv("NO_PROXY", "127.0.0.1,localhost")
        patch.setattr(hub, "_told", set())
        close_session()
        yield server
        close_session()


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing."""

    def handle_all(self) -> None:
        hub, method = self.hub, self.command
        length = int(self.headers.get("Content-Length", 0))
        self.body = self.rfile.read(length)
        url = urlsplit(self.path)
        hub.requests.append(f"{method} {unquote(url.path)}")
        try:
            if hub.status:
                raise Refusal(hub.status, message="the hub is not well")
            self._route(method, url.path)
        except Refusal as refusal:
            headers = {"X-Error-Code": refusal.code, "X-Error-Message": refusal.message}
            self._send(
                refusal.status,
                json.dumps({"error": refusal.message}).encode(),
                {key: value for key, value in headers.items() if value},
            )

    do_GET = do_HEAD = do_POST = do_PUT = handle_all

    def _route(self, method: str, path: str) -> None:
        name = r"(?P<name>[^/]+/[^/]+?)"
        for pattern, answer in (
            (r"POST /api/repos/create", self._create),
            (r"POST /api/validate-yaml", self._validate),
            (rf"GET /api/models/{name}(?:/revision/(?P<revision>[^/]+))?", self._info),
            (rf"GET /api/models/{name}/tree/(?P<revision>[^/]+)(?:/)?", self._tree),
            (rf"POST /api/models/{name}/branch/(?P<branch>[^/]+)", self._branch),
            (rf"POST /api/models/{name}/preupload/(?P<revision>[^/]+)", self._preupload),
            (rf"POST /api/models/{name}/commit/(?P<revision>[^/]+)", self._commit),
            (rf"POST /{name}\.git/info/lfs/objects/batch", self._batch),
            (r"PUT /lfs/(?P<oid>\w+)", self._put),
            (r"(?:GET|HEAD) /cdn/(?P<oid>\w+)", self._content),
            (
                rf"(?:GET|HEAD) /{name}/resolve/(?P<revision>[^/]+)/(?P<file>.+)",
                self._resolve,
            ),
        ):
            if match := re.fullmatch(pattern, f"{method} {path}"):
                found = {key: unquote(value or "main") for key, value in match.groupdict().items()}
                answer(**found)
                return
        raise Refusal(400, message=f"{method} {path} is not known here")

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _json(self, data: Any) -> None:
        self._send(200, json.dumps(data).encode(), {"Content-Type": "application/json"})

    def _signed_in(self) -> bool:
        sent = self.headers.get("Authorization")
        if sent not in (None, f"Bearer {TOKEN}"):
            raise Refusal(401, message="Invalid credentials in Authorization header")
        return sent is not None

    def _repository(self, name: str, *, write: bool = False) -> Repository:
        signed_in = self._signed_in()
        repository = self.hub.repositories.get(name)
        if repository is None or (repository.private and not signed_in):
            raise Refusal(404 if signed_in else 401, "RepoNotFound", "Repository not found")
        if write:
            self._may_write(name)
        return repository

    def _may_write(self, name: str) -> None:
        if not self._signed_in():
            raise Refusal(401, message="Invalid username or password.")
        if not name.startswith("ada/"):
            raise Refusal(403, message="You don't have the rights to write here")

    def _create(self) -> None:
        asked = json.loads(self.body)
        name = f"{asked['organization']}/{asked['name']}"
        self._may_write(name)
        if name in self.hub.repositories:
            self._send(409, json.dumps({"url": f"{self.hub.endpoint}/{name}"}).encode())
            return
        self.hub.add(name, {}, private=asked.get("visibility") == "private")
        self._json({"url": f"{self.hub.endpoint}/{name}"})

    def _validate(self) -> None:
        content = json.loads(self.body)["content"]
        self.hub.yaml.append(content)
        if "license: none-such" in content:
            found = {"errors": [{"message": '"license" must be one of [mit]'}], "warnings": []}
            self._send(400, json.dumps(found).encode())
            return
        self._json({"errors": [], "warnings": []})

    def _info(self, name: str, revision: str) -> None:
        repository = self._repository(name)
        commit = repository.resolve(revision)
        self._json(
            {
                "_id": "0",
                "id": name,
                "sha": commit,
                "private": repository.private,
                "gated": repository.gated and "auto",
                "siblings": [{"rfilename": file} for file in repository.commits[commit]],
            }
        )

    def _tree(self, name: str, revision: str) -> None:
        repository = self._repository(name)
        found = []
        for file, content in repository.commits[repository.resolve(revision)].items():
            entry: dict[str, Any] = {"type": "file", "path": file, "size": len(content)}
            if file.endswith(LARGE):
                digest = hashlib.sha256(content).hexdigest()
                entry["lfs"] = {"oid": digest, "size": len(content), "pointerSize": 130}
                content = pointer_of(content)
            found.append({**entry, "oid": blob_id(content)})
        self._json(found)

    def _resolve(self, name: str, revision: str, file: str) -> None:
        repository = self._repository(name)
        commit = repository.resolve(revision)
        if repository.gated:
            raise Refusal(403, "GatedRepo", f"Access to model {name} is restricted")
        content = repository.commits[commit].get(file)
        if content is None:
            raise Refusal(404, "EntryNotFound", "Entry not found")
        headers = {"X-Repo-Commit": commit}
        if not file.endswith(LARGE):
            self._send(200, content, {**headers, "ETag": f'"{blob_id(content)}"'})
            return
        digest = hashlib.sha256(content).hexdigest()
        self.hub.large[digest] = content
        headers |= {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(content))}
        self._send(302, b"", {**headers, "Location": f"{self.hub.elsewhere}/cdn/{digest}"})

    def _content(self, oid: str) -> None:
        assert "Authorization" not in self.headers, "a token was sent to a foreign host"
        self._send(200, self.hub.large[oid], {"ETag": f'"{oid}"'})

    def _branch(self, name: str, branch: str) -> None:
        repository = self._repository(name, write=True)
        if branch in repository.references:
            raise Refusal(409, message="Reference already exists")
        repository.references[branch] = repository.references["main"]
        self._json({})

    def _preupload(self, name: str, revision: str) -> None:
        repository = self._repository(name, write=True)
        there = repository.commits[repository.resolve(revision)]
        found = []
        for asked in json.loads(self.body)["files"]:
            file = asked["path"]
            large = file.endswith(LARGE)
            entry = {"path": file, "uploadMode": "lfs" if large else "regular"}
            old = there.get(file)
            if old is not None and large:
                entry["oid"] = hashlib.sha256(old).hexdigest()
            elif old is not None:
                entry["oid"] = blob_id(old)
            found.append({**entry, "shouldIgnore": False})
        self._json({"files": found})

    def _batch(self, name: str) -> None:
        self._repository(name, write=True)
        found = []
        for asked in json.loads(self.body)["objects"]:
            upload = {"upload": {"href": f"{self.hub.elsewhere}/lfs/{asked['oid']}"}}
            found.append(
                {**asked, **({} if asked["oid"] in self.hub.large else {"actions": upload})}
            )
        self._json({"transfer": "basic", "objects": found})

    def _put(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise Refusal(400, message="the content does not fit its checksum")
        self.hub.large[oid] = self.body
        self._send(200, b"")

    def _commit(self, name: str, revision: str) -> None:
        self.hub.before_commit()
        repository = self._repository(name, write=True)
        parent = repository.resolve(revision)
        files = dict(repository.commits[parent])
        title = ""
        for line in self.body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header":
                title = value["summary"]
                if value.get("parentCommit", parent) != parent:
                    raise Refusal(412, message="A commit has happened since")
            elif entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.hub.large[value["oid"]]
            elif entry["key"] == "deletedFile":
                del files[value["path"]]
        commit = repository.commit(files, title, revision)
        url = f"{self.hub.endpoint}/{name}/commit/{commit}"
        self._json({"success": True, "commitOid": commit, "commitUrl": url})
