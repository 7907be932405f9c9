"""What tests share: the real data, where it is."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def real() -> Path:
    """The folder of real data beside the checkout; tests that need it are skipped where it is not."""
    folder = ROOT.parent / "shared" / "real"
    if not folder.is_dir():
        pytest.skip(f"there is no real data in {folder}")
    return folder
