"""The sections of the configuration, one struct each; unknown fields are errors."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

import msgspec

from proxy.config.ingress import IngressConfig
from proxy.config.models import ModelConfig  # noqa: TC001 - msgspec looks the name up

_Positive = Annotated[int, msgspec.Meta(ge=1)]
_NonNegative = Annotated[int, msgspec.Meta(ge=0)]
_Seconds = Annotated[float, msgspec.Meta(gt=0)]
_Workers = Annotated[int, msgspec.Meta(ge=1, le=256)]
_Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
# No user and password: they would be shown, and sent in place of the caller's.
_Url = Annotated[str, msgspec.Meta(pattern=r"^https?://[^/?#@\s]+(/[^?#\s]*)?$")]
_NamedCaller = Annotated[str, msgspec.Meta(pattern=r"^sha256:[0-9a-f]{64}$")]
_CallerDigest = Annotated[str, msgspec.Meta(pattern=r"^(\*|sha256:[0-9a-f]{64})$")]


class ServerConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the proxy listens.

    Attributes:
        host: Address to bind.
        port: Port; 0 takes a free one.
        max_body_bytes: Largest request body that is read into memory.
        workers: Processes that share the socket.
        keep_alive_s: Longest silence in a stream of a marked reply before a comment is sent, so
            that nothing on the way cuts the connection; 0 sends none.
    """

    host: str = "127.0.0.1"
    port: _Port = 8080
    max_body_bytes: _Positive = 16 * 1024 * 1024
    workers: _Workers = 1
    keep_alive_s: Annotated[float, msgspec.Meta(ge=0)] = 15.0


class UpstreamConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The model API behind the proxy.

    Attributes:
        url: Its base, without `/v1`.
        connect_timeout_s: Time for a connection.
        read_timeout_s: Longest silence while an answer is awaited.
        key_file: A file with the API key of the proxy's own requests, which probe; none where the
            upstream asks for none.
        max_connections: Connections open at a time, in a worker; what comes beyond waits. Each
            stream takes one, and two open files (`ulimit -Hn`).
    """

    url: _Url
    connect_timeout_s: _Seconds = 5.0
    read_timeout_s: _Seconds = 300.0
    key_file: str | None = None
    max_connections: _Positive = 10_000


class EmbeddedConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An embedded upstream that `serve` starts beside the proxy.

    Attributes:
        model: `builtin`, or a Hugging Face folder.
        host: Address to bind.
        port: Port; 0 takes a free one.
        trust_remote_code: Run the model folder's own code.
    """

    model: str = "builtin"
    host: str = "127.0.0.1"
    port: _Port = 9090
    trust_remote_code: bool = False


class KeysConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which keys mark.

    Attributes:
        file: The `KEYS.toml`.
        create_if_missing: Make a key where none marks the embedded model's unit; for first steps
            on one machine, never for a deployment.
        on_missing: What happens to a request that no key marks: `block` refuses it with 503,
            `pass-unmarked` lets it through; either is counted as `no-marking-key`.
    """

    file: str
    create_if_missing: bool = False
    on_missing: Literal["block", "pass-unmarked"] = "block"


class LedgerConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where it is written what was delivered.

    Attributes:
        file: The `LEDGER.toml`.
        create_if_missing: Make one where there is none; for first steps on one machine.
        on_unavailable: What happens to a request while the ledger cannot be written: `block`
            refuses it with 503, `pass-unmarked` lets it through unmarked; either is counted as
            `ledger-down`. Nothing is marked and not in the ledger.
    """

    file: str
    create_if_missing: bool = False
    on_unavailable: Literal["block", "pass-unmarked"] = "block"


class AccountsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who may call, and how callers are known.

    Attributes:
        file: The `accounts.toml`; taken again within a second of a change.
        digest_key: A file with the key under which callers' keys become digests; made in the state
            folder where none is named.
        gateway_header: A header in which a gateway names the account; none where it is empty.
        gateways: The networks from which that header is believed, such as `10.0.0.0/8`.
    """

    file: str
    digest_key: str | None = None
    gateway_header: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9-]*$")] = ""
    gateways: list[str] = []


class DisclosureConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who is told whether a reply was marked, and how.

    A distiller would use it to keep the unmarked replies, so nobody is by default.

    Attributes:
        callers: `sha256:` digests (hex) of the API keys of trusted callers, or `*` for all.
    """

    callers: list[_CallerDigest] = []


class DetectionConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who may ask over HTTP whether a text carries a mark, and how often.

    Answers are levels of a noisy p-value; whoever asks often enough still learns about the key.

    Attributes:
        callers: `sha256:` digests (hex) of the API keys of those who may, each by name.
        queries_per_day: Questions a caller and key, counted by the day (UTC), over all workers.
        min_units: Distinct units in context that a text must have.
        sigma: Standard deviation of the noise, in those of the score without a mark.
    """

    callers: list[_NamedCaller] = []
    queries_per_day: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 100
    min_units: Annotated[int, msgspec.Meta(ge=200)] = 400
    sigma: Annotated[float, msgspec.Meta(ge=1, le=100)] = 1.0


class SelftestConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whether delivered text is put through the own detector, and how much of it.

    An alarm is a line in the log and the metric `watermark_selftest_alarm`.

    Attributes:
        share: Share of the marked replies that is checked after the first 50 of a series (scope,
            path, model) under a key, which all are; 0 switches it off. Of a mark that is gone, 50
            checked replies of 50 tokens say so: 50 delivered ones where a series begins, in every
            worker, and 50 / share later.
    """

    share: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.1


class ProxyConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file.

    Attributes:
        server: Where the proxy listens.
        state: Folder of keys, caches and ledgers.
        upstream: The model API.
        embedded: An embedded upstream to start, None for none.
        keys: Which keys mark.
        ledger: Where it is written what was delivered, None for nowhere.
        accounts: Who may call, None for everybody.
        ingress: What of a request is the operator's to say.
        disclosure: Who is told about the mark.
        detection: Who may ask about a text.
        selftest: How much of what is delivered is checked for its mark.
        models: The models that are marked, `[[model]]` in the file.
    """

    upstream: UpstreamConfig
    keys: KeysConfig
    server: ServerConfig = ServerConfig()
    state: str = "."
    embedded: EmbeddedConfig | None = None
    ledger: LedgerConfig | None = None
    accounts: AccountsConfig | None = None
    ingress: IngressConfig = IngressConfig()
    disclosure: DisclosureConfig = DisclosureConfig()
    detection: DetectionConfig = DetectionConfig()
    selftest: SelftestConfig = SelftestConfig()
    models: list[ModelConfig] = msgspec.field(default_factory=list, name="model")


def field_names() -> list[str]:
    """Return every `section.field` of the file, for whoever documents them."""
    return _names_of(ProxyConfig, "")


def _names_of(kind: type[msgspec.Struct], prefix: str) -> list[str]:
    names = []
    for field in msgspec.structs.fields(kind):
        name = f"{prefix}{field.encode_name}"
        section = _struct_in(field.type)
        names += [name] if section is None else _names_of(section, f"{name}.")
    return names


def _struct_in(kind: Any) -> type[msgspec.Struct] | None:  # noqa: ANN401 - a type, or a form of one
    """Return the section that a field holds, alone, in a list or optionally."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return kind
    return next(filter(None, map(_struct_in, get_args(kind))), None)
