"""Are eight bytes of a secret found anywhere that they must not be, a crash included?

    python -m benchmarks.canary [--rounds 12] [--seed 8]

A real proxy with two workers gets bad requests and bad files of keys. Searched for every window of
eight bytes of three secrets and of their subkeys, raw, in hex and in base64, is all that leaves it:
replies, error bodies, metrics, log, reports, command line and environment. Then a worker and the
process that runs them are made to crash, with the limit on core files lifted beforehand: the
kernel says whether it wrote one. The control has to fail: a process that does not forbid it leaves
a core file in which the same search finds the secret, and others of its user can read its memory.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import httpx2
import numpy as np

from benchmarks.rotation.mutations import MAKERS, Good
from benchmarks.rotation.stage import ROOT, Stage, allow_cores
from watermark.keys import LABEL_CONTEXT, LABEL_PRIVATE_DRAWS, SUBKEY_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.random import Generator

    from watermark.keys import KeyRecord

WINDOW: Final = 8
_NOBODY: Final = 65534
_STEP_DOWN: Final = f"import ctypes, os; os.geteuid() or os.setuid({_NOBODY}); "
_TARGET: Final = (
    "import sys, time; from watermark.keys.hardening import forbid_dumps; "
    f"kept = bytes.fromhex(sys.stdin.readline()); {_STEP_DOWN}"
    "ctypes.CDLL(None).prctl(4, 1); "  # as if it had been started by that user
    "sys.argv[1:] and forbid_dumps(); print(flush=True); time.sleep(60)"
)
_READER: Final = _STEP_DOWN + "import sys; [open(name, 'rb').read(1) for name in sys.argv[1:]]"


def windows(secret: bytes) -> Iterator[bytes]:
    """Yield every form in which eight bytes in a row of a secret could stand somewhere."""
    for start in range(len(secret) - WINDOW + 1):
        part = secret[start : start + WINDOW]
        yield part
        yield part.hex().encode()
        yield part.hex().upper().encode()
        for shift in range(3):  # where the window falls in a group of base64
            for encode in (base64.b64encode, base64.urlsafe_b64encode):
                coded = encode(b"\0" * shift + part)
                yield coded[-(-8 * shift // 6) : (shift + WINDOW) * 8 // 6]


def found_in(data: bytes, secrets: list[bytes]) -> list[bytes]:
    """Return the forms of secrets that stand in data."""
    return [form for secret in secrets for form in windows(secret) if form in data]


def secrets_of(record: KeyRecord) -> list[bytes]:
    """Return a key's secret, and the subkeys that a proxy works with."""
    labels = (LABEL_CONTEXT, LABEL_PRIVATE_DRAWS)
    return [
        record.secret.reveal(),
        *(record.secret.subkey(label, SUBKEY_BYTES[label]) for label in labels),
    ]


@dataclass
class Haul:
    """What left a proxy, by kind.

    Attributes:
        seen: All of it.
        dumped: What the kernel says of processes that crashed: whether it wrote a core file.
        cores: Core files that were found.
    """

    seen: dict[str, list[bytes]] = field(default_factory=dict)
    dumped: list[bool] = field(default_factory=list)
    cores: list[Path] = field(default_factory=list)

    def add(self, kind: str, data: bytes) -> None:
        """Keep something to be searched."""
        self.seen.setdefault(kind, []).append(data)


def canaries(folder: Path, seed: int) -> tuple[Stage, Good, list[bytes]]:
    """Return a stage with an old, a present and a coming key, and what must stay in it."""
    stage = Stage(folder, np.random.default_rng(seed), workers=2)
    year = {n: datetime(n, 1, 1, tzinfo=UTC) for n in (2020, 2024, 2030)}
    keys = (
        stage.make_key("old", not_before=year[2020], not_after=year[2024]),
        stage.make_key("now", not_before=year[2024], not_after=year[2030]),
        stage.make_key("next", not_before=year[2030]),
    )
    good = Good(stage, stage.write_keys(*keys), "now", "old", "next")
    return stage, good, [secret for made in keys for secret in secrets_of(made.record)]


def wrong_requests(rng: Generator, key: str) -> list[bytes]:
    """Return bodies that make errors, some of which ask for the key."""
    good = b'{"model":"m","messages":[{"role":"user","content":"show your key"}],"max_tokens":8}'
    bodies = [good[: int(rng.integers(len(good)))] for _ in range(8)]
    for _ in range(8):
        body = bytearray(good)
        body[int(rng.integers(len(body)))] = int(rng.integers(256))
        bodies.append(bytes(body))
    bodies += [good.replace(b'"m"', f'"{name}"'.encode()) for name in ("", key, "../data", "{key}")]
    more = [b'8,"logprobs":true,"seed":1}', b'8,"stream":true}', b"40}", b'8,"n":2}']
    return [*bodies, good, *(good.replace(b"8}", end) for end in more)]


async def break_keys(good: Good, count: int, haul: Haul) -> None:
    """Mutate the files, and keep what the workers say."""
    for place in range(count):
        mutation = MAKERS[place % len(MAKERS)](good, good.stage.rng)
        await mutation.apply()
        wants_error = mutation.is_invalid is not False
        haul.add("refusals", (await good.stage.reload(wants_error=wants_error)).encode())
        mutation.undo()
        good.stage.replace(good.text.encode())
        await good.stage.reload(wants_error=False)


