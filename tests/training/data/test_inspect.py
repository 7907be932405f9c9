"""`training inspect`: a row as it is trained, and where a run packs it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.training_builds import chatter, row, write_build
from training import cli
from training.config import RunConfig
from training.data import inspect as show
from training.data.training_data import load_training_data, open_training_build
from training.data.windows import window_dataset
from training.errors import OptionError


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """A build without a test split, so that trees are held out; an id that looks like markup."""
    rows = [row(f"t{n}[/b]", [("Say yes.", "yes " * (1 + n % 9))]) for n in range(60)]
    folder = write_build(tmp_path_factory.mktemp("show") / "build", rows)
    return RunConfig(data=folder, model="tiny", max_tokens=64, tokens_per_step=64)


def test_inspect_tells_the_runs_packing(config, capsys):
    build = open_training_build(config)
    train = build.splits["train"]
    prepared = load_training_data(config, build, show.vocabulary_of(config, train, dict(build.manifest.template)))
    windows, _ = window_dataset(prepared.train.labelled, config.max_tokens, seed=config.seed)
    held_out = set(prepared.test.table["id"].to_pylist())
    shown: dict[int, int] = {}
    for number, name in enumerate(train["id"].to_pylist()):
        show.in_colour(config, number)
        told = capsys.readouterr().out.replace("\n", " ")
        assert f"{name}: " in told
        if name in held_out:
            assert "held out" in told
            continue
        window, of, rows = map(int, re.search(r"Window (\d+) of (\d+): (\d+) conversations", told).groups())
        assert (of, rows) == (len(windows), len(windows[window]["seq_lengths"]))
        shown[window] = shown.get(window, 0) + 1
    assert held_out and shown == {n: len(window["seq_lengths"]) for n, window in enumerate(windows)}


def test_a_build_that_no_run_takes_is_shown_all_the_same(tmp_path, capsys):
    empty = [{**one, "spans": []} for one in chatter(40)]
    show.in_colour(RunConfig(data=write_build(tmp_path / "b", empty), model="tiny", held_out=0), 0)
    assert "have no trained token" in capsys.readouterr().out


def test_rows_go_with_json():
    with pytest.raises(OptionError, match="--rows 0:3 goes with --json"):
        cli.inspect(RunConfig(data=Path("."), model="tiny"), rows="0:3")
