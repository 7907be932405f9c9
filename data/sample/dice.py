"""Seeded random choices that are the same on every machine and in every version of Python.

Only `random.Random.random()` is used, because it is the one method whose sequence Python keeps for a seed across versions.
Each seed has its own sequence, so a change in one topic changes no other topic.
"""

import hashlib
import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Dice:
    """Random choices for one purpose, which its seed names."""

    def __init__(self, *seed: object) -> None:
        self.seed = "/".join(map(str, seed))
        self._random = random.Random(self.seed)

    def share(self) -> float:
        """Return a number in [0, 1)."""
        return self._random.random()

    def below(self, limit: int) -> int:
        """Return an integer from 0 to limit - 1."""
        return int(self._random.random() * limit)

    def between(self, low: int, high: int) -> int:
        """Return an integer from low to high, both included."""
        return low + self.below(high - low + 1)

    def chance(self, probability: float) -> bool:
        """Return True with this probability."""
        return self._random.random() < probability

    def pick(self, items: Sequence[T]) -> T:
        """Return one of the items."""
        return items[self.below(len(items))]

    def weighted(self, weights: dict[T, float]) -> T:
        """Return one of the keys, with a probability in proportion to its weight."""
        point = self._random.random() * sum(weights.values())
        for key, weight in weights.items():
            point -= weight
            if point < 0:
                return key
        return key

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """Return all items in random order (Fisher-Yates shuffle)."""
        order = list(items)
        for last in range(len(order) - 1, 0, -1):
            other = self.below(last + 1)
            order[last], order[other] = order[other], order[last]
        return order

    def identity(self) -> str:
        """Return a new identifier in the form of a random UUID (version 4)."""
        digest = hashlib.blake2b(f"{self.seed}/{self._random.random()!r}".encode(), digest_size=16)
        digits = list(digest.hexdigest())
        digits[12], digits[16] = "4", "89ab"[int(digits[16], 16) % 4]
        cuts = ((0, 8), (8, 12), (12, 16), (16, 20), (20, 32))
        return "-".join("".join(digits[start:end]) for start, end in cuts)
