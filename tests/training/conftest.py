"""Fixtures of the tests of `training`: the real Llama 2 tokenizer, small builds, a tiny model, and a finished run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the cores are shared: more threads would wait for each other

from tests.support.adapted import Adapted, adapted_tiny_model  # noqa: E402
from tests.support.commands import training_here  # noqa: E402
from tests.support.paths import REAL  # noqa: E402
from tests.support.training_builds import Row, chatter, guanaco_rows, write_build  # noqa: E402
from tests.support.training_runs import RUN_OPTIONS, short_answers  # noqa: E402

if TYPE_CHECKING:
    from training.model.tokenizer import ChatTokenizer


@pytest.fixture(scope="session")
def llama2() -> ChatTokenizer:
    """The real Llama 2 tokenizer."""
    from training.model.tokenizer import load_tokenizer

    if not (REAL / "llama2" / "tokenizer.json").exists():
        pytest.skip(f"{REAL} is missing: the Llama 2 tokenizer cannot be redistributed")
    return load_tokenizer(str(REAL / "llama2"))


@pytest.fixture(scope="session")
def guanaco() -> list[Row]:
    """The rows of the real guanaco test split in Llama 2's format."""
    if not (REAL / "guanaco").exists():
        pytest.skip(f"{REAL} is missing")
    return guanaco_rows()


@pytest.fixture(scope="session")
def small_build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 synthetic conversations and a test split of 16."""
    return write_build(tmp_path_factory.mktemp("data") / "build", chatter(120), chatter(16, seed=5))


@pytest.fixture(scope="session")
def adapted(small_build: Path, tmp_path_factory: pytest.TempPathFactory) -> Adapted:
    """A tiny NF4 model with adapters, its windows and trl's arguments; tests leave its weights as they find them."""
    return adapted_tiny_model(small_build, tmp_path_factory.mktemp("adapted"))


@pytest.fixture
def forked_converters() -> Iterator[None]:
    """Run the converters of GGUF files in processes that have imported the libraries."""
    from tests.support.processes import converters_in_forks

    with converters_in_forks():
        yield


@pytest.fixture(scope="session")
def finished_run(small_build: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, started with relative paths on a link `latest` that points to another build by now.

    It keeps 3 checkpoints, answers 5 prompts and reports to TensorBoard if that is installed.
    """
    folder = tmp_path_factory.mktemp("finished")
    latest, newer = folder / "latest", write_build(folder / "newer", chatter(20, seed=3))
    latest.symlink_to(small_build)
    options = ["--keep", "3", "--stop-prompts", "5"]
    if find_spec("tensorboard") is not None:
        options += ["--report-to", "tensorboard"]
    with pytest.MonkeyPatch.context() as patched, short_answers():
        patched.chdir(folder)
        training_here("run", "--data", "latest", *RUN_OPTIONS, *options, "--out", "runs/first")
    latest.unlink()
    latest.symlink_to(newer)
    return folder / "runs" / "first"
