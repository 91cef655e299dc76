"""Make what recipes say, once: texts, students and answers lie in a cache by their digests.

A file is written whole or not at all, so that a run that was cut off goes on where it was.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from benchmarks.radioactivity.marks import chooser_of, records_of
from benchmarks.radioactivity.networks import Network, Sampler, draw, train
from benchmarks.radioactivity.recipes import (
    AnswersRecipe,
    Recipe,
    StudentRecipe,
    TextRecipe,
    digest,
)
from benchmarks.radioactivity.select_text import SelectSampling, select_replies
from benchmarks.story import stories
from watermark.text import WORDS_V1

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from watermark.keys import KeyRecord

    Ids = NDArray[np.int64]

ROWS = 128
"""Replies that are drawn at once; part of what the seeds mean, so no option."""


def weights_digest(folder: Path) -> str:
    """Return the first digits of the digest of a folder's weights."""
    with (folder / "model.safetensors").open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


@dataclass
class Laboratory:
    """A cache, the models, and what is made of them.

    Attributes:
        cache: Folder of what was made.
        models: Folder of the models.
        device: Where they run.
    """

    cache: Path
    models: Path
    device: str = "cpu"
    _networks: dict[str, Network] = field(default_factory=dict, repr=False)

    def network(self, name: str) -> Network:
        """Return a model as it was published."""
        if name not in self._networks:
            self._networks[name] = Network.load(self.models / name, device=self.device)
        return self._networks[name]

    def weights(self, name: str) -> str:
        """Return what identifies a model's weights."""
        return weights_digest(self.models / name)

    def records(self, recipe: TextRecipe) -> list[KeyRecord]:
        """Return the keys of a text."""
        words = recipe.mark == "words"
        unit = WORDS_V1 if words else self.network(recipe.teacher).unit.unit_id
        return records_of(recipe, unit)

    def prompts(self, recipe: TextRecipe) -> torch.Tensor:
        """Return the beginnings of stories, start token first, shape (replies, 1 + tokens)."""
        network = self.network(recipe.teacher)
        n = recipe.prompt_tokens
        every = stories()
        rows = []
        for number in range(recipe.skip_prompts, recipe.skip_prompts + recipe.replies):
            # Beyond the last story, later beginnings of the same ones.
            turn, place = divmod(number, len(every))
            ids = network.unit.encode(every[place]).tolist()[turn * n : (turn + 1) * n]
            if len(ids) == n:
                rows.append([network.start_id, *ids])
        if len(rows) < recipe.replies:
            raise SystemExit(f"{recipe.replies} replies need more stories than there are")
        return torch.tensor(rows, device=self.device)

    def text(self, recipe: TextRecipe) -> Ids:
        """Return prompts with replies, shape (replies, 1 + prompt_tokens + tokens)."""
        return np.asarray(self._kept(recipe, partial(self._write, recipe)), np.int64)

    def _write(self, recipe: TextRecipe) -> Ids:
        network, prompts = self.network(recipe.teacher), self.prompts(recipe)
        records: list[KeyRecord] = [] if recipe.mark == "none" else self.records(recipe)
        found = np.zeros((recipe.replies, prompts.shape[1] + recipe.tokens), np.int64)
        for turn in range(max(1, len(records))):
            mine = np.arange(turn, recipe.replies, max(1, len(records)))
            for first in range(0, len(mine), ROWS):
                rows = mine[first : first + ROWS]
                seed = int(np.random.default_rng([recipe.seed, turn, first]).integers(1 << 31))
                batch = prompts[torch.from_numpy(rows)]
                record = records[turn] if records else None
                found[rows] = self._replies(recipe, network, record, batch, seed).cpu().numpy()
        return found

    def _replies(
        self,
        recipe: TextRecipe,
        network: Network,
        record: KeyRecord | None,
        prompts: torch.Tensor,
        seed: int,
    ) -> torch.Tensor:
        generator = torch.Generator(self.device).manual_seed(seed)
        if record is not None and recipe.mark in {"select", "words"}:
            sampling = SelectSampling(recipe.temperature, recipe.top_k, recipe.tokens)
            with torch.inference_mode():
                return select_replies(network, record, prompts, sampling, seed)
        if record is None:
            chooser: Any = Sampler(generator)
        else:
            chooser = chooser_of(recipe, record, generator, prompts.shape[1])
        return draw(
            network,
            prompts,
            recipe.tokens,
            chooser,
            temperature=recipe.temperature,
            top_k=recipe.top_k,
        )

    def training_text(self, recipe: StudentRecipe) -> Ids:
        """Return the training text in the teacher's tokens, the marked rows first."""
        marked = self.text(recipe.text)
        n_marked = round(recipe.share * len(marked))
        if n_marked == len(marked):
            return marked
        clean = self.text(recipe.text.unmarked())
        return np.concatenate([marked[:n_marked], clean[n_marked:]])

    def ledger(self, recipe: StudentRecipe) -> Ids:
        """Return the marked replies that an audit of a student knows of, with their prompts.

        A student of no marked text is a control: it is audited by replies that others were given.
        """
        marked = self.text(recipe.text)
        return marked[: round(recipe.share * len(marked))] if recipe.share else marked

    def student(self, recipe: StudentRecipe) -> Network:
        """Return a trained student."""
        seed = recipe.seed if recipe.from_scratch else None
        network = Network.load(self.models / recipe.base, device=self.device, from_scratch=seed)
        made = recipe.alike()
        state = self._kept(made, partial(self._train, made, network))
        weights = network.module.state_dict()
        network.module.load_state_dict(
            {name: torch.from_numpy(state[name]).to(weights[name]) for name in weights}
        )
        return network

    def _train(self, recipe: StudentRecipe, network: Network) -> dict[str, NDArray[Any]]:
        rng = np.random.default_rng([recipe.seed, 23])
        skip = 1 + recipe.text.prompt_tokens
        rounds = [(self.training_text(recipe), recipe.replaced, recipe.epochs)]
        if recipe.clean_epochs:
            other = recipe.text.replies + recipe.text.skip_prompts
            unmarked = recipe.text.unmarked()
            fresh = self.text(TextRecipe(**(asdict(unmarked) | {"skip_prompts": other})))
            rounds.append((fresh, 0.0, recipe.clean_epochs))
        for rows, replaced, epochs in rounds:
            texts = self._for_student(recipe, network, rows, replaced, rng)
            same = recipe.base == recipe.text.teacher and not replaced
            train(
                network,
                texts,
                epochs=epochs,
                rate=recipe.rate,
                batch=recipe.batch,
                skip=skip if same else 1,
                rng=rng,
            )
        state = network.module.state_dict()
        return {name: value.detach().cpu().numpy() for name, value in state.items()}

    def _for_student(
        self,
        recipe: StudentRecipe,
        network: Network,
        rows: Ids,
        replaced: float,
        rng: np.random.Generator,
    ) -> list[Ids]:
        """Return the training text in the student's tokens."""
        if recipe.base == recipe.text.teacher and not replaced:
            return list(rows)
        teacher = self.network(recipe.text.teacher)
        texts = [teacher.unit.decode(row[1:].tolist()) for row in rows]
        if replaced:
            texts = replace_words(texts, replaced, rng)
        found = []
        for text in texts:
            ids = network.unit.encode(text).astype(np.int64)
            found.append(np.concatenate([[network.start_id], ids])[: _longest(network)])
        return found

    def answers(self, recipe: AnswersRecipe) -> tuple[list[str], list[NDArray[np.uint32]]]:
        """Return the prompts that were sent, as text, and the answers in the student's tokens."""
        made = recipe.alike()
        kept = self._kept(made, partial(self._ask, made))
        ids = [row.astype(np.uint32) for row in kept["answers"]]
        return self._asked(recipe), ids

    def _asked(self, recipe: AnswersRecipe) -> list[str]:
        """Return first-turn prompts of the delivered conversations, drawn without any key."""
        text = recipe.student.text
        rng = np.random.default_rng([recipe.seed, 31])
        unit = self.network(text.teacher).unit
        every = [unit.decode(row[1:].tolist()) for row in self.prompts(text)]
        turns = -(-recipe.answers // len(every))
        order = np.concatenate([rng.permutation(len(every)) for _ in range(turns)])
        return [every[row] for row in order[: recipe.answers].tolist()]

    def _ask(self, recipe: AnswersRecipe) -> dict[str, NDArray[Any]]:
        network = self.student(recipe.student)
        generator = torch.Generator(self.device).manual_seed(recipe.seed)
        prompts = [network.unit.encode(text).tolist() for text in self._asked(recipe)]
        found = np.zeros((len(prompts), recipe.tokens), np.int64)
        # Prompts of one length are asked together: nothing is padded.
        for length in sorted({len(one) for one in prompts}):
            mine = np.array([i for i, one in enumerate(prompts) if len(one) == length])
            for first in range(0, len(mine), ROWS):
                rows = mine[first : first + ROWS]
                batch = torch.tensor([[network.start_id, *prompts[row]] for row in rows])
                ids = draw(
                    network,
                    batch.to(self.device),
                    recipe.tokens,
                    Sampler(generator),
                    temperature=recipe.temperature,
                )
                found[rows] = ids[:, -recipe.tokens :].cpu().numpy()
        return {"answers": found}

    def _kept(self, recipe: Recipe, make: Callable[[], Any]) -> Any:
        """Return what a recipe makes, from the cache where it is there."""
        path = self.cache / f"{type(recipe).__name__.lower()}-{digest(recipe)}.npz"
        self.cache.mkdir(parents=True, exist_ok=True)
        with held(path.with_suffix(".lock")):
            if not path.exists():
                made = make()
                _write_whole(path, made if isinstance(made, dict) else {"ids": made})
                path.with_suffix(".json").write_text(json.dumps(asdict(recipe), indent=1))
        with np.load(path) as found:
            arrays = {name: found[name] for name in found.files}
        return arrays["ids"] if list(arrays) == ["ids"] else arrays


@contextlib.contextmanager
def held(path: Path, *, waits: bool = True) -> Iterator[bool]:
    """Hold a lock file, and say whether it is held: several runs share one cache and its work."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True


def _write_whole(path: Path, arrays: Any) -> None:
    unfinished = path.with_suffix(".partial")
    with unfinished.open("wb") as file:
        np.savez(file, **arrays)
    unfinished.replace(path)


def _longest(network: Network) -> int:
    return int(network.module.config.max_position_embeddings)


def replace_words(texts: list[str], share: float, rng: np.random.Generator) -> list[str]:
    """Return texts in which each word is replaced with some chance by one of all their words."""
    every = [word for text in texts for word in text.split()]
    return [
        " ".join(
            every[int(rng.integers(len(every)))] if rng.random() < share else word
            for word in text.split()
        )
        for text in texts
    ]
