"""Reading the models again: probed anew where what is said of their upstream has changed.

Rule 1: only when somebody asks (SIGHUP, `watermark-proxy reload`): a probe costs tokens. Rule 2: a
model of which nothing has changed is neither probed nor touched. Rule 3: everything is checked
before one reference is replaced: until then, and after a failure, the models in force go on as they
were. Rule 4: what a probe finds, and that somebody asks, is shared by the processes of a machine:
all mark alike, and a worker that is started again as the others do.
"""

from __future__ import annotations

import hashlib
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from proxy.app import keyed_models
from proxy.cli.probe import with_probes
from proxy.cli.reloading import one_line, utc_now
from proxy.cli.watching import LOOK_SECONDS
from proxy.config import ModelConfig, ProxyConfig
from proxy.errors import ConfigError
from proxy.sampling.keys import check_ring
from watermark.errors import WatermarkError
from watermark.keys.folder import locked

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from proxy.sampling.keys import KeyHolder
    from proxy.sampling.models import ModelHolder

FOLDER: Final = "probes"
ASKED: Final = "asked"
_SHARED_SECONDS: Final = 30.0  # workers are told within a moment; a probe takes some seconds

logger = logging.getLogger(__name__)


class ModelsReloader:
    """Reads one configuration's models for one process; not from two threads at a time."""

    def __init__(
        self,
        load: Callable[[], ProxyConfig],
        holder: ModelHolder,
        keys: KeyHolder,
        *,
        config: ProxyConfig,
        is_quiet: bool = False,
    ) -> None:
        """Watch what a holder's models were read from.

        Args:
            load: Reads the configuration.
            holder: Holds the models.
            keys: The keys that have to mark them.
            config: The configuration with which the proxy began.
            is_quiet: Whether somebody else writes the log lines.
        """
        self.look_seconds = LOOK_SECONDS
        self._load = load
        self._holder = holder
        self._keys = keys
        self._config = config
        self._is_quiet = is_quiet
        self._word = _folder(config) / ASKED
        self._seen = self._when_asked()

    def step(self, *, is_asked: bool = False) -> None:
        """Take the models that have changed, where somebody asks this process or another.

        Args:
            is_asked: Whether somebody asks this one; the others are told.
        """
        if is_asked:
            self._word.touch()
        when = self._when_asked()
        if not is_asked and when == self._seen:
            return
        self._seen = when
        try:
            self._take(self._load())
        except (WatermarkError, OSError) as err:
            self._holder.refuse(one_line(err))
            if not self._is_quiet:
                logger.error("models not reloaded, those before stay: %s", self._holder.error)  # noqa: TRY400 - one line

    def _when_asked(self) -> int:
        """Return when a process of this machine was asked last."""
        try:
            return self._word.stat().st_mtime_ns
        except OSError:
            return 0

    def _take(self, config: ProxyConfig) -> None:
        """Put a configuration's models in force.

        Raises:
            WatermarkError: They cannot be served; nothing has changed then.
        """
        _check_rest(self._config, config)
        before = {model.name: model for model in self._holder.declared}
        changed = [one for one in config.models if before.get(one.name) != one]
        if not changed and len(before) == len(config.models):
            self._holder.error = ""
            return
        known = {model.name: model for model in self._holder.current}
        known |= {one.name: one for one in self._probed(config, changed)}
        models = [known[one.name] for one in config.models]
        keyed = keyed_models(msgspec.structs.replace(config, models=models))
        check_ring(self._keys.current.ring, keyed, now=utc_now())
        self._holder.replace(models, keyed, declared=config.models)
        if not self._is_quiet:
            names = ", ".join(one.name for one in changed) or "fewer"
            logger.info("models reloaded: %s", names)

    def _probed(self, config: ProxyConfig, models: Sequence[ModelConfig]) -> list[ModelConfig]:
        """Return models with what their probes find, by whichever process asks first."""
        found = []
        for model in models:
            alone = msgspec.structs.replace(config, models=[model])
            found.append(self._shared(alone) if model.capabilities.probe else model)
        return found

    def _shared(self, config: ProxyConfig) -> ModelConfig:
        folder = _folder(config)
        said = msgspec.json.encode([config.upstream.url, config.models], order="deterministic")
        file = folder / f"{hashlib.sha256(said).hexdigest()}.json"
        with locked(folder):
            if (known := _read(file)) is not None:
                return known
            (model,) = with_probes(config, self._say, ring=self._keys.current.ring).models
            file.write_bytes(msgspec.json.encode(model))
            return model

    def _say(self, line: str) -> None:
        if not self._is_quiet:
            logger.info("%s", line)


def _check_rest(before: ProxyConfig, after: ProxyConfig) -> None:
    """Refuse another upstream: its connections are those that the process has.

    Raises:
        ConfigError: It is another one.
    """
    if before.upstream != after.upstream:
        raise ConfigError("[upstream] has changed; start the proxy again to use another upstream")


def _folder(config: ProxyConfig) -> Path:
    folder = Path(config.state) / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _read(file: Path) -> ModelConfig | None:
    """Return what another process has found a moment ago, None where none has."""
    try:
        age = time.time() - file.stat().st_mtime  # noqa: TID251 - the command line
        found = msgspec.json.decode(file.read_bytes(), type=ModelConfig)
    except (OSError, msgspec.DecodeError):
        return None
    return found if age < _SHARED_SECONDS else None
