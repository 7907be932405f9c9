"""What the command lines of both programs share: running a command, completion, and one sentence for each error.

It imports the standard library and cyclopts, so that `training` uses it too.
"""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Sequence
from typing import Any, Literal, get_args

from cyclopts import App, CycloptsError
from cyclopts.exceptions import (
    CoercionError,
    MissingArgumentError,
    RepeatArgumentError,
    UnknownCommandError,
    UnknownOptionError,
    UnusedCliTokensError,
    ValidationError,
)

from dataprep.common.errors import UserError
from dataprep.common.help_text import HELP_ALL, SHOW_ALL
from dataprep.common.text import excerpt, fit, json_text, nearest, suggestion, visible, without_credentials

DEBUG = "DATAPREP_DEBUG"  # environment variable: show the traceback of any error
COMPLETION = "--completion"
LAUNCHER_SECONDS = 3.0  # torchrun looks for failed processes ten times a second, and then ends the others
SIGNALLED = 128  # exit codes of processes that a signal ended are this and its number
SHELLS: tuple[Literal["bash"], Literal["fish"], Literal["zsh"]] = ("bash", "fish", "zsh")
HELP_FLAGS = ("--help", "-h", HELP_ALL)

_TYPES = {int: "a whole number", float: "a number", bool: "true or false"}


def completion_note(program: str) -> str:
    """Return the last lines of the program's help."""
    return (
        f"{program} COMMAND --help describes a command.\n"
        f"{program} {COMPLETION} SHELL prints completion for {', '.join(SHELLS[:-1])} or {SHELLS[-1]}."
    )


def run_program(app: App, program: str, arguments: Sequence[str]) -> None:
    """Run a command of `program`; an exception ends the program with one sentence on stderr and its exit code.

    Exit codes: 0 done, 1 bad input, 2 wrong usage, and those of the errors' classes. With --json the sentence is also an
    object on stdout.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal without ⟦ in its encoding gets \u27e6
    SHOW_ALL.set(HELP_ALL in arguments)
    try:
        if arguments[:1] == [COMPLETION]:
            _print_completion(app, program, arguments[1:])
        else:
            app(arguments, exit_on_error=False, print_error=False)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has closed it
    except Exception as fault:
        if os.environ.get(DEBUG):
            raise
        raise SystemExit(_report(fault, program, arguments)) from None


def _print_completion(app: App, program: str, shells: Sequence[str]) -> None:
    shell = next((shell for shell in SHELLS if [shell] == list(shells)), None)
    if shell is None:
        raise CycloptsError(
            msg=f"{COMPLETION} needs a shell, such as {program} {COMPLETION} bash. {nearest(' '.join(shells), SHELLS)}"
        )
    print(app.generate_completion(prog_name=program, shell=shell))


def _report(fault: Exception, program: str, arguments: Sequence[str]) -> int:
    """Print one sentence about an exception, and return the exit code."""
    details: dict[str, Any] = {}
    if isinstance(fault, CycloptsError):
        code, sentence = 2, usage_sentence(fault, program)
    elif isinstance(fault, UserError):
        code, sentence, details = fault.exit_code, str(fault), fault.details()
    elif isinstance(fault, OSError) and fault.strerror:
        code, sentence = 1, f"{fault.filename or 'A file'}: {fault.strerror}."
    else:
        command = excerpt(" ".join([program, *arguments]), 200)
        code, sentence = (
            1,
            (
                f"Unexpected {type(fault).__name__} ({excerpt(str(fault), 200)}) in `{command}`: this is a bug. "
                f"Run it again with {DEBUG}=1 and report the traceback."
            ),
        )
    if code > SIGNALLED and os.environ.get("RANK", "0") != "0":
        return code  # the signal went to all processes, and the first one says so
    _wait_for_launcher(fault)
    sentence = without_credentials(sentence)
    line = " ".join(visible(sentence).split("\n"))  # a name with a newline must not look like a line of ours
    print(fit(f"{program}: {line}", sys.stderr), file=sys.stderr)
    if "--json" in arguments:
        print(json_text({"error": sentence, "exit_code": code, **details}))
    return code


def _wait_for_launcher(fault: Exception) -> None:
    """Under torchrun, let the process that knows the cause of a failure speak alone: the launcher ends the others.

    If all processes have the same error, the first one prints it. If one fails, the others lose their connection to it,
    which is an unexpected error.
    """
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if several and not (isinstance(fault, UserError | CycloptsError) and os.environ.get("RANK") == "0"):
        time.sleep(LAUNCHER_SECONDS)


def usage_sentence(fault: CycloptsError, program: str) -> str:
    """Return what is wrong with the arguments, as they are typed, and what would work."""
    chain = " ".join(fault.command_chain or ())
    command = f"{program} {chain}".strip()
    argument: Any = fault.argument
    match fault:
        case UnknownCommandError() | UnusedCliTokensError():
            return _unknown_token(fault, chain, command)
        case UnknownOptionError():
            option = (fault.token.keyword or fault.token.value).partition("=")[0]
            options = [name for known in fault.argument_collection if known.parse for name in known.names]
            hint = suggestion(option, options, cutoff=0.75)  # the dashes alone make any two of them similar
            return f"{chain or program} has no option {excerpt(option, 60)}. {hint}See {command} {HELP_ALL}."
        case MissingArgumentError() if fault.keyword:
            return f"{fault.keyword} needs a value: see {command} --help."
        case MissingArgumentError():
            meaning = str(argument.parameter.help or "").strip().rstrip(".")
            meaning = f" ({meaning[0].lower()}{meaning[1:]})" if meaning else ""
            return f"{chain or program} needs {typed_name(argument)}{meaning}: see {command} --help."
        case RepeatArgumentError():
            return f"{fault.token.keyword} is given twice: give it once."
        case CoercionError() if fault.token is not None and argument is not None:
            return _wrong_value(fault, argument)
        case ValidationError() if argument is not None:
            rule = fault.exception_message.rstrip(".")
            value = " ".join(token.value for token in argument.tokens)
            return f"{typed_name(argument)} is {excerpt(value, 60)}: it {rule[:1].lower()}{rule[1:]}."
    return str(fault).strip().partition("\n")[0]


def _unknown_token(fault: CycloptsError, chain: str, command: str) -> str:
    """Return that an argument is no command, or where there are no commands, one too many."""
    token = excerpt((fault.unused_tokens or [""])[0], 60)
    commands = [name for name in (fault.app or ()) if not name.startswith("-")]
    if commands:
        return f"There is no command '{f'{chain} {token}'.strip()}'. {nearest(token, commands)}"
    return f"{chain} has no use for '{token}': see {command} --help."


def typed_name(argument: Any) -> str:
    """Return how an argument is typed: `BUILD` for a position, `--to` for an option."""
    name = str(argument.name)
    return name.lstrip("-").upper() if argument.field_info.is_positional else name


def _wrong_value(fault: CoercionError, argument: Any) -> str:
    token: Any = fault.token
    value = excerpt(token.value, 60)
    name = token.keyword or typed_name(argument)
    where = "" if token.source in ("", "cli") else f" in {token.source}"
    choices = [str(choice) for choice in get_args(fault.target_type) if isinstance(choice, str)]
    if choices:
        return f"{name} is '{value}'{where}. {nearest(value, choices)}"
    kind = _TYPES.get(fault.target_type, getattr(fault.target_type, "__name__", "another value"))  # type: ignore[arg-type]
    return f"{name} is '{value}'{where}, and must be {kind}."
