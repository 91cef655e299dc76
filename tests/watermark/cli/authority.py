"""A time-stamp authority on loopback: `openssl ts` behind HTTP."""

from __future__ import annotations

import contextlib
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_CONFIG = """\
[tsa]
default_tsa = one
[one]
dir = {folder}
serial = {folder}/serial
crypto_device = builtin
signer_cert = {folder}/tsa.pem
signer_key = {folder}/tsa.key
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256, sha512
accuracy = secs:1
ess_cert_id_chain = no
ess_cert_id_alg = sha256
[ca]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
[stamper]
basicConstraints = CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = critical,timeStamping
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
"""


def openssl(folder: Path, *args: str, data: bytes = b"") -> bytes:
    done = subprocess.run(
        ["openssl", *args], input=data, cwd=folder, capture_output=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def make_authority(folder: Path) -> Path:
    """Make a certificate authority and a stamper that it vouches for; return its certificate."""
    (folder / "ts.cnf").write_text(_CONFIG.format(folder=folder))
    (folder / "serial").write_text("01\n")
    new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-config", "ts.cnf"]
    (folder / "ts.cnf").write_text(
        (folder / "ts.cnf").read_text() + "[req]\ndistinguished_name = dn\n[dn]\n"
    )
    openssl(
        folder, "req", "-x509", *new, "-keyout", "ca.key", "-out", "ca.pem", "-days", "30",
        "-subj", "/CN=Test Root", "-extensions", "ca",
    )  # fmt: skip
    openssl(folder, "req", *new, "-keyout", "tsa.key", "-out", "tsa.csr", "-subj", "/CN=Test TSA")
    openssl(
        folder, "x509", "-req", "-in", "tsa.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
        "-CAcreateserial", "-out", "tsa.pem", "-days", "30", "-extfile", "ts.cnf",
        "-extensions", "stamper",
    )  # fmt: skip
    return folder / "ca.pem"


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Answer requests for stamps; yield the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            query = self.rfile.read(int(self.headers["Content-Length"]))
            (folder / "q.tsq").write_bytes(query)
            openssl(
                folder, "ts", "-reply", "-config", "ts.cnf", "-queryfile", "q.tsq",
                "-out", "a.tsr",
            )  # fmt: skip
            data = (folder / "a.tsr").read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as inherited
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
