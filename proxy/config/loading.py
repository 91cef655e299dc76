"""From a file to one frozen value.

Relative paths are relative to the file.
"""

from __future__ import annotations

from ipaddress import ip_network
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import msgspec

from proxy.config.sections import AccountsConfig, ProxyConfig
from proxy.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from proxy.config.models import ModelConfig

_PATH_HINT: Final = "see the configuration reference in the README"


def parse_config(text: str, *, path: Path) -> ProxyConfig:
    """Read a configuration; relative paths in it become relative to its folder.

    Raises:
        ConfigError: The text is not TOML, or a field is unknown, missing or out of range.
    """
    try:
        config = msgspec.toml.decode(text, type=ProxyConfig)
    except (msgspec.DecodeError, RecursionError) as err:
        raise ConfigError(f"{path}: {err}; {_PATH_HINT}") from err
    _check_upstream(config, path)
    _check_models(config, path)
    _check_gateways(config, path)
    return _resolve(config, path.resolve().parent)


def load_config(path: Path) -> ProxyConfig:
    """Read a configuration file.

    Raises:
        ConfigError: The file cannot be read, or see `parse_config`.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as err:
        raise ConfigError(f"cannot read configuration {path}: {err}; pass --config FILE") from err
    return parse_config(text, path=path)


def _check_upstream(config: ProxyConfig, path: Path) -> None:
    try:
        parts = urlsplit(config.upstream.url)
        has_address = bool(parts.hostname) and parts.port != 0  # reading an absurd port raises
    except ValueError:
        has_address = False
    if not has_address:
        raise ConfigError(f'{path}: upstream.url is no address; write "http://host:port"')


def _check_models(config: ProxyConfig, path: Path) -> None:
    names = [model.name for model in config.models]
    if len(set(names)) != len(names):
        raise ConfigError(f"{path}: two [[model]] tables have one name; keep one of them")
    for model in config.models:
        _check_api(model, path)
        _check_bias(model, path)
        if config.embedded is None and model.tokenizer is None and model.needs_tokenizer:
            raise ConfigError(
                f'{path}: model {model.name!r} needs tokenizer = "tokenizer.json"; its key is '
                'made for that file (unit = "words/v1" with continuation = "text" needs none)'
            )


_MODES: Final = {"sglang": "tempered", "llama-server": "raw"}


def _check_api(model: ModelConfig, path: Path) -> None:
    """Refuse lists of another distribution than an engine's own endpoint has."""
    able = model.capabilities
    is_texts = able.continuation in ("prefix", "none") and not able.logprobs
    if able.api == "anthropic" and not able.probe and not (is_texts and able.max_n == 1):
        raise ConfigError(
            f"{path}: model {model.name!r} is asked over anthropic, which continues text by a "
            'closing message or not at all, one choice a request; set continuation = "prefix" or '
            '"none", logprobs = 0, max_n = 1 and parallel'
        )
    mode = _MODES.get(able.api)
    is_used = able.logprobs > 0 and not (able.is_text or able.probe)
    if mode is not None and is_used and able.logprobs_mode != mode:
        raise ConfigError(
            f"{path}: model {model.name!r} is asked over {able.api}, whose log-probabilities are "
            f'{mode}; set logprobs_mode = "{mode}"'
        )


def _check_bias(model: ModelConfig, path: Path) -> None:
    """Refuse the last resort where it cannot work, or is not the last."""
    if not model.bias.enabled:
        return
    if model.unit != "tokenizer":
        raise ConfigError(
            f'{path}: model {model.name!r}: bias needs unit = "tokenizer" and the model\'s '
            "tokenizer.json; its list names token ids"
        )
    if model.capabilities.probe:
        return
    if not model.capabilities.logit_bias:
        raise ConfigError(
            f"{path}: model {model.name!r}: bias is switched on and logit_bias is not among the "
            "capabilities; set logit_bias = true if the upstream takes it (`probe` finds out)"
        )
    if model.stronger_than_bias:
        raise ConfigError(
            f"{path}: model {model.name!r}: bias is switched on, and {model.stronger_than_bias} "
            "marks without changing what replies say; switch bias off, or that path"
        )


def _check_gateways(config: ProxyConfig, path: Path) -> None:
    accounts = config.accounts
    if accounts is None:
        return
    if bool(accounts.gateway_header) != bool(accounts.gateways):
        raise ConfigError(
            f"{path}: accounts.gateway_header and accounts.gateways need each other; a header from "
            "anybody would let everybody be anybody"
        )
    for network in accounts.gateways:
        try:
            ip_network(network)
        except ValueError as err:
            raise ConfigError(f"{path}: accounts.gateways: {err}") from err


def _resolve_accounts(config: ProxyConfig, folder: Path, state: Path) -> AccountsConfig | None:
    accounts = config.accounts
    if accounts is None:
        return None
    key = state / "accounts.key" if accounts.digest_key is None else folder / accounts.digest_key
    return msgspec.structs.replace(accounts, file=str(folder / accounts.file), digest_key=str(key))


def _resolve(config: ProxyConfig, folder: Path) -> ProxyConfig:
    models = [
        msgspec.structs.replace(model, tokenizer=str(folder / model.tokenizer))
        if model.tokenizer is not None
        else model
        for model in config.models
    ]
    state = folder / config.state
    ledger = config.ledger
    if ledger is not None:
        ledger = msgspec.structs.replace(ledger, file=str(folder / ledger.file))
    return msgspec.structs.replace(
        config,
        state=str(state),
        upstream=msgspec.structs.replace(
            config.upstream,
            key_file=config.upstream.key_file and str(folder / config.upstream.key_file),
        ),
        accounts=_resolve_accounts(config, folder, state),
        keys=msgspec.structs.replace(config.keys, file=str(folder / config.keys.file)),
        ledger=ledger,
        models=models,
    )
