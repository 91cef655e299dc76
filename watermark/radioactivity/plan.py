"""A plan: everything about an audit that could be chosen afterwards, fixed before it.

Rule 1: a plan has one form, byte for byte, and its digest names it. Rule 2: the digest goes into
the log of keys before the first prompt goes out, with a tag of the suspect, so that every plan
for a suspect can be found by whoever has the log. Rule 3: a plan that cannot succeed is not made.

Source: `watermark/spec/audit.md`.
"""

from __future__ import annotations

import enum
import hashlib
import re
import unicodedata
from typing import TYPE_CHECKING, Annotated, Final

import msgspec

from watermark.errors import AuditPlanError
from watermark.radioactivity.delivered import ContextWeights, Weighting
from watermark.radioactivity.design import Design

if TYPE_CHECKING:
    from collections.abc import Sequence

    from watermark.radioactivity.delivered import Traffic

PLAN_FORM: Final = "output-watermark-audit-plan/v1"
_TAG: Final = b"output-watermark/v1/audit-suspect"
_ENTRY: Final = re.compile(
    PLAN_FORM.encode() + rb"\nplan: ([0-9a-f]{64})\nsuspect: ([0-9a-f]{64})\n"
)


class Access(enum.StrEnum):
    """What a suspect lets one see."""

    CLOSED = "closed"
    """Its answers."""
    ARGMAX = "open-argmax"
    """Its likeliest next token along delivered text (reading mode)."""
    EXPECTATION = "open-expectation"
    """Its distribution of the next token along delivered text (reading mode)."""

    @property
    def is_open(self) -> bool:
        """Whether the suspect reads delivered text, instead of answering prompts."""
        return self is not Access.CLOSED


class PromptSource(enum.StrEnum):
    """Where prompts come from, and so why they are free of the key."""

    SEEDS = "seeds"
    """This project's own, recognized by their digest: written for the purpose, and no one's."""
    GIVEN = "given"
    """Of a file that somebody gave: fixed before the plan, and whoever gave it vouches for it."""
    FIRST_TURNS = "first-turns"
    """First-turn user prompts, rows drawn by a committed seed."""
    PREFIXES = "prefixes"
    """Beginnings of delivered replies, cut where what comes after had no say in them."""
    PASSAGES = "passages"
    """Delivered replies, to be read (open access)."""


class TokensField(enum.StrEnum):
    """How a server is told the length of an answer."""

    MAX_TOKENS = "max_tokens"
    MAX_COMPLETION_TOKENS = "max_completion_tokens"
    """What OpenAI's later models take."""
    NONE = "none"
    """Not at all."""


class PlanKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One key of a plan, as it is committed to.

    Attributes:
        key_id: Its id.
        unit: Its unit.
        context_width: Units in a context.
        scheme: Its scheme.
        rho: Its correlation.
        account_share_q16: Its account share.
        commitment: Its log entry, whole; empty where it can have none.
        log_index: Where the log held that when the plan was made; None where it did not.
        marked_from: Since when it marked; empty for always.
    """

    key_id: str
    unit: str
    context_width: int
    scheme: str
    rho: float
    account_share_q16: int
    commitment: str = ""
    log_index: int | None = None
    marked_from: str = ""


class PlanFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file beside a plan.

    Attributes:
        name: Its name.
        sha256: Its digest, in hex.
        rows: How many rows it holds.
    """

    name: str
    sha256: str
    rows: int


class DeliveredFile(
    PlanFile, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """Contexts that were delivered under one key.

    Attributes:
        key_id: The key; empty where that is not known.
        is_keyed: Whether the fingerprints are keyed: streams of that key, unless another is named.
        context_key: Of what an engine marked: the subkey of the ledger that made them, in hex.
    """

    key_id: str
    is_keyed: bool
    context_key: Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{32})?$")] = ""