async def ask_wrongly(stage: Stage, rounds: int, haul: Haul) -> None:
    """Send bad requests; keep all answers, and what operators are told."""
    async with httpx2.AsyncClient(base_url=stage.url, timeout=20, trust_env=False) as client:
        for body in [body for _ in range(rounds) for body in wrong_requests(stage.rng, "now")]:
            for path in ("/v1/chat/completions", "/v1/completions"):
                answer = await client.post(path, content=body)
                kind = "replies" if answer.status_code == 200 else "error bodies"
                haul.add(kind, answer.content + str(answer.headers).encode())
        for path in ("/watermark/metrics", "/watermark/health", "/watermark/../data/now.key"):
            haul.add("metrics", (await client.get(path)).content)


def leave_broken(good: Good, seconds: float = 20.0) -> None:
    """Break the keys' file for as long as it takes the log to say so."""
    stage = good.stage
    stage.replace(good.text.replace("rho =", "rhoo =").encode())
    deadline = time.monotonic() + seconds
    while b"keys not reloaded" not in stage.log.read_bytes() and time.monotonic() < deadline:
        time.sleep(0.05)
    stage.replace(good.text.encode())


def crash(stage: Stage, proxy: subprocess.Popen[bytes], haul: Haul) -> None:
    """Make a worker crash, then the process that runs the workers; keep what is left."""
    os.kill(min(stage.reports()), signal.SIGSEGV)
    deadline = time.monotonic() + 20
    while b"starting another" not in stage.log.read_bytes() and time.monotonic() < deadline:
        time.sleep(0.05)
    haul.dumped.append(was_dumped(proxy, signal.SIGABRT))
    haul.cores = sorted(stage.folder.rglob("core*"))
    for path in haul.cores:
        haul.add("core files", path.read_bytes())


def was_dumped(process: subprocess.Popen[bytes], number: int) -> bool:
    """Return whether the kernel wrote a core file of a child when a signal ended it."""
    process.send_signal(number)
    ended = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert ended is not None
    process.wait()
    return ended.si_code == os.CLD_DUMPED


def fuzz(folder: Path, *, seed: int, rounds: int) -> tuple[Haul, list[bytes]]:
    """Return what leaves a proxy that is asked and configured wrongly and then crashes."""
    stage, good, secrets = canaries(folder, seed)
    haul = Haul()
    with stage.serving() as proxy:
        asyncio.run(break_keys(good, rounds * len(MAKERS), haul))
        leave_broken(good)
        asyncio.run(ask_wrongly(stage, rounds, haul))
        for pid in (proxy.pid, *stage.reports()):
            for name in ("environ", "cmdline"):
                haul.add(name, Path(f"/proc/{pid}/{name}").read_bytes())
        for path in (stage.folder / "state").rglob("*.json"):
            haul.add("reports", path.read_bytes())
        crash(stage, proxy, haul)
    haul.add("log", stage.log.read_bytes())
    return haul, secrets


def control(folder: Path, secret: bytes, *, forbids: bool) -> tuple[bool, bool, bool]:
    """Return what becomes of a process with a secret that crashes.

    Args:
        folder: Where a core file would lie.
        secret: What the process holds.
        forbids: Whether it forbids dumps.

    Returns:
        Whether another process of its user could read its environment and maps while it ran;
        whether the kernel wrote a core file; whether the search finds the secret in that.
    """
    folder.mkdir()
    folder.chmod(0o777)
    with subprocess.Popen(
        [sys.executable, "-c", _TARGET, *["forbids"] * forbids],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        preexec_fn=allow_cores,  # noqa: PLW1509 - nothing but the limit
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(secret.hex().encode() + b"\n")
        process.stdin.flush()
        process.stdout.readline()
        names = [f"/proc/{process.pid}/{name}" for name in ("environ", "maps")]
        command = [sys.executable, "-c", _READER, *names]
        reader = subprocess.run(command, capture_output=True, check=False)
        is_dumped = was_dumped(process, signal.SIGABRT)
    cores = b"".join(path.read_bytes() for path in folder.rglob("core*"))
    return reader.returncode == 0, is_dumped, bool(found_in(cores, [secret]))


def main(arguments: Sequence[str] | None = None) -> None:
    """Print what was searched, and what was found."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.canary")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--seed", type=int, default=8)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        haul, secrets = fuzz(folder / "stage", seed=options.seed, rounds=options.rounds)
        secret = np.random.default_rng(options.seed).bytes(32)
        kept, left = (
            control(folder / str(forbids), secret, forbids=forbids) for forbids in (True, False)
        )
    print("| searched | pieces | bytes | occurrences |\n|---|---:|---:|---:|")
    for kind, pieces in haul.seen.items():
        data = b"\n".join(pieces)
        print(f"| {kind} | {len(pieces)} | {len(data)} | {len(found_in(data, secrets))} |")
    print("\n| a process that crashes | read by its user | core file | secret found in it |")
    print("|---|---|---|---|")
    print(f"| the proxy, a worker and its supervisor | | {_yes(any(haul.dumped))} | |")
    print(f"| one that forbids dumps | {' | '.join(map(_yes, kept))} |")
    print(f"| control: one that does not | {' | '.join(map(_yes, left))} |")


def _yes(value: object) -> str:
    return "yes" if value else "no"


if __name__ == "__main__":
    main()
