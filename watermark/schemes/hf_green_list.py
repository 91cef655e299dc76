"""Read the green lists of transformers: `WatermarkingConfig`, lefthash and selfhash.

A context seeds a permutation of the vocabulary; the first quarter or so of it is green and gets
a bias. The statistic is the number of green tokens over the distinct (context, token) pairs.

Why p comes from decoys: the key enters by multiplication only, the generator takes 32 bits of the
product, some contexts (token id 0) have one list under every key, and tokens that follow one
context share a list. So scores are not independent under the null, and no closed form is exact.
But everything about them is the same under any key: if the key was drawn at random from the key
space, without regard to the text, its statistic and those of B keys drawn likewise are
exchangeable, and p = (1 + #{T_b >= T}) / (B + 1) is valid whatever the text. It is never below
1 / (B + 1), which is its stated floor. It says nothing of a key that was no random choice, such as
the default that transformers publishes.

Rule: only marks that were made with `device="cpu"` can be read; CUDA permutes otherwise.

Source: transformers 5.24, `generation/logits_process.py` (`WatermarkLogitsProcessor`) and
`generation/watermarking.py`; Kirchenbauer et al., ICML 2023 and 2306.04634.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, cast

import numpy as np

from watermark.errors import KeysConfigError
from watermark.schemes.mersenne import Permutations
from watermark.schemes.reader import (
    NO_CONTEXTS,
    NullLaw,
    Pairs,
    Positions,
    all_windows,
    distinct_outside,
    sliding_positions,
    text_decoys,
    text_identities,
)
from watermark.seeding import pair_values

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from watermark.keys import ForeignKey, KeyRecord

_TABLE_SIZE: Final = 1_000_003
_MODULUS: Final = 2**64 - 1  # torch seeds lie below it
_LAST_KEY: Final = 2**63 - 1  # torch multiplies keys as int64
_MOST_DECOYS: Final = 999
_LEAST_DECOYS: Final = 99
_WORK: Final = 150_000  # permutations that a test may cost where decoys are not given
_TABLE_WORK: Final = 300  # permutations that a decoy's fixed table costs about as much as


@dataclass(frozen=True, slots=True)
class GreenListReader:
    """One hashing key.

    Attributes:
        context_width: Tokens before the position that seed its list, 1 for lefthash.
        vocab_size: How many tokens are permuted.
        green_size: How many of them are green.
        is_selfhash: Whether the token itself is part of the seed.
        decoys: Number of decoy keys; 0 for as many as the work allows, 99 to 999.
    """

    context_width: int
    vocab_size: int
    green_size: int
    is_selfhash: bool
    _key: int = field(repr=False)
    decoys: int = 0

    @classmethod
    def of(cls, record: KeyRecord) -> GreenListReader:
        """Return the reader of a key record.

        Raises:
            KeysConfigError: The key is too large for the engine, or lefthash is given a context
                wider than the one token that it looks at.
        """
        (key,) = cast("ForeignKey", record.secret).integers
        is_selfhash = record.parameter("seeding_scheme") == "selfhash"
        if key > _LAST_KEY:
            raise KeysConfigError(f"key {record.key_id!a} is above 2^63 - 1; no engine takes it")
        if not is_selfhash and record.context_width != 1:
            raise KeysConfigError(
                f"key {record.key_id!a} has context_width {record.context_width}; lefthash looks "
                "at one token, so write 1"
            )
        vocab_size = int(record.parameter("vocab_size"))
        green_size = int(vocab_size * float(record.parameter("greenlist_ratio")))
        return cls(record.context_width, vocab_size, green_size, is_selfhash, key)

    def positions(self, ids: NDArray[np.uint32]) -> Positions:
        """Return every position that has a whole context before it in the reply."""
        return sliding_positions(ids, self.context_width)

    def contexts(self, ids: NDArray[np.uint32]) -> NDArray[np.uint64]:
        """Return an identity of every context that occurs in a text, its end included."""
        return text_identities(all_windows(ids, self.context_width))

    def read(self, positions: Positions, *, excluded: NDArray[np.uint64] = NO_CONTEXTS) -> Pairs:
        """Return the distinct pairs of one reply; the engine marks a context whenever it comes."""
        return distinct_outside(self.evaluate(positions), positions, excluded)

    def evaluate(self, positions: Positions) -> Pairs:
        """Return the n-gram at every position, shape (n, context_width + 1)."""
        identities = pair_values(text_identities(positions.contexts), positions.tokens)
        return Pairs(identities, np.column_stack([positions.contexts, positions.tokens]))

    def statistic(self, pairs: Pairs) -> float:
        """Return the number of green tokens."""
        return float(self._n_green(self._key, pairs.draws))

    def log_pvalue(self, statistic: float, pairs: Pairs) -> float:
        """Return the log share of keys, this one among them, that give as many green tokens."""
        if len(pairs) == 0:
            return 0.0
        count = self._n_decoys(pairs)
        words = text_decoys(pairs, "hf-green-list", count) >> np.uint64(1)
        reached = sum(self._n_green(int(word), pairs.draws) >= statistic for word in words)
        return math.log((1 + reached) / (count + 1))

    def law(self, pairs: Pairs) -> NullLaw:
        """Return how many decoys there are, and the floor that this sets."""
        share = self.green_size / self.vocab_size
        return NullLaw(
            "decoys",
            score_mean=share,
            score_sd=math.sqrt(share * (1 - share)),
            log_pvalue_floor=-math.log(self._n_decoys(pairs) + 1),
        )

    def decoy(self, rng: np.random.Generator) -> GreenListReader:
        """Return the same scheme under a random key of 63 bits."""
        key = int(rng.integers(_LAST_KEY, endpoint=True))
        return GreenListReader(
            self.context_width, self.vocab_size, self.green_size, self.is_selfhash, key
        )

    def _n_decoys(self, pairs: Pairs) -> int:
        """Return how many decoys a test of these pairs takes."""
        if self.decoys:
            return self.decoys
        work = len(pairs) + _TABLE_WORK * self.is_selfhash
        return min(_MOST_DECOYS, max(_LEAST_DECOYS, _WORK // max(work, 1)))

    def _n_green(self, key: int, ngrams: NDArray[np.uint32]) -> int:
        """Return how many n-grams end in a token that a key makes green."""
        permutations = Permutations(self.vocab_size, self.green_size)
        seeds = _selfhash_seeds(key, ngrams) if self.is_selfhash else _lefthash_seeds(key, ngrams)
        targets: dict[int, list[int]] = {}
        for seed, target in zip(seeds, ngrams[:, -1].tolist(), strict=True):
            targets.setdefault(seed, []).append(target)
        n_green = 0
        for seed, tokens in targets.items():
            swaps = permutations.swaps(seed)
            n_green += sum(permutations.is_among_first(swaps, token) for token in tokens)
        return n_green


def _lefthash_seeds(key: int, ngrams: NDArray[np.uint32]) -> list[int]:
    """Return each list's seed, its low 32 bits: key times the token before."""
    return [key * token % _MODULUS & 0xFFFFFFFF for token in ngrams[:, -2].tolist()]


def _selfhash_seeds(key: int, ngrams: NDArray[np.uint32]) -> list[int]:
    """Return each list's seed: the least of key times two entries of a table, as torch has it."""
    places, where = np.unique(ngrams % _TABLE_SIZE, return_inverse=True)
    table = Permutations(_TABLE_SIZE, _TABLE_SIZE)
    entries = table.values_at(table.swaps(key), places.astype(np.int64)) + 1
    window = entries[where.reshape(ngrams.shape)]
    with np.errstate(over="ignore"):
        products = np.int64(key) * window * window[:, -1:]  # modulo 2^64, as int64
    least = products.min(axis=1)
    seeds: list[int] = ((least - (least < 0)) & 0xFFFFFFFF).tolist()
    return seeds
