"""The table of GPU sizes in docs/qlora.md is that of the estimate."""

from __future__ import annotations

from tests.support.memory_table import PAGE, with_table


def test_the_table_of_gpu_sizes_is_current() -> None:
    page = PAGE.read_text("utf-8")
    assert page == with_table(page), "run `python -m tests.support.memory_table`"
