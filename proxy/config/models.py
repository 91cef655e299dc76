"""What the configuration says of one model: what its upstream can do, and how it is marked."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

_Positive = Annotated[int, msgspec.Meta(ge=1)]
_NonNegative = Annotated[int, msgspec.Meta(ge=0)]
_Seconds = Annotated[float, msgspec.Meta(gt=0)]


class Capabilities(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the upstream can do for a model.

    Attributes:
        probe: Find out by calls, when the proxy starts, in place of what is said here; only
            `parallel` and `max_bias` stand.
        api: How token ids are continued. `openai`: `/v1/completions` (vLLM); `sglang`:
            `/generate`; `llama-server`: `/completion`, which has to list the whole vocabulary.
            `anthropic`: `/v1/messages`, text alone, one choice a request.
        continuation: How it goes on with a reply. `token-ids`: `/v1/completions` takes token
            arrays and returns token ids. `text`: it takes text only; conversations are not
            marked. `prefix`: so does it, and `/v1/chat/completions` goes on with a last message
            of the assistant's.
        prefix: What tells it to: `continue-final-message` (vLLM, SGLang), `prefix` (the
            message's own field: Mistral, DeepSeek), `trailing` (nothing: llama-server).
        echo: Whether its answer repeats the message that it goes on with (llama-server does);
            where it is not said, the upstream is asked once, when an answer looks so.
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

    probe: bool = False
    api: Literal["openai", "sglang", "llama-server", "anthropic"] = "openai"
    continuation: Literal["token-ids", "text", "prefix", "none"] = "token-ids"
    prefix: Literal["continue-final-message", "prefix", "trailing"] = "continue-final-message"
    echo: bool | None = None
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
    def lists_everything(self) -> bool:
        """Whether every list holds the whole vocabulary: llama-server's own endpoint."""
        return self.api == "llama-server" and not self.is_text

    @property
    def drafts_greedily(self) -> bool:
        """Whether a greedy draft lists what a sampled one would, and what it lists can be banned.

        SGLang leaves the temperature out of a batch that is greedy throughout.
        """
        if self.is_text or self.logprobs_mode == "processed":
            return False
        return self.lists_everything or (self.api == "openai" and self.logit_bias)

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


class PathLimitsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a probe may choose: the strongest path that costs no more than this.

    All is reckoned for a prompt of 1,000 tokens and a reply of 500, as `probe` prints it.

    Attributes:
        tokens: Tokens read and generated, as a multiple of those of an unmarked reply.
        rounds: Requests one after another.
        seconds: Seconds beyond those of an unmarked reply.
    """

    tokens: _Seconds | None = None
    rounds: _Positive | None = None
    seconds: _Seconds | None = None


class PricesConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a million tokens cost, in one currency.

    Attributes:
        input: Tokens read.
        cached_input: Tokens that were read before; as `input` where it is left out.
        output: Tokens generated.
    """

    input: Annotated[float, msgspec.Meta(ge=0)]
    output: Annotated[float, msgspec.Meta(ge=0)]
    cached_input: Annotated[float, msgspec.Meta(ge=0)] | None = None


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


class ReasoningConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a model reasons before it answers; for `continuation = "token-ids"`.

    Attributes:
        start: What begins its reasoning, one token of its tokenizer.
        end: What ends it.
        marked: Whether the reasoning is marked too, as a reply of its own.
        field: The field of chat completions in which clients get it.
    """

    start: str = "<think>"
    end: str = "</think>"
    marked: bool = False
    field: Literal["reasoning_content", "reasoning"] = "reasoning_content"


class BiasConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How `bias` works: the upstream is asked to prefer the tokens of a keyed list.

    It changes the distribution of replies, and whoever counts words in a few hundred of them has
    the list. For upstreams with which nothing else works; it is no evidence.

    Attributes:
        enabled: Whether it is used where the scope's key is a list.
        delta: What is added to the logits of the list's tokens, in nats.
    """

    enabled: bool = False
    delta: Annotated[float, msgspec.Meta(gt=0, le=20)] = 2.0


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
        limits: What a probed path may cost.
        prices: What tokens cost, for the table of `probe`; None where it is not said.
        defaults: What the upstream takes where the client says nothing.
        reasoning: How it reasons before it answers; None where it does not.
        native: Which engine marks by itself.
        splice: How to splice.
        select: How to select.
        reply: How to choose among whole replies.
        bias: Whether to bias; the last resort.
    """

    name: str
    tokenizer: str | None = None
    end_tokens: list[str] = []
    unit: Literal["tokenizer", "words/v1"] = "tokenizer"
    capabilities: Capabilities = Capabilities()
    limits: PathLimitsConfig = PathLimitsConfig()
    prices: PricesConfig | None = None
    defaults: DefaultsConfig = DefaultsConfig()
    reasoning: ReasoningConfig | None = None
    native: NativeConfig = NativeConfig()
    splice: SpliceConfig = SpliceConfig()
    select: SelectConfig = SelectConfig()
    reply: ReplyConfig = ReplyConfig()
    bias: BiasConfig = BiasConfig()

    @property
    def paths(self) -> tuple[str, ...]:
        """The proxy's own paths that some request can take in this unit, strongest first.

        What is served, what a probe offers and what it costs all begin here.
        """
        able, draws = self.capabilities, self.capabilities.choices > 1
        # Text that is continued tells no tag from a word that looks like one, cut at any place.
        is_cut = able.is_text and self.reasoning is not None
        continues = able.continuation != "none" and not is_cut
        lists = able.logprobs > 0 and self.unit == "tokenizer"
        works = {
            "splice": self.splice.enabled and continues and lists,
            "select": self.select.enabled and continues and draws,
            "reply": self.reply.enabled and able.is_text and draws,
        }
        return tuple(path for path, is_able in works.items() if is_able)

    @property
    def asked_whole(self) -> ModelConfig:
        """The same model, asked for whole replies alone, whatever else it can."""
        able = msgspec.structs.replace(self.capabilities, continuation="none", logprobs=0)
        return msgspec.structs.replace(self, capabilities=able)

    @property
    def stronger_than_bias(self) -> str:
        """The strongest path that marks without bias, as far as is known; empty for none."""
        is_native = self.native.enabled and self.native.engine != "none"
        return "native" if is_native else next(iter(self.paths), "")

    def sampled_drafts(self, *, n_bans: int) -> int:
        """Return how many continuations a draft of splice has; 0 where it is greedy.

        Args:
            n_bans: How many tokens are banned where none of a list wins; 0 where it holds all.
        """
        able = self.capabilities
        if able.lists_everything:
            return 0
        can_ban = able.logit_bias and n_bans <= able.max_bias
        is_greedy = able.drafts_greedily and can_ban
        return min(self.splice.drafts or int(not is_greedy), able.choices)

    @property
    def needs_tokenizer(self) -> bool:
        """Whether something has to know the model's tokens."""
        if self.unit == "tokenizer":
            return True
        return not (self.capabilities.is_text or self.capabilities.probe)