class Budget(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an audit may take.

    Attributes:
        requests: Prompts, or passages, at most.
        max_tokens: Tokens of an answer.
        price: In the currency of the prices, at most; 0 for no limit.
        price_in: Of a million prompt tokens.
        price_out: Of a million answer tokens.
        requests_per_minute: The rate limit; 0 for none.
    """

    requests: int
    max_tokens: int = 400
    price: float = 0.0
    price_in: float = 0.0
    price_out: float = 0.0
    requests_per_minute: float = 0.0

    def spent(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Return what tokens cost."""
        return (prompt_tokens * self.price_in + completion_tokens * self.price_out) / 1e6


class Forecast(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a plan expects of itself.

    Attributes:
        effect: Mean excess of a score that is supposed, in standard deviations.
        share_scored: Scored of generated units that are supposed.
        power: Chance to reject if the effect is that large.
        scores_needed: Scores for nine chances in ten.
        scores_expected: Scores that the budget gives.
        requests: Requests, to the clean model too where the plan promises one.
        price: Of all of them, as far as prices are known.
        days: Of all of them, at the rate limit.
        is_least: Whether that may take more, however well it goes: a server that reads delivered
            text and cannot echo it is asked prefix by prefix, many times a text.
    """

    effect: float
    share_scored: float
    power: float
    scores_needed: int
    scores_expected: int
    requests: int
    price: float
    days: float
    is_least: bool


class AuditPlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that is fixed before the first query.

    Attributes:
        form: `PLAN_FORM`.
        suspect: How reports call the suspect.
        model: The name it is asked by, and that its answers bear, or a longer one that begins
            with it (`m-2026-01-31` for `m`); empty for any.
        answers_as: The name that its answers bear, where that is another; empty for `model`.
        access: What it lets one see.
        training_cutoff: When it stopped learning, as far as one knows; empty for unknown.
        created: When the plan was made.
        keys: The keys, which are tested together.
        weighting: Whose traffic weighs a context.
        full_at: As `ContextWeights` has it.
        floor: Likewise.
        delivered: What was delivered.
        prompt_source: Where prompts come from.
        prompt_seed: By which rows were drawn.
        prompt_origin: The file of prompts that they were drawn from; None where it was none.
        prompts: The file of prompts, or of passages.
        system: A system prompt that goes with every prompt; empty for none.
        temperature: Of answers; None leaves it to the suspect.
        max_tokens_as: The field by which a server is told the length of an answer.
        alpha: Level of the anytime-valid test.
        share: As `Design` has it.
        n_decoys: Decoy keys.
        reference: As `Design` has it.
        budget: What it may take.
        controls: What stands beside: always decoys and contexts never delivered, and a clean
            model where there is one.
        forecast: What it expects of itself.
    """

    form: str = PLAN_FORM
    suspect: str
    model: str = ""
    answers_as: str = ""
    access: Access = Access.CLOSED
    training_cutoff: str = ""
    created: str
    keys: tuple[PlanKey, ...]
    weighting: Weighting = Weighting.FLAT
    full_at: int = 16
    floor: float = 0.0
    delivered: tuple[DeliveredFile, ...] = ()
    prompt_source: PromptSource = PromptSource.SEEDS
    prompt_seed: str = ""
    prompt_origin: PlanFile | None = None
    prompts: PlanFile
    system: str = ""
    temperature: float | None = 1.0
    max_tokens_as: TokensField = TokensField.MAX_TOKENS
    alpha: float
    share: float
    n_decoys: int
    reference: float = 1.0
    budget: Budget
    controls: tuple[str, ...] = ("decoys", "undelivered")
    forecast: Forecast

    @property
    def hypothesis(self) -> str:
        """What is tested, in words."""
        names = ", ".join(one.key_id for one in self.keys)
        return (
            f"Null hypothesis: {self.suspect} is independent of key {names}. It is rejected if, at "
            f"any time before {self.budget.requests} requests, the e-value reaches 1 / alpha = "
            f"{1 / self.alpha:g}."
        )

    def design(self, traffic: Sequence[Traffic]) -> Design:
        """Return how its scores become a statement.

        Args:
            traffic: What `delivered` names, read.
        """
        weights = ContextWeights(
            weighting=self.weighting,
            full_at=self.full_at,
            floor=self.floor,
            traffic=tuple(traffic),
        )
        return Design(
            alpha=self.alpha,
            share=self.share,
            n_decoys=self.n_decoys,
            weights=weights,
            n_answers=self.budget.requests,
            reference=self.reference,
        )


def encode_plan(plan: AuditPlan) -> bytes:
    """Return the one form of a plan: JSON, keys in order, a line feed at the end."""
    return msgspec.json.format(msgspec.json.encode(plan, order="sorted"), indent=1) + b"\n"


def plan_digest(data: bytes) -> str:
    """Return the digest by which a plan is called, 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def parse_plan(data: bytes, name: str) -> AuditPlan:
    """Return the plan that a file holds.

    Args:
        data: The whole file.
        name: What messages call it.

    Raises:
        AuditPlanError: It is no plan, or not in the one form.
    """
    try:
        plan = msgspec.json.decode(data, type=AuditPlan)
    except (msgspec.DecodeError, UnicodeDecodeError) as err:
        raise AuditPlanError(f"{name} is no plan of form {PLAN_FORM} ({err}); plan again") from None
    if plan.form != PLAN_FORM or encode_plan(plan) != data:
        raise AuditPlanError(
            f"{name} is not in the one form that a plan has, so it was edited; restore the file "
            "that `watermark audit plan` wrote"
        )
    return plan


def suspect_tag(suspect: str) -> str:
    """Return what the log calls a suspect: the same for one name, and not the name, 64 hex digits.

    Of a name its letters and digits count, compatible forms and cases alike, so that spelling it
    in another way hides no plan. Who guesses the name can check it; a plan is no secret to whoever
    is named in it.

    Raises:
        AuditPlanError: The name has neither.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", suspect).casefold())
    name = "".join(one for one in folded if one.isalnum()).encode()
    if not name:
        raise AuditPlanError(f"{suspect!a} has no letter and no digit; call the suspect by a name")
    return hashlib.sha256(_TAG + len(name).to_bytes(4, "little") + name).hexdigest()


def plan_entry(digest: str, suspect: str) -> bytes:
    """Return the log entry that fixes a plan."""
    return f"{PLAN_FORM}\nplan: {digest}\nsuspect: {suspect_tag(suspect)}\n".encode()


def read_entry(entry: bytes) -> tuple[str, str] | None:
    """Return digest and suspect's tag of a plan's log entry; None for another entry."""
    found = _ENTRY.fullmatch(entry)
    return None if found is None else (found[1].decode(), found[2].decode())
