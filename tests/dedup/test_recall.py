"""The recall estimate is measured in every build."""

from __future__ import annotations

from random import Random

import pytest

from dataprep.dedup.minhash import BANDS, MIN_RECALL, MIN_THRESHOLD, ROWS
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


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
def test_thresholds_below_the_range_of_the_sketches_use_a_search_that_misses_nothing(threshold: float) -> None:
    rng = Random(11)
    frame = questions([sentence(rng, 100) for _ in range(300)])
    report = drop_near_duplicates(frame, threshold).report
    assert report.algorithm.startswith("prefix filtering")
    above = [band for band in report.error_budget.recall if band.low >= threshold]
    assert all(band.found == band.planted for band in above) and sum(band.planted for band in above) > 100
    assert dict(report.error_budget.s_curve)[0.75] == 1


def test_sketches_reach_their_expected_recall_at_their_lowest_threshold() -> None:
    expected = 1 - (1 - MIN_THRESHOLD**ROWS) ** BANDS
    assert expected == pytest.approx(MIN_RECALL)
    assert 0.75 < MIN_THRESHOLD < 0.8
