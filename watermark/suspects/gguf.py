"""A suspect's weights: a GGUF file, read and asked through llama-cpp-python (extra `llama-cpp`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from watermark.errors import SuspectError
from watermark.extras import load_extra
from watermark.suspects.answers import answered
from watermark.suspects.reading import CANDIDATES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from watermark.suspects.answers import Attempt, Prompt
    from watermark.suspects.dialects import Sampling
    from watermark.suspects.reading import Candidates

_ALL_LAYERS: Final = -1
"""To a GPU as many layers as there are."""


def load_gguf(file: Path, sampling: Sampling, *, seed: int = 0) -> GgufSuspect:
    """Return the suspect in a GGUF file, on a GPU where the package was built for one.

    Raises:
        SuspectError: llama-cpp-python is not installed, or the file cannot be loaded.
    """
    package = load_extra("llama_cpp", "llama-cpp", "a GGUF file needs", SuspectError)
    has_gpu = bool(package.llama_supports_gpu_offload())
    try:
        model = package.Llama(
            model_path=str(file),
            n_gpu_layers=_ALL_LAYERS if has_gpu else 0,
            logits_all=True,
            n_ctx=0,
            seed=seed,
            verbose=False,
        )
    except Exception as err:  # the package raises whatever comes up
        raise SuspectError(f"{file} cannot be loaded as GGUF; give the model's own file") from err
    return GgufSuspect(model, sampling, device="gpu" if has_gpu else "cpu")


class GgufSuspect:
    """A loaded model.

    Args:
        model: A `llama_cpp.Llama` with all logits kept.
        sampling: How it is to answer.
        device: Where it runs, in a word.
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

    def ask(self, prompts: Sequence[Prompt], keep: Callable[[Attempt], None]) -> None:
        """Ask every prompt, one after the other.

        Raises:
            SuspectError: The model cannot answer.
        """
        for prompt in prompts:
            system = self._sampling.system
            text = f"{system}\n\n{prompt.prompt}" if system else prompt.prompt
            temperature = self._sampling.temperature
            try:
                answer = self._model.create_completion(
                    text,
                    max_tokens=self._sampling.max_tokens,
                    temperature=1.0 if temperature is None else temperature,
                    top_p=1.0,
                    top_k=0,
                    min_p=0.0,
                    repeat_penalty=1.0,
                )
            except ValueError as err:  # a prompt longer than the context
                raise SuspectError(
                    "the suspect has no room for a prompt; plan shorter ones"
                ) from err
            usage = answer["usage"]
            keep(
                answered(
                    prompt,
                    str(answer["choices"][0]["text"]),
                    prompt_tokens=int(usage["prompt_tokens"]),
                    completion_tokens=int(usage["completion_tokens"]),
                )
            )

    def next_tokens(self, text: str, places: Sequence[int]) -> list[Candidates | None]:
        """Return what may come after the first characters of a text (see `reading.Reader`)."""
        model = self._model
        tokens = model.tokenize(text.encode(), add_bos=True, special=False)[: model.n_ctx()]
        model.reset()
        model.eval(tokens)
        ends: dict[int, int] = {}
        for index in range(len(tokens)):
            spelt = model.detokenize(tokens[: index + 1]).decode("utf-8", "ignore")
            ends.setdefault(len(spelt.strip()), index)
        wanted = [ends.get(len(text[:place].strip())) for place in places]
        return [None if row is None else self._candidates(model.scores[row]) for row in wanted]

    def _candidates(self, logits: NDArray[np.float32]) -> Candidates:
        masses = np.exp(logits.astype(np.float64) - float(logits.max()))
        masses /= masses.sum()
        best = np.argsort(-masses)[:CANDIDATES]
        return [
            (self._model.detokenize([int(one)]).decode("utf-8", "replace"), float(masses[one]))
            for one in best
        ]
