"""A real `watermark-proxy serve` in front of the letters, its keys on disk, and clients."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2

from tests.support.servers import END, byte_tokenizer
from tests.watermark.cli.authority import make_authority
from watermark.detection import Detector
from watermark.keys import KEYS_HEADER, KeyRecord, SecretKey, format_key_file, format_record
from watermark.keys.reports import WorkerReport, read_reports
from watermark.text import TokenizerUnit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from numpy.random import Generator

ROOT = Path(__file__).parents[2]
WIDTH, RHO = 2, 0.9
MODELS = ("m", "g")


@dataclass(frozen=True, kw_only=True)
class Made:
    """A key that lies on disk, and when it marks."""

    record: KeyRecord

    @property
    def toml(self) -> str:
        """Its table in KEYS.toml."""
        record = self.record
        return format_record(
            key_id=record.key_id,
            unit=record.unit,
            secret=f"{record.key_id}.key",
            scope=record.scope,
            rho=record.rho,
            context_width=record.context_width,
            not_before=record.not_before,
            not_after=record.not_after,
        )


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What one client got, and when it asked and had it."""

    asked: float
    had: float
    status: int
    header: str
    text: str
    error: str = ""

    @property
    def key_id(self) -> str:
        """The key that the header names; empty for none."""
        return self.header.rpartition("key=")[2] if "key=" in self.header else ""

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.had - self.asked


