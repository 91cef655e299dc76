"""A Vault in this process: the two engines that hold keys, for one token."""

from __future__ import annotations

import base64
import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TOKEN = "t0ken-that-nobody-may-see"  # noqa: S105 - of a fake server


class Handler(BaseHTTPRequestHandler):
    """What Vault's HTTP API answers to a client that has the token."""

    stored: ClassVar[dict[str, dict[str, Any]]]
    """Secrets of the KV engine at `kv`, by path."""

    def do_GET(self) -> None:
        found = self.stored.get(self._path("kv/data"))
        body = {"data": {"data": found, "metadata": {}}}
        self._answer(404 if found is None else 200, {"errors": []} if found is None else body)

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/v1/transit/encrypt/wm":
            sealed = base64.b64decode(asked["plaintext"])[::-1]
            text = f"vault:v1:{base64.b64encode(sealed).decode()}"
            self._answer(200, {"data": {"ciphertext": text}})
        elif self.path == "/v1/transit/decrypt/wm" and asked["ciphertext"].startswith("vault:v1:"):
            plain = base64.b64decode(asked["ciphertext"].removeprefix("vault:v1:"))[::-1]
            self._answer(200, {"data": {"plaintext": base64.b64encode(plain).decode()}})
        elif self._path("kv/data") and asked.get("options", {}).get("cas") == 0:
            is_new = self._path("kv/data") not in self.stored
            if is_new:
                self.stored[self._path("kv/data")] = asked["data"]
            self._answer(200 if is_new else 400, {"data": {"version": 1}} if is_new else {})
        else:
            self._answer(400, {})

    do_PUT = do_POST  # noqa: N815 - as inherited

    def do_DELETE(self) -> None:
        self.stored.pop(self._path("kv/metadata"), None)
        self._answer(204, {})

    def _path(self, engine: str) -> str:
        path, start = self.path.partition("?")[0], f"/v1/{engine}/"
        return path.removeprefix(start) if path.startswith(start) else ""

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        if self.headers["X-Vault-Token"] != TOKEN:
            status, body = 403, {"errors": ["permission denied"]}
        data = b"" if status == 204 else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as inherited
        """Say nothing."""


@contextlib.contextmanager
def serving_vault(folder: Path) -> Iterator[tuple[str, dict[str, dict[str, Any]]]]:
    """Serve; yield the table `[vault]` for a file in a folder, and what the KV engine holds."""
    (folder / "token").write_text(TOKEN + "\n")
    (folder / "token").chmod(0o600)
    stored: dict[str, dict[str, Any]] = {}
    handler = type("Vault", (Handler,), {"stored": stored})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        yield f'[vault]\naddress = "{address}"\ntoken = "file:token"\n', stored
        server.shutdown()
