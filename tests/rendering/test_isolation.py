"""Worker processes: foreign templates run in them, and whatever they do there ends in one sentence."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dataprep.common.errors import TemplateError
from dataprep.rendering import isolation
from dataprep.rendering.isolation import TemplateStopped, isolated, map_isolated
from dataprep.rendering.loading import load_template
from dataprep.rendering.template import Template

FOREIGN = Template("foreign", "a template", {}, ())


@pytest.fixture(autouse=True)
def no_template_stopped_before() -> Iterator[None]:
    isolation._stopped.clear()
    yield
    isolation._stopped.clear()


@isolated
def process_id(template: Template) -> int:
    return os.getpid()


@isolated
def echo(template: Template, value: Any) -> Any:
    return value


@isolated
def nested(template: Template) -> tuple[int, int]:
    return os.getpid(), process_id(template)


@isolated
def run_forever(template: Template) -> None:
    while True:
        pass


@isolated
def allocate(template: Template, size: int, argument: bytes = b"") -> int:
    return len(bytearray(size))


@isolated
def die(template: Template, signal_number: int) -> None:
    os.kill(os.getpid(), signal_number)


@isolated
def refuse(template: Template, unpicklable: bool = False) -> None:
    raise Odd(1, 2) if unpicklable else TemplateError("a sentence.")


@isolated
def write_file(template: Template, path: str) -> None:
    Path(path).write_text("text")


class Odd(Exception):
    def __init__(self, first: int, second: int) -> None:
        super().__init__("odd")
        self.first, self.second = first, second


def test_a_bundled_template_runs_in_this_process_and_a_foreign_one_in_a_worker() -> None:
    assert process_id(load_template("llama2")) == os.getpid()
    worker = process_id(FOREIGN)
    assert worker != os.getpid()
    assert process_id(FOREIGN) == worker
    assert nested(FOREIGN) == (worker, worker)


def test_a_copy_of_a_bundled_template_is_trusted_by_its_text() -> None:
    assert process_id(replace(FOREIGN, source=load_template("chatml").source)) == os.getpid()


def test_arguments_results_and_errors_cross_the_border() -> None:
    assert echo(FOREIGN, {"a": ["é", "\ud800", b"x" * 1_000_000]}) == {"a": ["é", "\ud800", b"x" * 1_000_000]}
    with pytest.raises(TemplateError, match=r"^a sentence\.$"):
        refuse(FOREIGN)
    with pytest.raises(Odd, match="odd") as odd:
        refuse(FOREIGN, unpicklable=True)
    assert (odd.value.first, odd.value.second) == (1, 2)


def test_an_endless_template_is_stopped_by_its_cpu_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "CPU_SECONDS", 1)
    began = time.process_time()
    with pytest.raises(TemplateStopped, match="The template foreign was stopped: it takes more than 1 second of CPU"):
        run_forever(FOREIGN)
    assert time.process_time() - began < 1


def test_memory_is_bounded() -> None:
    assert allocate(FOREIGN, 100 << 20) == 100 << 20
    with pytest.raises(TemplateStopped, match="it needs more than 384 MiB of memory"):
        allocate(FOREIGN, 3 << 30)


def test_large_arguments_raise_the_bound_of_memory() -> None:
    assert allocate(FOREIGN, 450 << 20, b"x" * (20 << 20)) == 450 << 20


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGKILL])
def test_a_worker_that_dies_is_one_sentence(number: int) -> None:
    with pytest.raises(TemplateStopped, match=f"its process ended with signal {number}"):
        die(FOREIGN, number)


def test_a_template_that_was_stopped_is_not_run_again_and_others_are() -> None:
    for _ in range(2):
        with pytest.raises(TemplateStopped, match="The template foreign was stopped: its process ended with signal 9"):
            die(FOREIGN, signal.SIGKILL)
    with pytest.raises(TemplateStopped, match="ended with signal 9"):
        echo(FOREIGN, 1)
    assert echo(replace(FOREIGN, source="another"), 1) == 1


def test_a_result_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TemplateStopped, match="its result is larger than 128 MiB"):
        echo_many(FOREIGN, 150 << 20)


@isolated
def echo_many(template: Template, size: int) -> bytes:
    return bytes(size)


def test_a_worker_cannot_write_files(tmp_path: Path) -> None:
    with pytest.raises((OSError, TemplateStopped)):
        write_file(FOREIGN, str(tmp_path / "file"))
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) == 0


def test_items_are_mapped_in_order_from_many_threads() -> None:
    assert map_isolated(lambda number: echo(FOREIGN, number), FOREIGN, range(40)) == list(range(40))
    results: list[Any] = []
    threads = [threading.Thread(target=lambda n=n: results.append(echo(FOREIGN, n))) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == list(range(8))


def test_workers_end_with_the_program() -> None:
    code = (
        "from tests.rendering.test_isolation import FOREIGN, process_id, os\nprint(process_id(FOREIGN), flush=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    deadline = time.monotonic() + 60
    while _is_alive(int(done.stdout)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _is_alive(int(done.stdout))


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True
