"""What it takes to mark one model, and the plan of one request.

A `ServedModel` joins what the config says of a model with its tokenizer; it is made once. The key
is the request's: whichever marks when its first token is chosen.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from proxy.sampling.bias import has_room, is_biased_by, sayable, takes_biases, with_list
from proxy.sampling.budget import BudgetLimits
from proxy.sampling.candidates import ListReader, LogprobsMode
from proxy.sampling.choice import Speller
from proxy.sampling.eligibility import (
    Decision,
    Reason,
    asks_by_template,
    refusal,
    strongest_path,
)
from proxy.sampling.flow import MarkPlan
from proxy.sampling.native import DIALECTS, ENGINES, switch_on
from proxy.sampling.parameters import SamplingParameters
from proxy.sampling.questions import Path
from proxy.sampling.reasoning import Parts
from proxy.sampling.reply import Reply, contexts_of
from proxy.sampling.select import SelectPlan
from proxy.sampling.splice import SplicePlan
from proxy.sampling.units import SeamUnits, TokenUnits, WordUnits
from watermark.seeding import private_seed
from watermark.text import WORDS_V1, StopCutter, TextAssembler
from watermark.wire.openai_requests import DialectName

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from proxy.config import LimitsConfig, ModelConfig
    from proxy.sampling.reasoning import Tags
    from proxy.sampling.spelling import Spelling
    from proxy.sampling.units import Units
    from watermark.keys import KeyRecord
    from watermark.seeding import KeyedUniforms
    from watermark.text import TokenTable, Unit
    from watermark.wire.openai_answers import Piece
    from watermark.wire.openai_requests import GenerationRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """A model that is marked.

    Attributes:
        config: What the operator says of it.
        unit: The unit of the keys that mark it, ready to cut earlier turns.
        tokenizer: The unit of its own tokens; the key's unit where nothing needs to know them.
        table: What its tokens look like; None where nothing needs to know.
        end_ids: Tokens that end a reply; none where the upstream continues text and says so.
        vocab_size: Tokens that it can emit.
        spelling: Its tokens by their looks, where the upstream continues text.
        tags: The tokens around its reasoning; None where it does not reason, or text comes.
    """

    config: ModelConfig
    unit: Unit
    tokenizer: str
    table: TokenTable | None
    end_ids: frozenset[int]
    vocab_size: int
    spelling: Spelling | None = None
    tags: Tags | None = None

    @property
    def silent_ids(self) -> frozenset[int]:
        """Tokens that are no text of the reply: what ends it, and what is around reasoning."""
        tags = self.tags
        return self.end_ids if tags is None else self.end_ids | {tags.start, tags.end}

    @property
    def filler(self) -> int:
        """A token of whole characters, which leaves no character unfinished; 0 without a table."""
        contents = self.table.content if self.table else ()
        return next((token for token, data in enumerate(contents) if data.isalpha()), 0)

    def with_defaults(self, request: GenerationRequest) -> GenerationRequest:
        """Return the request with what the upstream takes where the client says nothing."""
        silent = self.config.defaults
        return request.with_defaults(
            temperature=silent.temperature, top_p=silent.top_p, top_k=silent.top_k
        )

    def decide(self, request: GenerationRequest, record: KeyRecord | None = None) -> Decision:
        """Return whether and how the request is marked, should there be a key.

        Args:
            request: The request.
            record: The key that marks it; None where none does, or one of the copula's will.
        """
        reason = refusal(request, reasons=self._reasons_for(request))
        if record is not None and record.scheme in ENGINES:
            return self._decide_native(request, ENGINES[record.scheme], reason)
        if record is not None and is_biased_by(record):
            return self._decide_bias(request, record, reason)
        if reason is not None:
            return Decision(reason)
        path = strongest_path(request, self.config)
        if path is Path.NONE:
            is_other = self.config.reasoning is None or self.tags is not None
            return Decision(Reason.NO_CAPABLE_PATH if is_other else Reason.REASONING)
        passes = self.config.reply.streamed == "pass-unmarked"
        if path is Path.REPLY and request.is_streamed and passes:
            return Decision(Reason.STREAMED)
        return Decision(Reason.MARKED, path)

    def _reasons_for(self, request: GenerationRequest) -> bool:
        """Return whether reasoning that is asked for comes in a form that is understood here."""
        is_engine = self.config.capabilities.api in ("openai", "sglang")
        return self.tags is not None and is_engine and asks_by_template(request)

    def _decide_native(
        self, request: GenerationRequest, engine: str, reason: Reason | None
    ) -> Decision:
        """Return whether an engine marks a request; it understands more than the proxy has to.

        Several choices of one context would come out alike, or not, by the engine's version.
        """
        if reason not in (None, Reason.UNSUPPORTED_PARAMETER, Reason.BATCH_PROMPT):
            return Decision(reason)
        native = self.config.native
        is_able = native.enabled and native.engine == engine and request.n == 1
        is_heard = request.client_dialect in DIALECTS[engine]
        if not (is_able and is_heard) or reason is Reason.BATCH_PROMPT:
            return Decision(Reason.NO_CAPABLE_PATH)
        return Decision(Reason.MARKED, Path.NATIVE)

    def _decide_bias(
        self, request: GenerationRequest, record: KeyRecord, reason: Reason | None
    ) -> Decision:
        """Return whether a list goes with a request, which otherwise passes as it is."""
        if reason not in (None, Reason.UNSUPPORTED_PARAMETER):
            return Decision(reason)
        if not takes_biases(request, self.config) or self.config.stronger_than_bias:
            return Decision(Reason.NO_CAPABLE_PATH)
        if not has_room(len(request.logit_bias), record, self.config.capabilities.max_bias):
            return Decision(Reason.UNSUPPORTED_PARAMETER)
        return Decision(Reason.MARKED, Path.BIAS)

    def fields_for(
        self, request: GenerationRequest, record: KeyRecord, own_bias: Mapping[int, float]
    ) -> dict[str, Any]:
        """Return what a request says more, so that the upstream marks what it passes back.

        Args:
            request: A request that `decide` marks by `native` or `bias`.
            record: The key.
            own_bias: What of the client's own `logit_bias` stays.
        """
        if not is_biased_by(record) or self.table is None:
            return switch_on(request.client_body, record)
        return with_list(
            own_bias,
            sayable(record, self.table),
            delta=self.config.bias.delta,
            max_bias=self.config.capabilities.max_bias,
        )

    def is_too_short(self, request: GenerationRequest, record: KeyRecord) -> bool:
        """Return whether a reply ends before a key's first context is full."""
        return request.max_tokens is not None and request.max_tokens <= record.context_width

    def plan(self, request: GenerationRequest, *, room: int | None) -> MarkPlan:
        """Return the paths of a request that `decide` marks.

        Args:
            request: The request.
            room: Tokens that the context leaves for the reply, None where it is not known.
        """
        config, able = self.config, self.config.capabilities
        path = strongest_path(request, config)
        select = SelectPlan(
            parameters=_parameters(request, room),
            units=self._units(),
            chunk_tokens=config.select.chunk_tokens,
            candidates=min(config.select.candidates, able.choices),
            logprobs=0 if request.logprobs is None else max(1, request.logprobs),
            end_ids=self.end_ids,
        )
        n = min(config.reply.candidates, able.choices)
        return MarkPlan(
            splice=self._splice(request, select.parameters) if path is Path.SPLICE else None,
            splice_limits=_limits(config.splice.limits),
            select=select,
            select_limits=_limits(config.select.limits)
            if config.select.enabled
            else BudgetLimits(requests=0),
            whole=replace(select, candidates=n, path=path) if path is Path.REPLY else None,
        )

    def _splice(self, request: GenerationRequest, parameters: SamplingParameters) -> SplicePlan:
        config, able = self.config, self.config.capabilities
        wanted = max(config.splice.logprobs, request.logprobs or 0, request.top_k + 1)
        listed = min(wanted, able.logprobs, self.vocab_size)
        size = self.vocab_size if able.lists_everything else listed
        most_bans = size + len(request.logit_bias) if size < self.vocab_size else 0
        can_ban = able.logit_bias and most_bans <= able.max_bias
        return SplicePlan(
            reader=ListReader(
                parameters=parameters,
                mode=LogprobsMode(able.logprobs_mode),
                size=size,
                vocab_size=self.vocab_size,
                is_partial=able.is_text,
                cuts_first=able.lists_everything,
            ),
            draft_tokens=config.splice.draft_tokens,
            drafts=config.sampled_drafts(n_bans=most_bans),
            end_ids=self.end_ids,
            chosen=able.chosen_logprobs if can_ban and not able.is_text else 0,
            spelling=self.spelling,
        )

    def replies(
        self,
        request: GenerationRequest,
        plan: MarkPlan,
        keyed: KeyedUniforms,
        entropy: Callable[[], int],
        prompt: Sequence[int] = (),
    ) -> list[Reply]:
        """Return one empty reply a choice, each with private randomness of its own.

        Args:
            request: The request.
            plan: Its plan.
            keyed: The key that marks it.
            entropy: Draws 256 fresh random bits.
            prompt: Token ids before it, where the upstream continues those.
        """
        if request.seed is None:
            root = entropy()
        else:
            root = private_seed(
                keyed.record.secret, seed=request.seed, request_digest=request.shaping_digest()
            )
        turns = (m.text or "" for m in request.messages if m.role == "assistant")
        earlier = contexts_of(map(self.unit.encode, turns), keyed.record.context_width)
        return [
            Reply(
                keyed,
                np.random.Generator(np.random.PCG64(sequence)),
                max_tokens=plan.select.parameters.max_tokens,
                repeats_seed=request.seed is not None,
                earlier=earlier,
                is_text=self.config.capabilities.is_text,
                unit=self._seam_unit,
                parts=self.parts(prompt),
            )
            for sequence in np.random.SeedSequence(root).spawn(request.n)
        ]

    @property
    def _seam_unit(self) -> Unit | None:
        """What cuts a continued text into tokens; words are cut as they are read."""
        is_needed = self.config.capabilities.is_text and self.config.unit != WORDS_V1
        return self.unit if is_needed else None

    def marks(self, piece: Piece) -> bool:
        """Return whether a piece of a marked answer is of a part that is marked."""
        return not piece.is_reasoning or (self.tags is not None and self.tags.is_marked)

    def parts(self, prompt: Sequence[int]) -> Parts:
        """Return what tells the reasoning of a reply from its answer."""
        return Parts(self.tags, is_open=self.tags is not None and self.tags.is_open(prompt))

    def speller(
        self,
        request: GenerationRequest,
        prompt: Sequence[int],
        choice: int,
        *,
        hides_reasoning: bool = False,
    ) -> Speller:
        """Return what puts the text of one choice together.

        Completions have one text, tags and all; the other dialects have a place for reasoning.

        Args:
            request: The request.
            prompt: Token ids before it, where the upstream continues those.
            choice: Index of the choice.
            hides_reasoning: Whether the client gets no reasoning, nor what gives it away.
        """
        is_raw = self.tags is None or request.client_dialect is DialectName.TEXT
        return Speller(
            choice=choice,
            text=self.assembler(prompt, request.stop),
            end_ids=self.end_ids,
            logprobs=None if hides_reasoning and self.tags else request.logprobs,
            hides_reasoning=hides_reasoning,
            parts=self.parts(prompt),
            # A tag is no beginning of a document.
            anew=None if is_raw else lambda: self.assembler([self.filler], request.stop),
        )

    def assembler(self, prompt: Sequence[int], stop: Sequence[str]) -> StopCutter:
        """Return what puts the text of one reply together.

        Args:
            prompt: Token ids before it, where the upstream continues those.
            stop: Strings that end it.
        """
        if self.table is None or self.config.capabilities.is_text:
            return StopCutter(stop)
        return TextAssembler(self.table, prompt, stop)

    def _units(self) -> Units:
        is_text = self.config.capabilities.is_text
        if self.config.unit == WORDS_V1:
            return WordUnits(None if is_text else self.table)
        return SeamUnits(self.unit) if is_text else TokenUnits()


def _parameters(request: GenerationRequest, room: int | None) -> SamplingParameters:
    bounds = [bound for bound in (request.max_tokens, room) if bound is not None]
    return SamplingParameters(
        temperature=request.temperature,
        top_p=request.top_p,
        top_k=request.top_k,
        presence_penalty=request.presence_penalty,
        frequency_penalty=request.frequency_penalty,
        logit_bias=request.logit_bias,
        max_tokens=min(bounds) if bounds else None,
    )


def _limits(config: LimitsConfig) -> BudgetLimits:
    return BudgetLimits(requests=config.requests, tokens=config.tokens, seconds=config.seconds)
