"""Templates that would take all time or memory, or crash the interpreter: each is refused in one short sentence."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from dataprep.common.errors import TemplateError
from dataprep.rendering import Renderer, isolation, load_template
from tests.hostile.templates import ENDLESS, HEADER

# Those that end by their CPU time.
SLOW = {
    "nested loops", "a recursive macro", "a recursive loop", "multiplying lists", "a power", "a power as text", "slice",
    "urlize", "wordwrap", "sum of lists", "in inside of loops", "sort inside of loops", "translate", "a long answer",
}  # fmt: skip


@pytest.mark.parametrize("name", ENDLESS)
def test_a_template_without_bounds_is_refused_in_one_short_sentence(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolation, "CPU_SECONDS", 0 if name in SLOW else 1)  # 0: up to the next whole second
    path = tmp_path / "hostile.jinja"
    path.write_text(HEADER + ENDLESS[name])
    before = resource.getrusage(resource.RUSAGE_SELF)
    with pytest.raises(TemplateError) as error:
        Renderer(load_template(path))
    after = resource.getrusage(resource.RUSAGE_SELF)
    assert len(str(error.value)) < 600
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2  # of this process
    assert after.ru_maxrss - before.ru_maxrss < 300 << 10  # KiB
