"""Seeded chance that falls the same way on every machine and with every Python.

Only `random.Random.random()` is used: it is the one method whose sequence Python promises to keep for a seed. What is
drawn for one seed never depends on what was drawn for another, so a topic can grow without changing the others.
"""

import hashlib
import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Dice:
    """Draws for one purpose, named by its seed."""

    def __init__(self, *seed: object) -> None:
        self.seed = "/".join(map(str, seed))
        self._random = random.Random(self.seed)

    def share(self) -> float:
        """A number from 0 up to 1, 1 not included."""
        return self._random.random()

    def below(self, limit: int) -> int:
        """A whole number from 0 to limit - 1."""
        return int(self._random.random() * limit)

    def between(self, low: int, high: int) -> int:
        """A whole number from low to high, both included."""
        return low + self.below(high - low + 1)

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self._random.random() < probability

    def pick(self, items: Sequence[T]) -> T:
        """One of the items."""
        return items[self.below(len(items))]

    def weighted(self, weights: dict[T, float]) -> T:
        """One of the keys, with a probability in proportion to its weight."""
        point = self._random.random() * sum(weights.values())
        for key, weight in weights.items():
            point -= weight
            if point < 0:
                return key
        return key

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """All the items in a new order (Fisher and Yates)."""
        order = list(items)
        for last in range(len(order) - 1, 0, -1):
            other = self.below(last + 1)
            order[last], order[other] = order[other], order[last]
        return order

    def identity(self) -> str:
        """A fresh identifier that looks like a random UUID (version 4)."""
        digest = hashlib.blake2b(f"{self.seed}/{self._random.random()!r}".encode(), digest_size=16)
        digits = list(digest.hexdigest())
        digits[12], digits[16] = "4", "89ab"[int(digits[16], 16) % 4]
        cuts = ((0, 8), (8, 12), (12, 16), (16, 20), (20, 32))
        return "-".join("".join(digits[start:end]) for start, end in cuts)