@dataclass
class Stage:
    """A folder with keys and a configuration, and the proxy that serves it."""

    folder: Path
    rng: Generator
    workers: int = 1
    on_missing: str = "block"
    url: str = ""
    log: Path = field(init=False)

    def __post_init__(self) -> None:
        self._root = self.rng.bytes(32)
        self.log = self.folder / "proxy.log"
        (self.folder / "data").mkdir(parents=True)
        self.tokenizer = byte_tokenizer(self.folder)

    @cached_property
    def unit(self) -> TokenizerUnit:
        """The models' unit."""
        return TokenizerUnit.read(self.tokenizer)

    @property
    def keys_file(self) -> Path:
        """The file that is edited."""
        return self.folder / "data" / "KEYS.toml"

    def make_key(self, key_id: str, **fields: Any) -> Made:
        """Write a key file; one id has one secret however often it is made."""
        secret = SecretKey(key_id, hashlib.sha256(self._root + key_id.encode()).digest())
        path = self.keys_file.parent / f"{key_id}.key"
        path.write_bytes(format_key_file(secret))
        path.chmod(0o600)
        record = KeyRecord(
            key_id=key_id,
            unit=self.unit.unit_id,
            context_width=WIDTH,
            rho=RHO,
            secret=secret,
            **fields,
        )
        return Made(record=record)

    def write_keys(self, *keys: Made, scopes: str = "") -> str:
        """Replace KEYS.toml; return its text."""
        text = KEYS_HEADER + "\n" + scopes + "\n".join(key.toml for key in keys)
        self.replace(text.encode())
        return text

    def replace(self, data: bytes, path: Path | None = None) -> None:
        """Replace a file at once."""
        path = path or self.keys_file
        draft = path.with_name(f".{path.name}.draft")
        draft.write_bytes(data)
        draft.chmod(0o600)
        draft.replace(path)

    def config(self, upstream: str) -> Path:
        """Write the configuration."""
        models = "".join(
            f'[[model]]\nname = "{name}"\ntokenizer = "tokenizer.json"\nend_tokens = ["{END}"]\n'
            "[model.capabilities]\nmax_n = 32\n[model.splice]\nenabled = false\n"
            "[model.select]\nchunk_tokens = 2\ncandidates = 32\n"
            for name in MODELS
        )
        path = self.folder / "proxy.toml"
        path.write_text(
            f'state = "state"\n[server]\nport = 0\nworkers = {self.workers}\n'
            f'[upstream]\nurl = "{upstream}"\n'
            f'[keys]\nfile = "data/KEYS.toml"\non_missing = "{self.on_missing}"\n'
            f'[disclosure]\ncallers = ["*"]\n{models}'
        )
        return path

    @contextlib.contextmanager
    def serving(self) -> Iterator[subprocess.Popen[bytes]]:
        """Run the upstream and the proxy."""
        command = [sys.executable, "-m", "benchmarks.rotation.upstream", str(self.tokenizer)]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe) as upstream:
            assert upstream.stdin is not None
            assert upstream.stdout is not None
            try:
                config = self.config(upstream.stdout.readline().decode().strip())
                with self._proxy(config) as proxy:
                    yield proxy
            finally:
                upstream.stdin.close()

    @contextlib.contextmanager
    def _proxy(self, config: Path) -> Iterator[subprocess.Popen[bytes]]:
        command = [sys.executable, "-m", "proxy", "serve", "--config", str(config)]
        with (
            self.log.open("wb") as log,
            subprocess.Popen(
                command,
                stderr=log,
                cwd=self.folder,  # a core file, if there is one, lies here
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                preexec_fn=allow_cores,  # noqa: PLW1509 - nothing but the limit
            ) as proxy,
        ):
            try:
                self._await_ready(proxy)
                yield proxy
            finally:
                proxy.send_signal(signal.SIGTERM)
                try:
                    proxy.wait(20)
                except subprocess.TimeoutExpired:
                    proxy.kill()

    def _await_ready(self, proxy: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + 300  # of a machine that others keep busy
        while len(self.reports()) < self.workers:
            assert proxy.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)
        for word in self.log.read_text().split():
            if word.startswith("http://"):
                self.url = word.rstrip(",")
                return

    def reports(self) -> dict[int, tuple[int, WorkerReport]]:
        """Return what the workers say of their keys."""
        return read_reports(self.folder / "state" / "workers")

    def ask_reload(self) -> dict[int, tuple[int, WorkerReport]]:
        """Ask every worker to reload; return what they said before."""
        before = self.reports()
        for pid in before:
            os.kill(pid, signal.SIGHUP)
        return before

    async def reload(self, *, wants_error: bool) -> str:
        """Ask every worker to reload; return an error of one, empty where all took the keys.

        A reload that began before may answer first, so that what is wanted is waited for.
        """
        before = self.ask_reload()
        deadline = time.monotonic() + 10.0
        while True:
            after = self.reports()
            news = [after[pid] for pid in before if pid in after]
            is_done = all(
                stamp > before[report.pid][0] and bool(report.error) == wants_error
                for stamp, report in news
            )
            if is_done or time.monotonic() > deadline:
                return next((report.error for _, report in news if report.error), "")
            await asyncio.sleep(0.004)

    def generations(self) -> set[str]:
        """Return the sets of keys that the workers have."""
        return {report.generation for _, report in self.reports().values()}

    def watermark(self, *arguments: str) -> str:
        """Run `watermark ... --keys KEYS.toml`; return what it said."""
        command = [sys.executable, "-m", "watermark", *arguments, "--keys", str(self.keys_file)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stderr

    def demand_commitments(self, authority: str) -> None:
        """Let no key mark before it is logged, and have the log stamped by an authority."""
        roots = make_authority(self.keys_file.parent)
        text = self.keys_file.read_text()
        table = f'[timestamp]\nurl = "{authority}"\nroots = "file:{roots}"\n[log]\n'
        text = text.replace("[log]\n", table, 1)
        self.replace(text.replace("\n", "\nrequire_commitment = true\n", 1).encode())

    @contextlib.asynccontextmanager
    async def load(
        self, clients: int, *, tokens: int = 40, pause: float = 0.0
    ) -> AsyncIterator[list[Reply]]:
        """Keep asking until the context ends; the list grows meanwhile.

        Args:
            clients: How many ask at a time.
            tokens: Tokens of an answer.
            pause: Mean seconds between an answer and the next question; drawn anew each time, so
                that questions keep no step with anything.
        """
        replies: list[Reply] = []
        ended = asyncio.Event()
        tasks = [
            asyncio.ensure_future(self._ask_on(place, replies, ended, tokens, pause))
            for place in range(clients)
        ]
        try:
            yield replies
        finally:
            ended.set()
            await asyncio.gather(*tasks)

    async def _ask_on(
        self,
        place: int,
        replies: list[Reply],
        ended: asyncio.Event,
        tokens: int,
        pause: float,
    ) -> None:
        while not ended.is_set():
            # Another connection may be another worker's.
            async with httpx2.AsyncClient(base_url=self.url, timeout=30, trust_env=False) as client:
                for _ in range(5):
                    await asyncio.sleep(self.rng.exponential(pause))
                    replies.append(await self.ask(client, MODELS[place % 2], tokens))
                    if ended.is_set():
                        return

    async def ask(self, client: httpx2.AsyncClient, model: str, tokens: int) -> Reply:
        """Ask for one reply."""
        body = {"model": model, "messages": [{"role": "user", "content": "?"}]}
        asked = time.time()
        try:
            answer = await client.post("/v1/chat/completions", json=body | {"max_tokens": tokens})
        except httpx2.HTTPError as err:
            return Reply(
                asked=asked, had=time.time(), status=0, header="", text="", error=repr(err)
            )
        had = time.time()
        is_good = answer.status_code == 200
        text = answer.json()["choices"][0]["message"]["content"] if is_good else answer.text
        return Reply(
            asked=asked,
            had=had,
            status=answer.status_code,
            header=answer.headers.get("x-watermark", ""),
            text=text,
        )


@dataclass
class Judge:
    """Reads marks under many keys."""

    unit: TokenizerUnit
    _detectors: dict[str, Detector] = field(default_factory=dict)

    def log10_p(self, record: KeyRecord, text: str) -> float:
        """Return log10 of a text's p-value under a key."""
        detector = self._detectors.get(record.key_id)
        if detector is None:
            detector = self._detectors[record.key_id] = Detector(record, self.unit)
        return float(detector.detect(text).log10_pvalue)


def allow_cores() -> None:
    """Let this process leave a core file, as far as it may allow that itself."""
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))


def seconds_of(moment: datetime | None, default: float) -> float:
    """Return a time as seconds since the epoch."""
    return default if moment is None else moment.timestamp()


def whole(now: datetime, seconds: float) -> datetime:
    """Return an instant some seconds from another, to the millisecond."""
    later = now + timedelta(seconds=seconds)
    return later.replace(microsecond=later.microsecond // 1000 * 1000)


def utc() -> datetime:
    """Return the time of day."""
    return datetime.now(UTC)
