"""The section `ingress`: what of a request is the operator's to say."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

_OwnedRule = Literal["strip", "refuse", "pass"]
_EntriesRule = Literal["merge", "strip", "refuse", "pass"]
_BiasRule = Literal["merge", "strip", "refuse"]
_RefusedReason = Literal[
    "model-not-configured",
    "no-capable-path",
    "temperature-zero",
    "too-short",
    "context-full",
    "tools",
    "structured-output",
    "reasoning",
    "stored",
    "not-text",
    "batch-prompt",
    "unsupported-parameter",
    "unreadable",
    "other-path",
]


class IngressConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What of a request is the operator's to say, and which requests are not served unmarked.

    A field by which a client could switch the mark off or choose its key is taken out (`strip`),
    refused with 400 (`refuse`; what asks for nothing is only taken out), left alone (`pass`), or,
    where it holds entries, rid of those that are reserved (`merge`); each is counted.

    Attributes:
        watermarking: vLLM's switch.
        watermark: SGLang's and TGI's switch, in SGLang with a key of the client's own.
        custom_logit_processor: SGLang's: code of the client's that runs in the engine.
        custom_params: Its parameters.
        vllm_xargs: Parameters for plug-ins of vLLM's.
        generation_config: `transformers serve`'s: any field of it, watermarks among them.
        use_beam_search: Chooses tokens without sampling, and so without a mark.
        logit_bias: Where the path `bias` marks: added to (`merge`), taken out, or refused.
        reserved: Entries of `vllm_xargs` and `custom_params` that are the operator's.
        refuse: Reasons for which a request is refused instead of served unmarked, such as
            `temperature-zero`, `unreadable` or `other-path`; the README lists them.
        min_temperature: What a lower temperature is raised to; 0 raises none.
    """

    watermarking: _OwnedRule = "strip"
    watermark: _OwnedRule = "strip"
    custom_logit_processor: _OwnedRule = "refuse"
    custom_params: _EntriesRule = "merge"
    vllm_xargs: _EntriesRule = "merge"
    generation_config: _OwnedRule = "refuse"
    use_beam_search: _OwnedRule = "refuse"
    logit_bias: _BiasRule = "merge"
    reserved: tuple[str, ...] = ("watermark", "watermarking", "watermark_key")
    refuse: tuple[_RefusedReason, ...] = ()
    min_temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] = 0.0
