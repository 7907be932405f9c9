"""`training inspect`: the tokens of a row, and the window that a run packs it into."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.training_builds import chatter, row, write_build
from training import cli
from training.config import RunConfig
from training.data.inspect import print_row, tokenizer_for
from training.data.training_data import load_training_data, open_training_build
from training.data.windows import window_dataset
from training.errors import OptionError


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """A build without a test split, so that trees are held out; its ids look like rich's markup."""
    rows = [row(f"t{n}[/b]", [("Say yes.", "yes " * (1 + n % 9))]) for n in range(60)]
    folder = write_build(tmp_path_factory.mktemp("show") / "build", rows)
    return RunConfig(data=folder, model="tiny", max_tokens=64, tokens_per_step=64)


def test_the_window_of_each_row_is_the_one_that_a_run_packs(
    config: RunConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    build = open_training_build(config)
    train = build.splits["train"]
    data = load_training_data(config, build, tokenizer_for(config, train, dict(build.manifest.template)))
    windows, _ = window_dataset(data.train.labelled, config.max_tokens, seed=config.seed)
    assert data.test is not None
    held_out = set(data.test.table["id"].to_pylist())
    rows_in_window: dict[int, int] = {}
    for number, name in enumerate(train["id"].to_pylist()):
        print_row(config, number)
        printed = capsys.readouterr().out.replace("\n", " ")
        assert f"{name}: " in printed
        if name in held_out:
            assert "held out" in printed
            continue
        match = re.search(r"Window (\d+) of (\d+): (\d+) conversations?", printed)
        assert match
        window, count, rows = map(int, match.groups())
        assert (count, rows) == (len(windows), len(windows[window]["seq_lengths"]))
        rows_in_window[window] = rows_in_window.get(window, 0) + 1
    assert held_out
    assert rows_in_window == {n: len(window["seq_lengths"]) for n, window in enumerate(windows)}


def test_a_row_of_a_build_that_a_run_would_refuse_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    without_spans = [{**columns, "spans": []} for columns in chatter(40)]
    folder = write_build(tmp_path / "b", without_spans)
    print_row(RunConfig(data=folder, model="tiny", held_out=0), 0)
    assert "without a trained token" in capsys.readouterr().out


def test_control_characters_of_the_data_are_printed_as_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [row("a\x1b[31m", [("Say \x1b]0;title\x07 \u202e yes.", "yes")]) for _ in range(5)]
    print_row(RunConfig(data=write_build(tmp_path / "b", rows), model="tiny", held_out=0), 0)
    printed = capsys.readouterr().out
    assert "\x1b" not in printed and "\x07" not in printed and "\u202e" not in printed
    assert "<U+001B>" in printed


def test_several_rows_need_json() -> None:
    with pytest.raises(OptionError, match="--rows 0:3 needs --json"):
        cli.inspect(RunConfig(data=Path("."), model="tiny"), rows="0:3")
