"""How a build runs: workers, memory, engine, cache. Nothing here changes what the build holds."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from dataprep.common.errors import RecipeError
from dataprep.options import parse_size


@dataclass(frozen=True, kw_only=True)
class Resources:
    """The options of a build that are not part of its recipe or of its version."""

    engine: Literal["local", "ray"] = "local"
    """Where tasks run: local (threads of this process), or ray (a Ray cluster, or one that is started here)."""
    ray_address: str | None = None
    """Address of a Ray cluster (auto, or ray://host:10001); default: one is started on this machine."""
    workers: int | None = None
    """Number of tasks that run at the same time; default: one for each CPU."""
    max_memory: str | None = None
    """Memory that the build may use, such as 4GB; default: half of the machine's."""
    partition_bytes: str = "32MB"
    """Size of the parts in which large sources are read; smaller parts take less memory."""
    no_cache: bool = False
    """Keep nothing of what is read and sketched; by default another build of the store reuses it, for large sources."""
    cache_size: str = "10GB"
    """Size of the cache; what was not used for the longest time is removed after a build and by gc."""

    def __post_init__(self) -> None:
        """Raises:
        RecipeError: a value is out of range.
        """
        if self.workers is not None and not 1 <= self.workers <= 1024:
            raise RecipeError(f"--workers is {self.workers}, and must be 1 to 1024.")
        if self.ray_address is not None and self.engine != "ray":
            raise RecipeError("--ray-address is given without --engine ray.")
        _ = self.memory, self.partition_size, self.cache_bytes

    @cached_property
    def memory(self) -> int | None:
        """`max_memory` in bytes."""
        return parse_size(self.max_memory) if self.max_memory is not None else None

    @cached_property
    def partition_size(self) -> int:
        """`partition_bytes` as a number."""
        return parse_size(self.partition_bytes)

    @cached_property
    def cache_bytes(self) -> int:
        """`cache_size` as a number."""
        return parse_size(self.cache_size)


NAMES = tuple(field.name for field in dataclasses.fields(Resources))
