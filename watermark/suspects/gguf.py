"""A suspect's weights: a GGUF file, read and asked through llama-cpp-python (extra `llama-cpp`).

Rule: memory follows what is asked. A context is as long as the longest prompt with its answer, or
a window of text that is read; logits of all positions are kept for reading alone. By the file's own
numbers a current model would take tens of gigabytes for both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from watermark.errors import SuspectError
from watermark.extras import load_extra
from watermark.suspects.answers import Attempt, Outcome, answered
from watermark.suspects.dialects import as_one_text, as_turns
from watermark.suspects.reading import CANDIDATES, pieces
from watermark.suspects.standing import Standing
from watermark.suspects.weights import at_work

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from watermark.suspects.answers import Prompt
    from watermark.suspects.dialects import Sampling
    from watermark.suspects.reading import Candidates

_ALL_LAYERS: Final = -1
"""To a GPU as many layers as there are."""
_WINDOW: Final = 2048
"""Tokens of a text that are read together: 1 GB of logits of 128,000 tokens."""
_OF_A_TEMPLATE: Final = 256
"""Tokens that a chat template may add."""
_TEMPLATE: Final = "tokenizer.chat_template"


def load_gguf(
    file: Path, sampling: Sampling, *, longest: int, is_read: bool = False, seed: int = 0
) -> GgufSuspect:
    """Return the suspect in a GGUF file, on a GPU where the package was built for one.

    Args:
        file: The model.
        sampling: How it is to answer.
        longest: Tokens of the longest prompt or text, rather too many than too few.
        is_read: It is read, and not asked.
        seed: Of its sampling.

    Raises:
        SuspectError: llama-cpp-python is not installed, or the file cannot be loaded.
    """
    package = load_extra("llama_cpp", "llama-cpp", "a GGUF file needs", SuspectError)
    has_gpu = bool(package.llama_supports_gpu_offload())

    def load(n_ctx: int) -> Any:  # noqa: ANN401 - no types
        return package.Llama(
            model_path=str(file),
            n_gpu_layers=_ALL_LAYERS if has_gpu else 0,
            logits_all=is_read,
            n_ctx=n_ctx,
            seed=seed,
            verbose=False,
        )

    n_ctx = longest + _OF_A_TEMPLATE + sampling.max_tokens
    if is_read:
        n_ctx = min(_WINDOW, longest + _OF_A_TEMPLATE)
    try:
        model = load(n_ctx)
        trained = _trained_context(model)
        if trained and trained < n_ctx:
            model = load(trained)
    except Exception as err:  # the package raises whatever comes up
        raise SuspectError(f"{file} cannot be loaded as GGUF; give the model's own file") from err
    return GgufSuspect(model, sampling, device="gpu" if has_gpu else "cpu")


def _trained_context(model: Any) -> int:  # noqa: ANN401 - no types
    """Return the context that the file names; 0 where it names none."""
    metadata: dict[str, str] = getattr(model, "metadata", {})
    found = [value for name, value in metadata.items() if name.endswith(".context_length")]
    return int(found[0]) if found else 0


class GgufSuspect:
    """A loaded model.

    Args:
        model: A `llama_cpp.Llama`; with all logits kept where it is read.
        sampling: How it is to answer.
        device: Where it runs, in a word.

    Attributes:
        standing: Whether it takes prompts at all.
    """

    def __init__(
        self,
        model: Any,  # noqa: ANN401 - no types
        sampling: Sampling,
        *,
        device: str = "cpu",
    ) -> None:
        self._model = model
        self.device = device
        self._sampling = sampling
        self.standing = Standing(
            remedy="run the command again", refused="plan shorter prompts, or no --system"
        )

    def ask(self, prompts: Sequence[Prompt], keep: Callable[[Attempt], None]) -> None:
        """Ask every prompt, one after the other.

        Raises:
            SuspectError: The model cannot answer, or has room for no prompt.
        """
        self.standing.take_all(map(self._answer, prompts), keep)

    def _answer(self, prompt: Prompt) -> Attempt:
        try:
            with at_work():
                text, usage = self._complete(prompt.prompt)
        except ValueError:  # a prompt longer than the context, or not for the template
            detail = "no room for the prompt"
            return Attempt(prompt=prompt.id, outcome=Outcome.UNANSWERABLE, detail=detail)
        return answered(
            prompt,
            text,
            prompt_tokens=int(usage["prompt_tokens"]),
            completion_tokens=int(usage["completion_tokens"]),
        )

    def _complete(self, prompt: str) -> tuple[str, dict[str, int]]:
        """Return what the model says, and what that took; in a chat where the file has a form."""
        system, temperature = self._sampling.system, self._sampling.temperature
        how = {
            "max_tokens": self._sampling.max_tokens,
            "temperature": 1.0 if temperature is None else temperature,
            "top_p": 1.0,
            "top_k": 0,
            "min_p": 0.0,
            "repeat_penalty": 1.0,
        }
        if _TEMPLATE not in getattr(self._model, "metadata", {}):
            answer = self._model.create_completion(as_one_text(system, prompt), **how)
            return str(answer["choices"][0]["text"]), answer["usage"]
        answer = self._model.create_chat_completion(as_turns(system, prompt), **how)
        return str(answer["choices"][0]["message"]["content"] or ""), answer["usage"]

    def next_tokens(self, text: str, places: Sequence[int]) -> list[Candidates | None]:
        """Return what may come after the first characters of a text (see `reading.Reader`).

        A long text is read in overlapping pieces.

        Raises:
            SuspectError: The model fails.
        """
        model = self._model
        start = model.tokenize(b"", add_bos=True, special=False)
        tokens = model.tokenize(text.encode(), add_bos=False, special=False)
        ends: dict[int, int] = {}
        for index in range(len(tokens)):
            spelt = model.detokenize(tokens[: index + 1]).decode("utf-8", "ignore")
            ends.setdefault(len(spelt.strip()), index)
        wanted = [ends.get(len(text[:place].strip())) for place in places]
        found: dict[int, Candidates] = {}
        room = model.n_ctx() - len(start)
        for first, new in pieces({one for one in wanted if one is not None}, len(tokens), room):
            model.reset()
            with at_work():
                model.eval([*start, *tokens[first : first + room]])
            for one in new:
                found[one] = self._candidates(model.scores[one - first + len(start)])
        return [None if one is None else found[one] for one in wanted]

    def _candidates(self, logits: NDArray[np.float32]) -> Candidates:
        masses = np.exp(logits.astype(np.float64) - float(logits.max()))
        masses /= masses.sum()
        best = np.argsort(-masses)[:CANDIDATES]
        return [
            (self._model.detokenize([int(one)]).decode("utf-8", "replace"), float(masses[one]))
            for one in best
        ]
