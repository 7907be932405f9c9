"""Each generator of hostile input, used small: nothing crashes, leaks, or is written outside; tests/bench/attack.py uses them long."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.hostile import builds, configurations, files, full_disks, kills, repositories, templates
from tests.hostile.cases import TOKEN, Case, Outcome, Sandbox
from tests.hostile.process import Attacker

Maker = Callable[[Sandbox, random.Random, int], Iterator[Case]]
SEED = 13


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Sandbox:
    return Sandbox(tmp_path_factory.mktemp("attack"))


@pytest.fixture(scope="module")
def attacker(sandbox: Sandbox) -> Iterator[Attacker]:
    with Attacker(sandbox) as attacker:
        yield attacker


def failures(outcomes: Iterator[Outcome] | list[Outcome]) -> list[tuple[object, ...]]:
    return [(o.case.name, o.case.arguments, problems, o.err[-500:]) for o in outcomes if (problems := o.problems())]


@pytest.mark.parametrize("kind", files.FORMATS)
def test_mutated_files_are_read_or_refused_in_one_sentence(attacker: Attacker, sandbox: Sandbox, kind: str) -> None:
    outcomes = [attacker.execute(case) for case in files.cases(kind, sandbox, random.Random(SEED), 10)]
    assert failures(outcomes) == []
    assert {outcome.is_accepted for outcome in outcomes} == {True, False}


def test_files_that_expand_are_read_in_bounded_time_and_memory(attacker: Attacker, sandbox: Sandbox) -> None:
    outcomes = map(attacker.execute, files.bombs(sandbox, random.Random(SEED), 10, scale=0.02))
    assert failures(outcomes) == []


def test_files_of_many_keys_or_repeated_values_are_read_in_bounded_time_and_memory(
    attacker: Attacker, sandbox: Sandbox
) -> None:
    outcomes = map(attacker.execute, files.wide(sandbox, random.Random(SEED), 11, scale=0.03))
    assert failures(outcomes) == []


@pytest.mark.parametrize("make", [builds.resealed, builds.manifests])
def test_builds_of_others_are_read_or_refused_in_one_sentence(
    attacker: Attacker, sandbox: Sandbox, make: Maker
) -> None:
    outcomes = [attacker.execute(case) for case in make(sandbox, random.Random(SEED), 20)]
    assert failures(outcomes) == []
    assert {outcome.is_accepted for outcome in outcomes} == {True, False}


def test_recipes_and_tokenizer_configurations_are_read_or_refused_in_one_sentence(
    attacker: Attacker, sandbox: Sandbox
) -> None:
    makers = (configurations.recipe, configurations.expectations, configurations.tokenizer_config)
    outcomes = [attacker.execute(case) for case in configurations.cases(sandbox, random.Random(SEED), 18, makers)]
    assert failures(outcomes) == []
    assert any(outcome.code for outcome in outcomes)


def test_templates_that_escape_or_are_damaged_are_used_or_refused_in_one_sentence(
    attacker: Attacker, sandbox: Sandbox
) -> None:
    kinds = ("escape", "damaged", "random")
    outcomes = [attacker.execute(case) for case in templates.cases(sandbox, random.Random(SEED), 24, kinds)]
    assert failures(outcomes) == []
    assert {outcome.is_accepted for outcome in outcomes} == {True, False}


def test_hostile_repositories_are_read_or_refused_and_get_no_token(tmp_path: Path) -> None:
    outcomes = list(repositories.outcomes(Sandbox(tmp_path), random.Random(SEED), 12))
    assert failures(outcomes) == []
    assert {outcome.is_accepted for outcome in outcomes} == {True, False}


def test_commands_that_are_killed_leave_whole_versions_of_the_same_bytes(tmp_path: Path) -> None:
    assert failures(kills.outcomes(Sandbox(tmp_path), random.Random(SEED), 4)) == []


def test_a_full_disk_is_one_sentence_and_leaves_nothing_behind(tmp_path: Path) -> None:
    if not full_disks.can_mount():
        pytest.skip("this process may not mount a file system")
    outcomes = list(full_disks.outcomes(Sandbox(tmp_path), random.Random(SEED), full_disks.COMMANDS))
    assert failures(outcomes) == []
    assert any(not outcome.is_accepted for outcome in outcomes)


def test_what_a_hostile_input_must_not_cause_is_noticed(attacker: Attacker, sandbox: Sandbox) -> None:
    sandbox.prepare()
    sandbox.remember()
    (sandbox.work / "added").touch()
    (sandbox.root / "outside" / "file").write_text("changed")
    case = Case.of("", "verify", TOKEN)
    assert sandbox.changes() == [str(sandbox.root / "outside" / "file"), str(sandbox.work / "added")]
    assert attacker.execute(case).problems() == ["the token in the output"]
    crashed = Outcome(case, None, "SIGSEGV", err="Traceback (most recent call last)", cpu_seconds=21, memory=2 << 30)
    assert crashed.problems() == ["SIGSEGV", "a traceback", "21 s of CPU time", "2048 MiB"]
    assert Outcome(case, 1, err="\x1b[31mNo.").problems() == ["no sentence", "control characters in the output"]


def test_a_worker_that_dies_is_replaced(attacker: Attacker, sandbox: Sandbox) -> None:
    sandbox.prepare()
    assert attacker.execute(Case.of("", "list", "--store", sandbox.store)).code == 0
    assert attacker._worker is not None
    attacker._worker.kill()
    sandbox.prepare()
    assert attacker.execute(Case.of("", "list", "--store", sandbox.store)).died == "SIGKILL"
    sandbox.prepare()
    assert attacker.execute(Case.of("", "list", "--store", sandbox.store)).code == 0
