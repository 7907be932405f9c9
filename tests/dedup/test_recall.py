"""The recall estimate is measured in every build."""

from __future__ import annotations

from random import Random

import pytest

from dataprep.dedup.near import drop_near_duplicates
from dataprep.dedup.recall import COPIES
from tests.support.texts import questions, sentence


def test_recall_is_measured_with_planted_copies_that_do_not_enter_the_build() -> None:
    rng = Random(10)
    frame = questions([sentence(rng, 100) for _ in range(500)])
    kept, fates, _, report = drop_near_duplicates(frame)
    assert fates.is_empty() and kept.equals(frame)
    planted = {band.low: (band.planted, band.found) for band in report.error_budget.recall}
    assert sum(count for count, _ in planted.values()) > 0.8 * COPIES
    assert all(planted[low][0] == planted[low][1] > 20 for low in (0.8, 0.9))
    assert dict(report.error_budget.s_curve)[0.8] == pytest.approx(1 - (1 - 0.8**5) ** 25, abs=1e-5)
    assert drop_near_duplicates(frame).report == report
