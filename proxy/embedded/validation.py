"""Request bodies to what the engine runs, or a refusal that names the field and the remedy."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, TypeGuard

import numpy as np

from proxy.embedded.generation import GenerationParams
from proxy.embedded.language_model import ChatMessage
from proxy.embedded.requests import NEUTRAL, UNSUPPORTED
from proxy.embedded.sampling import BAN, SamplingParams
from proxy.errors import BadRequestError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from proxy.embedded.language_model import LanguageModel
    from proxy.embedded.requests import ChatRequest, CommonRequest, CompletionRequest, MessageBody

MAX_CHOICES: Final = 1024
"""Most choices of one request, prompts times n; a bound on what one client can queue."""

MAX_CHOSEN: Final = 128
"""Most tokens whose log-probabilities may be asked for by name, as in vLLM."""

MAX_STOP_STRINGS: Final = 32
"""OpenAI allows 4, SGLang 32; a proxy adds its own to the client's."""

DEFAULT_COMPLETION_TOKENS: Final = 16
"""OpenAI's documented default of the completions endpoint."""

MAX_TEMPERATURE: Final = 100.0
"""Beyond OpenAI's 2, as local engines allow; a bound against arithmetic accidents."""

_MAX_ID_DIGITS: Final = 10


def read_sampling(
    request: CommonRequest, vocab_size: int, *, logprobs: int | None
) -> SamplingParams:
    """Return how tokens are to be drawn.

    Raises:
        BadRequestError: A value is out of its range.
    """
    bias_ids, bias_values = _read_bias(request.logit_bias, vocab_size)
    top_k = _in_range("top_k", request.top_k, 0, low=-1, high=math.inf)
    if logprobs is not None:
        _in_range("logprobs", logprobs, 0, low=0, high=vocab_size)
    return SamplingParams(
        temperature=_in_range("temperature", request.temperature, 1.0, low=0, high=MAX_TEMPERATURE),
        top_p=_top_p(request.top_p),
        top_k=min(max(int(top_k), 0), vocab_size),
        presence_penalty=_in_range(
            "presence_penalty", request.presence_penalty, 0.0, low=-2, high=2
        ),
        frequency_penalty=_in_range(
            "frequency_penalty", request.frequency_penalty, 0.0, low=-2, high=2
        ),
        bias_ids=bias_ids,
        bias_values=bias_values,
        seed=request.seed,
        logprobs=logprobs,
    )


def read_generation(
    request: CommonRequest,
    model: LanguageModel,
    sampling: SamplingParams,
    *,
    prompt_tokens: int,
    max_tokens: int | None,
) -> GenerationParams:
    """Return how one prompt's replies are to be generated.

    Raises:
        BadRequestError: The prompt leaves no room, or a value is out of its range.
    """
    room = model.context_limit - prompt_tokens
    if room < 1:
        raise BadRequestError(
            f"the prompt has {prompt_tokens} tokens and the context limit is "
            f"{model.context_limit}; shorten it to leave room for a reply",
            param="prompt",
        )
    wanted = _in_range("max_tokens", max_tokens, room, low=1, high=math.inf)
    return GenerationParams(
        sampling=sampling,
        max_tokens=min(int(wanted), room),
        stop=_read_stop(request.stop),
        end_ids=frozenset() if request.ignore_eos else model.end_ids,
    )


def read_chosen(request: CompletionRequest, vocab_size: int) -> NDArray[np.int64]:
    """Return the tokens whose log-probabilities are to be reported, none for the likeliest.

    Raises:
        BadRequestError: They are too many, repeat themselves, or come without `logprobs`.
    """
    param, chosen = "logprob_token_ids", request.logprob_token_ids or []
    if chosen and request.logprobs is None:
        raise BadRequestError(f"{param} needs logprobs; set it", param=param)
    if len(chosen) > MAX_CHOSEN or len(set(chosen)) < len(chosen):
        raise BadRequestError(f"{param} takes {MAX_CHOSEN} tokens, each once", param=param)
    if chosen:
        check_ids(chosen, vocab_size, param=param)
    return np.array(chosen, np.int64)


def read_choices(request: CommonRequest, prompts: int) -> int:
    """Return n.

    Raises:
        BadRequestError: It is out of its range, or makes too many choices.
    """
    n = int(_in_range("n", request.n, 1, low=1, high=MAX_CHOICES))
    if n * prompts > MAX_CHOICES:
        raise BadRequestError(
            f"{prompts} prompts with n = {n} are more than {MAX_CHOICES} choices; send fewer",
            param="n",
        )
    return n


def check_common(request: CommonRequest) -> None:
    """Refuse what this server knows and cannot honor.

    Raises:
        BadRequestError: Such a field is set.
    """
    for name, remedy in UNSUPPORTED.items():
        value = getattr(request, name)
        if value and value not in NEUTRAL.get(name, ()):
            raise BadRequestError(f"{name} is not supported: {remedy}", param=name)
    if request.response_format not in (None, {"type": "text"}):
        raise BadRequestError(
            "response_format is not supported except for text; leave it out",
            param="response_format",
        )
    if request.stream_options is not None and not request.stream:
        raise BadRequestError(
            "stream_options are for streams; set stream to true or leave them out",
            param="stream_options",
        )


