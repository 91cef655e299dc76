"""Reading the keys again: what is watched, what is checked, and what is said about it.

Rule 1: everything is validated before one reference is replaced; a file that is refused changes
nothing. Rule 2: what is watched was looked at before it was read, so that a change during the
reading is seen at the next look. Rule 3: what is said is one line, with file and line, and never
a value of a secret.
"""

from __future__ import annotations

import logging
import re
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from proxy.cli.watching import LOOK_SECONDS
from proxy.sampling.keys import UnservedScopeError, check_ring, describe_ends
from watermark.errors import KeysConfigError, WatermarkError
from watermark.keys import WARNING_LEAD

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from proxy.sampling.keys import KeyedModel, KeyHolder
    from proxy.telemetry.metrics import Metrics
    from watermark.keys import KeyRing, KeysLoader

_MOST_LOOKS: Final = 256
"""Files of secrets at one look: all of most deployments, and of 10,000 each within 20 s."""
_SETTLE_SECONDS: Final = 0.02
_SETTLE_LOOKS: Final = 10
_WARN_EVERY: Final = timedelta(hours=1)
_RETRY_EVERY: Final = timedelta(seconds=30)
_MOST_LINES: Final = 10

logger = logging.getLogger(__name__)


def utc_now() -> datetime:
    """Return the time of day."""
    return datetime.now(UTC)  # noqa: TID251 - the command line


class Reloader:
    """Reads one `KEYS.toml` for one process; not to be used from two threads at a time."""

    def __init__(
        self,
        loader: KeysLoader,
        holder: KeyHolder,
        models: Iterable[KeyedModel],
        *,
        metrics: Metrics | None = None,
        report: Callable[[], None] = lambda: None,
        is_quiet: bool = False,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        """Watch what a holder's ring was loaded from.

        Args:
            loader: Reads the file.
            holder: Holds the ring that the loader gave.
            models: What the keys have to mark, gone through anew at every reload.
            metrics: Where successes and failures are counted.
            report: Called after every attempt.
            is_quiet: Whether somebody else writes the log lines.
            now: The time of day.
        """
        self.look_seconds = LOOK_SECONDS
        self._loader = loader
        self._holder = holder
        self._models = models
        self._metrics = metrics
        self._report = report
        self._is_quiet = is_quiet
        self._now = now
        self._warned_at: datetime | None = None
        self._tried_at = now()

    def step(self, *, is_asked: bool = False) -> None:
        """Reload where something changed or somebody asks, and warn of keys that run out.

        Args:
            is_asked: Whether somebody asks.
        """
        if self._loader.has_changed(most=_MOST_LOOKS) or is_asked:
            for _ in range(_SETTLE_LOOKS):  # whoever writes in place gets a moment to finish
                time.sleep(_SETTLE_SECONDS)
                if not self._loader.has_changed(most=0):
                    break
            self.reload()
        elif self._holder.error and self._now() - self._tried_at >= _RETRY_EVERY:
            self.reload(says_again=False)  # a key service that was down says nothing when it is up
        self._warn()

    def reload(self, *, says_again: bool = True) -> None:
        """Put the file's keys in force, or say why not.

        Args:
            says_again: Whether to log a reason that was logged before.
        """
        started = time.perf_counter()
        self._tried_at = now = self._now()
        try:
            ring = load_ring(self._loader, self._models, now=now, before=self._holder.current.ring)
        except (WatermarkError, OSError) as err:
            self._refuse(one_line(err), says_again=says_again)
        except Exception as err:  # noqa: BLE001 - whatever it is, the keys in force stay
            reason = f"{self._loader.path}:1: {type(err).__name__}; see the log, and report it"
            self._refuse(reason, says_again=says_again)
        else:
            before = self._holder.current.generation
            self._holder.replace(ring, now=now)
            if self._metrics is not None:
                seconds = time.perf_counter() - started
                self._metrics.keys_loaded(ring.generation, seconds=seconds)
            if not self._is_quiet and ring.generation != before:
                logger.info("keys reloaded, generation %s", ring.generation)
        try:
            self._report()
        except OSError:
            logger.exception("cannot report to the state folder")

    def _refuse(self, message: str, *, says_again: bool) -> None:
        is_known = message == self._holder.error and not says_again
        self._holder.refuse(message)
        if self._metrics is not None:
            self._metrics.keys_refused()
        if not self._is_quiet and not is_known:
            kept = self._holder.current.generation
            logger.error("keys not reloaded, generation %s stays: %s", kept, message)

    def _warn(self) -> None:
        now = self._now()
        if self._is_quiet or (self._warned_at and now - self._warned_at < _WARN_EVERY):
            return
        lines = describe_ends(self._holder.current, now, within=WARNING_LEAD, most=_MOST_LINES)
        for line in lines:
            logger.warning("%s", line)
        if lines:
            self._warned_at = now


def load_ring(
    loader: KeysLoader,
    models: Iterable[KeyedModel],
    *,
    now: datetime,
    before: KeyRing | None = None,
) -> KeyRing:
    """Return the ring of a file that may be put in force.

    Args:
        loader: Reads the file.
        models: What the keys have to mark.
        now: The instant.
        before: The ring in force; a file that was refused is none.

    Raises:
        WatermarkError: The file may not be used; the message has file and line.
    """
    text = loader.read()
    ring = loader.load_text(text, now=now, before=before)
    try:
        check_ring(ring, models, now=now, before=before)
    except UnservedScopeError as err:
        raise KeysConfigError(f"{_place_of(loader.path, text, err.scope)}: {err}") from err
    return ring


def one_line(err: Exception) -> str:
    """Return an error's message as one line."""
    return " ".join(str(err).split())


def _place_of(path: Path, text: str, scope: str) -> str:
    """Return file and line of a scope's table; the first line where it has none."""
    wanted = re.compile(rf"""\s*["']?name["']?\s*=\s*["']{re.escape(scope)}["']""")
    for number, line in enumerate(text.split("\n"), start=1):
        if wanted.match(line):
            return f"{path}:{number}"
    return f"{path}:1"
