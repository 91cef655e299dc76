"""The sections of the configuration, one struct each; unknown fields are errors."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

import msgspec

from proxy.config.ingress import IngressConfig

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
        max_connections: Connections open at a time.
    """

    url: _Url
    connect_timeout_s: _Seconds = 5.0
    read_timeout_s: _Seconds = 300.0
    max_connections: _Positive = 1000


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
        share: Share of the marked replies that is checked; 0 switches it off. Of a mark that is
            gone, 50 checked replies of 50 tokens say so.
    """

    share: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.1


class Capabilities(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the upstream can do for a model.

    Attributes:
        api: How token ids are continued. `openai`: `/v1/completions` (vLLM); `sglang`:
            `/generate`; `llama-server`: `/completion`, which has to list the whole vocabulary.
        continuation: How it goes on with a reply. `token-ids`: `/v1/completions` takes token
            arrays and returns token ids. `text`: it takes text only; conversations are not
            marked. `prefix`: so does it, and `/v1/chat/completions` goes on with a last message
            of the assistant's.
        prefix: What tells it to: `continue-final-message` (vLLM, SGLang), `prefix` (the
            message's own field: Mistral, DeepSeek), `trailing` (nothing: llama-server).
        logprobs: Most likeliest tokens that it lists a position; 0 for none.
        logprobs_mode: Which distribution they are of (see `proxy.sampling.candidates`).
        logit_bias: Whether a bias of -100 bans a token.
        max_bias: Most tokens that may have a bias in one request (vLLM: 1024).
        chosen_logprobs: Most tokens that it lists by name beside those (vLLM: 128); splice asks
            for some of what its list leaves out. 0 for none.
        max_n: Most choices a request.
        parallel: Requests that draw the choices of one round side by side, each at most `max_n`;
            above 1 where the API gives few choices a request, or one.
    """

    api: Literal["openai", "sglang", "llama-server"] = "openai"
    continuation: Literal["token-ids", "text", "prefix", "none"] = "token-ids"
    prefix: Literal["continue-final-message", "prefix", "trailing"] = "continue-final-message"
    logprobs: _NonNegative = 0
    logprobs_mode: Literal["raw", "tempered", "processed"] = "raw"
    logit_bias: bool = False
    max_bias: _NonNegative = 1024
    chosen_logprobs: _NonNegative = 0
    max_n: _Positive = 1
    parallel: _Positive = 1

    @property
    def is_text(self) -> bool:
        """Whether replies come as text rather than as token ids."""
        return self.continuation != "token-ids"

    @property
    def drafts_greedily(self) -> bool:
        """Whether a greedy draft lists what a sampled one would, and what it lists can be banned.

        SGLang leaves the temperature out of a batch that is greedy throughout.
        """
        if self.is_text or self.logprobs_mode == "processed":
            return False
        return self.api == "llama-server" or (self.api == "openai" and self.logit_bias)

    @property
    def choices(self) -> int:
        """Most choices of one round."""
        return self.max_n * self.parallel


class LimitsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a path may cost a reply; what is left out is not bounded.

    Attributes:
        requests: Upstream requests.
        tokens: Tokens that the upstream generates.
        seconds: Time spent waiting for the upstream.
    """

    requests: _NonNegative | None = None
    tokens: _NonNegative | None = None
    seconds: _Seconds | None = None


class DefaultsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the upstream takes where the client says nothing.

    vLLM reads them from the model's `generation_config.json` unless it is started with
    `--generation-config vllm`; the proxy always says them in full.

    Attributes:
        temperature: Sampling temperature.
        top_p: Nucleus mass.
        top_k: Likeliest tokens kept; 0 for all.
    """

    temperature: Annotated[float, msgspec.Meta(ge=0)] = 1.0
    top_p: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0
    top_k: _NonNegative = 0


class NativeConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How `native` works: the engine marks, with keys of its scheme.

    Attributes:
        enabled: Whether it is used where the scope's key is an engine's.
        engine: Which engine serves the model; `none` where none marks.
    """

    enabled: bool = True
    engine: Literal["none", "vllm", "sglang", "transformers"] = "none"


class SpliceConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How `splice` works.

    Attributes:
        enabled: Whether it is used where the upstream can.
        draft_tokens: Tokens a draft.
        drafts: Continuations a sampled draft; 0 drafts greedily, which costs fewer tokens and
            more requests, and needs `logit_bias`.
        logprobs: Likeliest tokens asked for a position; at most the capability.
        limits: When `select` takes over.
    """

    enabled: bool = True
    draft_tokens: _Positive = 4
    drafts: _NonNegative = 2
    logprobs: _Positive = 20
    limits: LimitsConfig = LimitsConfig()


class SelectConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How `select` works.

    Attributes:
        enabled: Whether it is used where the upstream can.
        chunk_tokens: Tokens a continuation (k).
        candidates: Continuations a round (m).
        limits: When the reply goes on unmarked.
    """

    enabled: bool = True
    chunk_tokens: _Positive = 8
    candidates: _Positive = 8
    limits: LimitsConfig = LimitsConfig()


class ReplyConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How `reply` works.

    Attributes:
        enabled: Whether it is used where the upstream continues nothing.
        candidates: Whole replies drawn, of which one is delivered (n).
        streamed: What becomes of a streamed request: `buffer` draws all replies first and keeps
            the connection alive meanwhile, `pass-unmarked` lets it through, counted as
            `streamed`.
    """

    enabled: bool = True
    candidates: _Positive = 4
    streamed: Literal["buffer", "pass-unmarked"] = "buffer"


class ModelConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One model that is marked; others pass through.

    Attributes:
        name: As clients ask for it.
        tokenizer: Its `tokenizer.json`; filled in for the embedded model. Not needed where
            `words/v1` marks and the upstream continues text.
        end_tokens: Tokens that end a reply, as the tokenizer spells them; filled in for the
            embedded model. Not needed where the upstream continues text.
        unit: `tokenizer` or `words/v1`: which of the keys' units marks it. Splice needs
            `tokenizer`.
        capabilities: What the upstream can do.
        defaults: What the upstream takes where the client says nothing.
        native: Which engine marks by itself.
        splice: How to splice.
        select: How to select.
        reply: How to choose among whole replies.
    """

    name: str
    tokenizer: str | None = None
    end_tokens: list[str] = []
    unit: Literal["tokenizer", "words/v1"] = "tokenizer"
    capabilities: Capabilities = Capabilities()
    defaults: DefaultsConfig = DefaultsConfig()
    native: NativeConfig = NativeConfig()
    splice: SpliceConfig = SpliceConfig()
    select: SelectConfig = SelectConfig()
    reply: ReplyConfig = ReplyConfig()

    @property
    def needs_tokenizer(self) -> bool:
        """Whether something has to know the model's tokens."""
        return self.unit == "tokenizer" or not self.capabilities.is_text


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
