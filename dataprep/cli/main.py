"""The commands of `dataprep`; only this package prints. Heavy libraries are imported by the command that needs them."""

from __future__ import annotations

import io
import os
import sys

from cyclopts import CycloptsError

# Each of these modules adds its commands to `app`.
from dataprep.cli import building, history, inspecting, publishing, quality, templates  # noqa: F401
from dataprep.cli.common import app, print_json
from dataprep.common.errors import GateError, UserError
from dataprep.common.text import excerpt, visible, without_credentials

DEBUG = "DATAPREP_DEBUG"  # environment variable: show the traceback of any error


def main() -> None:
    """Run a command; exit codes: 0 done, 1 bad input, 2 wrong usage, 3 gate failed, 4 damaged build."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal without ⟦ in its encoding gets \u27e6
    try:
        app(sys.argv[1:], exit_on_error=False, print_error=False)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has closed it
    except Exception as fault:
        if os.environ.get(DEBUG):
            raise
        _exit(fault)


def _exit(fault: Exception) -> None:
    """Print one sentence about an exception, and exit."""
    failing: dict[str, object] = {}
    if isinstance(fault, CycloptsError):
        code, sentence = 2, str(fault)
    elif isinstance(fault, UserError):
        code, sentence = fault.exit_code, str(fault)
        if isinstance(fault, GateError):
            failing = {"failing": fault.ids, "failing_rows": fault.counts}
    elif isinstance(fault, OSError) and fault.strerror:
        code, sentence = 1, f"{fault.filename or 'A file'}: {fault.strerror}."
    else:
        code, sentence = 1, _bug_sentence(fault)
    sentence = without_credentials(sentence)
    line = " ".join(visible(sentence).split("\n"))  # a name with a newline must not look like a line of ours
    print(f"dataprep: {line}", file=sys.stderr)
    if "--json" in sys.argv:
        print_json({"error": sentence, "exit_code": code, **failing})
    raise SystemExit(code)


def _bug_sentence(fault: Exception) -> str:
    command = excerpt(" ".join(["dataprep", *sys.argv[1:]]), 200)
    return (
        f"Unexpected {type(fault).__name__} ({excerpt(str(fault), 200)}) in `{command}`: this is a bug. "
        f"Run it again with {DEBUG}=1 and report the traceback."
    )
