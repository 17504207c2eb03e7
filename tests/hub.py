"""A hub on this machine: as much of the real one's HTTP interface as its client needs to find and fetch a repository.

The client is the real one; it is pointed here by HF_ENDPOINT.
"""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Repository:
    """Files by name; whether they may be had without a token; and names of those that are cut off half way."""

    files: dict[str, bytes] = field(default_factory=dict)
    gated: bool = False
    cut: tuple[str, ...] = ()


def of_folder(folder: Path) -> Repository:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return Repository({str(path.relative_to(folder)): path.read_bytes() for path in paths})


@contextmanager
def serve(repositories: dict[str, Repository]) -> Iterator[str]:
    """The address of a hub with these repositories."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(body))} | headers).items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def refuse(self, code: str) -> None:
            self.answer(401, b"{}", X_Error_Code=code, X_Error_Message="refused", Content_Type="application/json")

        def do_GET(self) -> None:
            parts = self.path.split("?")[0].strip("/").split("/")
            api = parts[:2] == ["api", "models"]
            name = "/".join(parts[2:4] if api else parts[:2])
            repository = repositories.get(name)
            if repository is None:
                self.refuse("RepoNotFound")
            elif api and "tree" in parts:
                entries = [
                    {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                    for path, data in repository.files.items()
                ]
                self.answer(200, json.dumps(entries).encode(), Content_Type="application/json")
            elif api:
                siblings = [{"rfilename": path} for path in repository.files]
                facts = {"_id": "1", "id": name, "modelId": name, "sha": COMMIT, "private": False, "siblings": siblings}
                self.answer(200, json.dumps(facts).encode(), Content_Type="application/json")
            elif repository.gated:
                self.refuse("GatedRepo")
            else:
                file = "/".join(parts[4:])
                data = repository.files[file]
                known = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X_Repo_Commit": COMMIT}
                if file in repository.cut and self.command == "GET":
                    self.answer(200, data[: len(data) // 2], **known, Content_Length=str(len(data)))
                    self.close_connection = True
                else:
                    self.answer(200, data, **known | {"Content_Length": str(len(data))})

        do_HEAD = do_GET

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
