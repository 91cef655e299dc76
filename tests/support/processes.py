"""`watermark-proxy serve` as a process of its own."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_ROOT: Final = Path(__file__).parents[2]
_START_S: Final = 60.0

EMBEDDED_CONFIG: Final = """
state = "."
[server]
port = 0
[upstream]
url = "http://127.0.0.1:9"
[embedded]
port = 0
[keys]
file = "KEYS.toml"
create_if_missing = true
[disclosure]
callers = ["*"]
[[model]]
name = "builtin"
[model.capabilities]
logprobs = 100
logprobs_mode = "tempered"
logit_bias = true
max_n = 8
"""
"""The built-in model behind a proxy that tells every caller what it did."""


@contextlib.contextmanager
def served(folder: Path, config: str) -> Iterator[str]:
    """Serve a configuration from a folder; yield the address."""
    (folder / "proxy.toml").write_text(config)
    log = folder / "log.txt"
    with (
        log.open("w") as out,
        subprocess.Popen(
            [sys.executable, "-m", "proxy", "serve", "--config", "proxy.toml"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(_ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        ) as process,
    ):
        try:
            yield _address(log, process)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _address(log: Path, process: subprocess.Popen[bytes]) -> str:
    deadline = time.monotonic() + _START_S
    while not (found := re.search(r"listening on (\S+?),", log.read_text())):
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
    return found[1]
