"""What the tests of `training` share: few threads, the real Llama 2 tokenizer, small builds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the cores are shared: more threads only wait for each other

from tests.support.adapted import Adapted, adapted_tiny_model  # noqa: E402
from tests.support.training_builds import REAL, chatter, guanaco_rows, write_build  # noqa: E402


@pytest.fixture(scope="session")
def llama2():
    """The real Llama 2 vocabulary."""
    from training.model.tokenizer import load_tokenizer

    if not (REAL / "llama2" / "tokenizer.json").exists():
        pytest.skip(f"{REAL} is not there: the Llama 2 tokenizer cannot be redistributed")
    return load_tokenizer(str(REAL / "llama2"))


@pytest.fixture(scope="session")
def guanaco():
    """The rows of the real guanaco test split in Llama 2's format."""
    if not (REAL / "guanaco").exists():
        pytest.skip(f"{REAL} is not there")
    return guanaco_rows()


@pytest.fixture(scope="session")
def small_build(tmp_path_factory) -> Path:
    """120 made-up conversations and a test split of 16."""
    return write_build(tmp_path_factory.mktemp("data") / "build", chatter(120), chatter(16, seed=5))


@pytest.fixture(scope="session")
def adapted(small_build: Path, tmp_path_factory: pytest.TempPathFactory) -> Adapted:
    """A tiny NF4 model with adapters, its windows and trl's arguments; tests leave its weights as they find them."""
    return adapted_tiny_model(small_build, tmp_path_factory.mktemp("adapted"))
