"""A small server that speaks the hub's download protocol; `HF_ENDPOINT` leads the libraries to it."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

Files = dict[str, bytes]
TOKEN = "hf_let_in"


@dataclass
class Repository:
    """Files by revision; `gated` is the status that those without the token get, `breaks` how often a file is cut."""

    revisions: dict[str, Files]
    gated: int | None = None
    breaks: dict[str, int] = field(default_factory=dict)

    def commit(self, revision: str) -> str | None:
        """The commit that a branch, a tag or a commit names; None if there is none."""
        commits = {name: _sha(*files, *files.values()) for name, files in self.revisions.items()}
        return commits.get(revision) or (revision if revision in commits.values() else None)

    def files(self, revision: str) -> Files:
        return next(files for name, files in self.revisions.items() if self.commit(name) == self.commit(revision))


class Asked(NamedTuple):
    """One request: the method, the path, and the range of bytes."""

    method: str
    path: str
    range: str | None


class Refused(Exception):
    """An answer that is an error: its status and the hub's word for it."""


def _sha(*parts: str | bytes) -> str:
    return hashlib.sha1(b"\0".join(part.encode() if isinstance(part, str) else part for part in parts)).hexdigest()


@contextmanager
def serve(repositories: dict[str, Repository]) -> Iterator[tuple[str, list[Asked]]]:
    """A hub with these repositories, named "models/owner/name" or "datasets/owner/name".

    Yields:
        its address, and the requests that it has had.
    """
    asked: list[Asked] = []
    handler = type("Handler", (_Handler,), {"repositories": repositories, "asked": asked})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    repositories: dict[str, Repository]
    asked: list[Asked]

    def log_message(self, *_: object) -> None:
        """Nothing is printed; `asked` has it all."""

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_GET

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        path = unquote(urlsplit(self.path).path).strip("/")
        self.asked.append(Asked(self.command, path, self.headers.get("Range")))
        try:
            if path.startswith("api/"):
                self._send(json.dumps(self._told(path.split("/")[1:], body)).encode(), {})
            else:
                self._resolve(path.split("/"))
        except Refused as refused:
            status, word = refused.args
            self._send(b"{}", {"X-Error-Code": word, "X-Error-Message": word}, status)

    def _repository(self, name: str) -> Repository:
        found = self.repositories.get(name)
        if found is None:
            raise Refused(401, "RepoNotFound")  # to those without a token a missing one looks like a private one
        if found.gated and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            raise Refused(found.gated, "GatedRepo")
        return found

    def _told(self, parts: list[str], body: str) -> object:
        """What the API says: `KIND/OWNER/NAME[/ACTION/REVISION[/PATH]]`."""
        repository = self._repository("/".join(parts[:3])) if len(parts) > 2 else None
        action, revision, *inside = parts[3:] if len(parts) > 4 else ("revision", "main")
        if repository is None or action not in ("revision", "tree", "paths-info"):
            raise Refused(404, "EntryNotFound")
        commit = repository.commit(revision)
        if commit is None:
            raise Refused(404, "RevisionNotFound")
        files = repository.files(revision)
        if action == "revision":
            siblings = [{"rfilename": path} for path in files]
            about = {"id": "/".join(parts[1:3]), "sha": commit, "siblings": siblings, "tags": [], "private": False}
            return about | {"gated": False, "disabled": False, "downloads": 0, "likes": 0}
        if action == "paths-info":
            wanted = json.loads(body)["paths"] if body.startswith("{") else parse_qs(body)["paths"]
            return [_entry(path, files[path]) for path in wanted if path in files]
        start = "/".join(inside)
        found = [_entry(path, content) for path, content in files.items() if path.startswith(start)]
        if not found:
            raise Refused(404, "EntryNotFound")
        return found

    def _resolve(self, parts: list[str]) -> None:
        """A file: `[datasets/]OWNER/NAME/resolve/REVISION/PATH`."""
        if parts[0] != "datasets":
            parts = ["models", *parts]
        if len(parts) < 6 or parts[3] != "resolve":
            raise Refused(404, "EntryNotFound")
        repository, revision, path = self._repository("/".join(parts[:3])), parts[4], "/".join(parts[5:])
        commit = repository.commit(revision)
        if commit is None:
            raise Refused(404, "RevisionNotFound")
        content, headers = repository.files(revision).get(path), {"X-Repo-Commit": commit}
        if content is None:
            headers |= {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"}
            self._send(b"", headers, 404)
            return
        headers |= {"ETag": f'"{_sha(content)}"', "Accept-Ranges": "bytes"}
        start, status = 0, 200
        if asked := self.headers.get("Range"):
            start, status = int(asked.removeprefix("bytes=").partition("-")[0]), 206
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        cut = self.command == "GET" and repository.breaks.get(path, 0) > 0
        if cut:
            repository.breaks[path] -= 1
        self._send(content[start:], headers, status, until=max(0, len(content) // 2 - start) if cut else None)

    def _send(self, content: bytes, headers: dict[str, str], status: int = 200, until: int | None = None) -> None:
        """With `until`, the connection is closed after so many of the promised bytes."""
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[:until])
        self.close_connection = until is not None


def _entry(path: str, content: bytes) -> dict[str, object]:
    return {"type": "file", "path": path, "size": len(content), "oid": _sha(content)}
