"""The estimate of how long a build still takes."""

from __future__ import annotations

import pytest

from dataprep.common.progress import STAGE_SHARES, RemainingTime


def test_the_shares_of_all_stages_are_one() -> None:
    assert sum(STAGE_SHARES.values()) == pytest.approx(1)


def test_the_rest_is_estimated_from_the_shares_of_the_stages_that_are_done() -> None:
    now = 0.0
    remaining = RemainingTime(lambda: now)
    assert remaining.text("hash", 50, 100) == ""
    now = 10.0
    assert remaining.text("read", 50, 100) == "about 2 min left"
    now = 60.0
    assert remaining.text("render", 0, 1) == "about 12 min left"  # refusals: nothing more is known
    assert remaining.text("render", 50, 100) == "about 21 s left"
    assert remaining.text("dedup", 50, 100) == "about 21 s left"  # it never goes back
