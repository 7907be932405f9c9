"""A build of hostile conversations among sound ones, for the tests of its report."""

from __future__ import annotations

import pytest

from dataprep.build import Outcome
from tests.support.builds import make_build
from tests.support.pages import ATTACKS, SECRET, chat_line

RECIPE = [f"step{n}" for n in range(100)]


@pytest.fixture(scope="session")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """The build, with duplicates, personal data, a very long text and a file name that holds HTML."""
    folder = tmp_path_factory.mktemp("attacked")
    rows = [chat_line(attack, f"{attack} answered") for attack in ATTACKS]
    rows += [chat_line(f"Frage {n} nach dem Wetter", f"Antwort {n}: es regnet.", lang="de") for n in range(20)]
    rows += [chat_line(f"question {n} of <b>many</b>", f"answer {n} to it") for n in range(30)]
    rows += [
        chat_line("what is a zebrafish?", f"A fish, says {SECRET}."),
        chat_line("z" * 5_000_000, "long"),
        chat_line("<i>no answer</i>"),
    ]
    rows += [chat_line("twice", "the same", id=id_) for id_ in ("t1", "t2", SECRET)]
    rows += [chat_line("How do I cook this?", " ".join(RECIPE), id="c0", lang="en")]
    rows += [chat_line("How do I cook this?", " ".join([*RECIPE[:-n], "changed"]), id=f"c{n}") for n in (1, 2)]
    source = folder / "<i>evil & co.jsonl"
    source.write_text("".join(rows))
    return make_build(folder / "store", source=(str(source),), split="test=0.2", near_dup="0.8")
