"""A Hub on the loopback: the few requests that huggingface_hub makes to list and download a repository, and faults on purpose."""

from __future__ import annotations

import hashlib
import json
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "a" * 40


class FakeHub:
    """repositories: name -> file name -> content. revisions: what may stand after the @. cut: file -> where its next answer ends.
    wrong: file -> content that is sent in its place. asked: (method, path, Range header) of every request."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.gated: set[str] = set()
        self.revisions = {"main", "v1", COMMIT}
        self.cut: dict[str, int] = {}
        self.wrong: dict[str, bytes] = {}
        self.broken = False
        self.asked: list[tuple[str, str, str | None]] = []

    @property
    def downloaded(self) -> list[str]:
        return sorted({path.split("/", 5)[-1] for method, path, _ in self.asked if method == "GET" and "/resolve/" in path})


@contextmanager
def serve(hub: FakeHub) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer(False)

        def do_GET(self) -> None:
            self.answer(True)

        def answer(self, with_body: bool) -> None:
            path = urllib.parse.unquote(urllib.parse.urlparse(self.path).path)
            hub.asked.append((self.command, path, self.headers.get("Range")))
            parts = path.strip("/").removeprefix("datasets/").split("/")
            name = "/".join(parts[2:4] if parts[0] == "api" else parts[:2])
            if hub.broken:
                return self.send(503, b"busy", {})
            if name not in hub.repositories:
                return self.send(401, b"{}", {"X-Error-Code": "RepoNotFound"})
            files = hub.repositories[name]
            if parts[0] == "api":
                return self.list(parts, name, files)
            revision, file = parts[3], "/".join(parts[4:])
            if revision not in hub.revisions:
                return self.send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            if name in hub.gated:
                return self.send(403, b"{}", {"X-Error-Code": "GatedRepo"})
            if file not in files:
                return self.send(404, b"{}", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
            return self.give(file, files[file], with_body)

        def list(self, parts: list[str], name: str, files: dict[str, bytes]) -> None:
            revision = parts[5] if len(parts) > 5 else "main"
            if revision not in hub.revisions:
                return self.send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            if len(parts) > 4 and parts[4] == "tree":
                listed = [{"type": "file", "path": file, "size": len(data), "oid": "0" * 40} for file, data in files.items()]
                return self.send(200, json.dumps(listed).encode(), {"Content-Type": "application/json"})
            info = {"_id": "x", "id": name, "modelId": name, "sha": COMMIT, "private": False, "tags": [], "downloads": 0, "likes": 0,
                    "siblings": [{"rfilename": file} for file in files]}  # fmt: skip
            return self.send(200, json.dumps(info).encode(), {"Content-Type": "application/json"})

        def give(self, file: str, data: bytes, with_body: bool) -> None:
            headers = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
            start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").split("-")[0])
            data = hub.wrong.get(file, data) if with_body else data
            status = 206 if self.headers.get("Range") else 200
            if status == 206:
                headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            if with_body and file in hub.cut:
                stop = hub.cut.pop(file)
                self.send_response(status)
                for key, value in {**headers, "Content-Length": str(len(data) - start)}.items():
                    self.send_header(key, value)
                self.end_headers()
                self.wfile.write(data[start:stop])
                self.wfile.flush()
                self.close_connection = True
                return
            self.send(status, data[start:], headers)

        def send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