def read_prompts(request: CompletionRequest, model: LanguageModel) -> list[list[int]]:
    """Return the prompts of a completions request as token ids, one or more.

    A text gets the model's start token; token ids are taken as they are.

    Raises:
        BadRequestError: The prompt is missing, empty, of another form, or out of the vocabulary.
    """
    prompt = request.prompt
    special = request.add_special_tokens is not False
    if isinstance(prompt, str):
        ids = [model.encode(prompt, add_special_tokens=special)]
    elif _are_ids(prompt):
        ids = [prompt]
    elif prompt and all(isinstance(text, str) for text in prompt):
        ids = [model.encode(text, add_special_tokens=special) for text in prompt]
    elif prompt and all(_are_ids(array) for array in prompt):
        ids = prompt
    else:
        raise BadRequestError(
            "prompt must be a text, a list of token ids, or a list of such; and not empty",
            param="prompt",
        )
    for array in ids:
        check_ids(array, model.vocab_size, param="prompt")
    return ids


def check_ids(ids: Sequence[int], vocab_size: int, *, param: str) -> None:
    """Refuse token ids that the model does not have.

    Raises:
        BadRequestError: There are none, or one is out of range.
    """
    if not ids:
        raise BadRequestError(f"{param} is empty; send at least one token", param=param)
    if min(ids) < 0 or max(ids) >= vocab_size:
        raise BadRequestError(
            f"{param} has a token id outside 0 to {vocab_size - 1}; "
            "use ids of this model's tokenizer",
            param=param,
        )


def read_messages(bodies: Sequence[MessageBody]) -> list[ChatMessage]:
    """Return a conversation with its text parts joined.

    Raises:
        BadRequestError: It is empty, or holds anything but text.
    """
    if not bodies:
        raise BadRequestError("messages is empty; send at least one message", param="messages")
    return [_read_message(body, f"messages[{place}]") for place, body in enumerate(bodies)]


def check_continuation(
    messages: Sequence[ChatMessage], *, add_generation_prompt: bool, continue_final_message: bool
) -> None:
    """Refuse contradictory wishes about where the reply begins.

    Raises:
        BadRequestError: Both flags are set, or there is no assistant message to continue.
    """
    if not continue_final_message:
        return
    if add_generation_prompt:
        raise BadRequestError(
            "continue_final_message and add_generation_prompt exclude each other; "
            "set add_generation_prompt to false",
            param="continue_final_message",
        )
    if messages[-1].role != "assistant":
        raise BadRequestError(
            "continue_final_message needs a final message of the assistant; add one",
            param="continue_final_message",
        )


def read_chat_logprobs(request: ChatRequest) -> int | None:
    """Return how many most probable tokens to report, or None for no report.

    Raises:
        BadRequestError: top_logprobs is set without logprobs.
    """
    if request.logprobs:
        return request.top_logprobs or 0
    if request.top_logprobs:
        raise BadRequestError(
            "top_logprobs needs logprobs; set logprobs to true", param="top_logprobs"
        )
    return None


def _read_message(body: MessageBody, param: str) -> ChatMessage:
    if body.tool_calls:
        raise BadRequestError(
            f"{param} has tool calls; this server takes text only", param=f"{param}.tool_calls"
        )
    if isinstance(body.content, list):
        if any(part.type != "text" or part.text is None for part in body.content):
            raise BadRequestError(
                f"{param} has a part that is not text; send text only", param=f"{param}.content"
            )
        content = "".join(part.text or "" for part in body.content)
    else:
        content = body.content or ""
    return ChatMessage(role=body.role, content=content, name=body.name)


def _read_stop(stop: str | list[str] | None) -> tuple[str, ...]:
    strings = (stop,) if isinstance(stop, str) else tuple(stop or ())
    if len(strings) > MAX_STOP_STRINGS:
        raise BadRequestError(f"stop has more than {MAX_STOP_STRINGS} strings", param="stop")
    if not all(strings):
        raise BadRequestError("stop has an empty string; leave it out", param="stop")
    return strings


def _read_bias(
    bias: dict[str, float] | None, vocab_size: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    entries: dict[int, float] = {}
    for key, value in (bias or {}).items():
        is_number = key.isascii() and key.isdigit() and len(key) <= _MAX_ID_DIGITS
        token = int(key) if is_number else -1
        if not 0 <= token < vocab_size:
            raise BadRequestError(
                f"logit_bias has a key that is no token id from 0 to {vocab_size - 1}",
                param="logit_bias",
            )
        entries[token] = _in_range("logit_bias", value, 0.0, low=BAN, high=-BAN)
    if len(entries) == vocab_size and all(value <= BAN for value in entries.values()):
        raise BadRequestError("logit_bias bans every token; leave one", param="logit_bias")
    ids = np.fromiter(entries, dtype=np.int64, count=len(entries))
    return ids, np.fromiter(entries.values(), dtype=np.float64, count=len(entries))


def _top_p(value: float | None) -> float:
    if value is not None and not 0 < value <= 1:
        raise BadRequestError("top_p must be above 0 and at most 1", param="top_p")
    return 1.0 if value is None else value


def _in_range(name: str, value: float | None, default: float, *, low: float, high: float) -> float:
    if value is None:
        return default
    if not low <= value <= high:
        bounds = f"at least {low}" if high == math.inf else f"from {low} to {high}"
        raise BadRequestError(f"{name} must be {bounds}", param=name)
    return value


def _are_ids(value: object) -> TypeGuard[list[int]]:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(item, int) and not isinstance(item, bool) for item in value)
    )
