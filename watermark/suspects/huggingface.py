"""A suspect's weights: a Hugging Face folder, read and asked through transformers.

Rule 1: nothing is fetched; the folder holds what there is. Rule 2: code that the folder brings
along runs only where that was allowed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from watermark.errors import SuspectError
from watermark.extras import load_extra
from watermark.suspects.answers import answered
from watermark.suspects.dialects import as_one_text, as_turns
from watermark.suspects.reading import CANDIDATES, pieces
from watermark.suspects.standing import Standing
from watermark.suspects.weights import at_work

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from watermark.suspects.answers import Attempt, Prompt
    from watermark.suspects.dialects import Sampling
    from watermark.suspects.reading import Candidates

_DEFAULT_LIMIT: Final = 1024


class FolderSuspect:
    """A model folder.

    Args:
        folder: With `config.json`, weights and tokenizer.
        sampling: How it is to answer.
        seed: Of its sampling.
        trust_remote_code: Run Python code that the folder brings along.

    Attributes:
        device: Where it runs: `cuda` where there is a GPU, else `cpu`.
        standing: Whether it says anything at all.

    Raises:
        SuspectError: torch or transformers is not installed, or the folder cannot be loaded.
    """

    def __init__(
        self, folder: Path, sampling: Sampling, *, seed: int = 0, trust_remote_code: bool = False
    ) -> None:
        needs = "a suspect's weights need"
        self._torch = load_extra("torch", "embedded", needs, SuspectError)
        transformers = load_extra("transformers", "embedded", needs, SuspectError)
        options = {"trust_remote_code": trust_remote_code, "local_files_only": True}
        try:
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **options)
            network = transformers.AutoModelForCausalLM.from_pretrained(folder, **options)
        except Exception as err:  # transformers raises whatever comes up
            raise SuspectError(
                f"{folder} cannot be loaded ({type(err).__name__}); give a folder with "
                "config.json, weights and tokenizer, and allow its code where it brings some"
            ) from err
        self.device = "cuda" if self._torch.cuda.is_available() else "cpu"
        self._network = network.to(self.device).eval()
        self._sampling = sampling
        self._torch.manual_seed(seed)
        self.standing = Standing(
            remedy="run the command again", refused="give a folder of a model that answers"
        )
        config = self._network.config
        self._limit = int(getattr(config, "max_position_embeddings", 0) or _DEFAULT_LIMIT)

    def ask(self, prompts: Sequence[Prompt], keep: Callable[[Attempt], None]) -> None:
        """Ask every prompt, one after the other.

        Raises:
            SuspectError: The model cannot answer.
        """
        self.standing.take_all(map(self._answer, prompts), keep)

    def _answer(self, prompt: Prompt) -> Attempt:
        ids = self._ids(self._rendered(prompt.prompt), self._limit - self._sampling.max_tokens)
        if not ids:
            raise SuspectError(
                f"the suspect has room for {self._limit} tokens; plan shorter answers"
            )
        with at_work():
            said = self._generate(ids)
        text = str(self._tokenizer.decode(said, skip_special_tokens=True))
        return answered(prompt, text, prompt_tokens=len(ids), completion_tokens=len(said))

    def next_tokens(self, text: str, places: Sequence[int]) -> list[Candidates | None]:
        """Return what may come after the first characters of a text (see `reading.Reader`).

        The text is cut once; a place counts where a token ends there, white space aside.

        Raises:
            SuspectError: The model fails.
        """
        encoding = self._tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)
        ids, offsets = encoding["input_ids"], encoding["offset_mapping"]
        ends = {len(text[:end].rstrip()): index for index, (_, end) in enumerate(offsets)}
        wanted = [ends.get(len(text[:place].rstrip())) for place in places]
        rows = self._distributions(ids, sorted({one for one in wanted if one is not None}))
        return [None if one is None else rows[one] for one in wanted]

    def _distributions(self, ids: Sequence[int], indices: Sequence[int]) -> dict[int, Candidates]:
        """Return what may come after some tokens; a long text is read in overlapping pieces."""
        found: dict[int, Candidates] = {}
        start_ids = self._start_ids()
        room = self._limit - len(start_ids)
        for first, new in pieces(indices, len(ids), room):
            piece = [*start_ids, *ids[first : first + room]]
            rows = self._top(piece, [one - first + len(start_ids) for one in new])
            found |= dict(zip(new, rows, strict=True))
        return found

    def _top(self, ids: Sequence[int], rows: Sequence[int]) -> list[Candidates]:
        torch = self._torch
        with at_work(), torch.inference_mode():
            batch = torch.tensor([list(ids)], device=self.device)
            logits = self._network(input_ids=batch).logits[0, list(rows)].double()
            best = torch.softmax(logits, dim=-1).topk(min(CANDIDATES, logits.shape[-1]), dim=-1)
        return [
            [(self._spelt(token), p) for token, p in zip(tokens, values, strict=True)]
            for tokens, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]

    def _spelt(self, token: int) -> str:
        """Return a token as it stands inside a text, with the space before it."""
        around = self._tokenizer.decode([token, token])
        once = self._tokenizer.decode([token])
        return str(around[len(once) :])

    def _rendered(self, prompt: str) -> str:
        system = self._sampling.system
        if not getattr(self._tokenizer, "chat_template", None):
            return as_one_text(system, prompt)
        turns = as_turns(system, prompt)
        return str(
            self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        )

    def _ids(self, text: str, room: int) -> list[int]:
        ids = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        start = self._start_ids()
        kept = max(0, room - len(start))
        return [*start, *ids[-kept:]] if kept else []

    def _start_ids(self) -> list[int]:
        start = self._tokenizer.bos_token_id
        if start is None:
            start = self._tokenizer.eos_token_id
        return [] if start is None else [int(start)]

    def _generate(self, ids: Sequence[int]) -> list[int]:
        torch, temperature = self._torch, self._sampling.temperature
        temperature = 1.0 if temperature is None else temperature
        batch = torch.tensor([list(ids)], device=self.device)
        drawn = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
        how: dict[str, Any] = drawn if temperature else {"do_sample": False}
        with torch.inference_mode():
            out = self._network.generate(
                input_ids=batch,
                attention_mask=torch.ones_like(batch),
                max_new_tokens=self._sampling.max_tokens,
                pad_token_id=self._tokenizer.eos_token_id,
                **how,
            )
        return [int(token) for token in out[0, len(ids) :].tolist()]
