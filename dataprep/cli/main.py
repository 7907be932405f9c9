"""The commands of `dataprep`. Only this package prints; what is heavy is imported by the command that needs it."""

from __future__ import annotations

import io
import sys

from cyclopts import CycloptsError

from dataprep.cli import building, history, inspecting, publishing, quality, templates  # noqa: F401 (each adds its commands to `app`)
from dataprep.cli.common import app, print_json
from dataprep.common.errors import DataprepError, GateError


def main() -> None:
    """Run a command. Ends with 0 done, 1 bad input, 2 wrong usage, 3 gate failed, 4 damaged build."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that knows no ⟦ gets \u27e6
    try:
        app(exit_on_error=False, print_error=False)
    except CycloptsError as fault:
        _fail(2, str(fault))
    except DataprepError as fault:
        failing = {"failing": fault.ids, "failing_rows": fault.counts} if isinstance(fault, GateError) else {}
        _fail(fault.exit_code, str(fault), **failing)
    except BrokenPipeError:
        sys.stderr.close()  # whoever read our output has seen enough


def _fail(code: int, sentence: str, **more: object) -> None:
    from dataprep.common.text import visible

    print(f"dataprep: {visible(sentence)}", file=sys.stderr)
    if "--json" in sys.argv:
        print_json({"error": sentence, "exit_code": code, **more})
    raise SystemExit(code)
