"""Ctrl-C."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import os, signal
from dataprep.common.interrupt import raise_on_interrupt

raise_on_interrupt()
try:
    exec("os.kill(os.getpid(), signal.SIGINT)\\nfor _ in range(1000): pass")
except KeyboardInterrupt:
    raise SystemExit(130) from None
"""


def test_an_interrupt_inside_a_string_of_code_leaves_the_exit_code_to_the_program(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-m", "program"], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 130, done.stderr
