"""The page of a run: losses with their smoothing, the other curves, sample answers, options; and its form in a notebook."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from tests.support.pages import metric_lines, run_record, sample_answer
from training.after.loss_page import loss_chart, loss_page, run_fragment, smoothed
from training.after.sample_answers import read_sample_answers


def test_texts_of_the_run_are_escaped() -> None:
    hostile = "<script>a & b</script>"
    page = loss_page(hostile, run_record(hostile), metric_lines(), [sample_answer(hostile)])
    assert "<script>" not in page and "<h1>&lt;script&gt;a &amp; b&lt;/script&gt;</h1>" in page
    assert "<script>" not in run_fragment(hostile, run_record(hostile), metric_lines())


def test_the_page_has_the_losses_the_learning_rate_the_speed_and_the_options() -> None:
    page = loss_page("run", run_record("m"), metric_lines())
    for axis in ("nats per trained token", "learning rate", "tokens a second", "optimizer step"):
        assert f">{axis}</text>" in page
    assert "The held-out loss went from 3.000 to 2.025 nats per token" in page and "Better on held-out rows" in page
    assert "<code>--lr</code></dt><dd>0.005</dd>" in page and "--keep-best" not in page
    assert 'id="answers"' not in page


def test_the_chart_has_held_out_points_and_the_training_loss_twice() -> None:
    chart = loss_chart(metric_lines(40)) or ""
    assert chart.count("<circle") == 5 and chart.count('class="curve s0 thin"') == 1
    assert chart.count('class="curve s0"') == 1 and "from 3.000 to 2.025" in chart


def test_answers_before_and_after_stand_beside_each_other() -> None:
    page = loss_page("run", run_record("m"), metric_lines(), [sample_answer("Aha")])
    before = page.index("before: the base model")
    assert before < page.index("did not end") < page.index("after: the trained model") < page.index(">ended<")


def test_a_run_without_losses_has_a_page() -> None:
    page = loss_page("run", run_record("m", metrics={}), [])
    assert page.count("No loss was logged.") == 2 and "Nothing was logged." in page


def test_a_worse_held_out_loss_is_not_called_better() -> None:
    lines = [{"step": 0, "eval_loss": 2.0}, {"step": 9, "eval_loss": 2.5}]
    assert "No better on held-out rows" in loss_page("run", run_record("m"), lines)


def test_a_smoothed_constant_is_the_constant_and_a_step_is_followed_slowly() -> None:
    assert [value for _, value in smoothed([(step, 3.0) for step in range(50)])] == pytest.approx([3.0] * 50)
    followed = [value for _, value in smoothed([(step, float(step >= 50)) for step in range(100)])]
    assert 0 < followed[50] < 0.5 < followed[60] < 1 and all(map(math.isfinite, followed))


@pytest.mark.parametrize("content", ["", "{", "[]", "3", '[{"question": 1}]', "[[]]"])
def test_a_file_of_answers_that_cannot_be_read_gives_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "answers.json").write_text(content)
    assert read_sample_answers(tmp_path / "answers.json") == []
