"""What tests share: the real data, where it is."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support.paths import REAL

settings.register_profile("any machine", deadline=None)  # times differ between machines, and the suite measures none
settings.load_profile("any machine")


@pytest.fixture(scope="session")
def real() -> Path:
    """The folder of real data beside the checkout; tests that need it are skipped where it is not."""
    folder = REAL
    if not folder.is_dir():
        pytest.skip(f"there is no real data in {folder}")
    return folder


@pytest.fixture(scope="module", autouse=True)
def freeze_imported_objects() -> Iterator[None]:
    """Exempt what a test module leaves from further garbage collections.

    Libraries leave half a million objects, and a run of `training` collects garbage, which takes a third of its time.
    """
    yield
    freeze()


@pytest.fixture(scope="session", autouse=True)
def strip_each_module_once() -> Iterator[None]:
    """Keep the code without comments that the version of each of hundreds of builds depends on."""
    from dataprep.store import version

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(version, "significant_code", cache(version.significant_code))
        yield


def pytest_collection_finish() -> None:
    """Exempt what the test modules have imported from garbage collections."""
    freeze()


def freeze() -> None:
    """Move all objects that are not garbage to the generation that is never collected."""
    gc.collect()
    gc.freeze()


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name long bytes by their length: compressed ones hold a time stamp, and pytest-xdist needs equal names everywhere."""
    return f"{argname}-{len(val)}-bytes" if isinstance(val, bytes) and len(val) > 16 else None
