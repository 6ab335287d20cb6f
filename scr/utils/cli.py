"""How a script begins and ends: arguments, signals, exit status. Standard library only.

Every script imports this module before all else (`pyproject.toml` sorts the imports so), so that a package
that is missing is named in one line.
"""

import argparse
import errno
import math
import os
import shlex
import signal
import sys
from collections.abc import Iterable
from pathlib import Path

from .config import TRUST_VARIABLE, UserError, note, relative

LIVE = {"main.py", "record_dataset.py"}
"""The scripts for which requirements-live.txt is enough."""
_stopped_by = signal.SIGINT


def run_script(main, parser: argparse.ArgumentParser) -> None:
    """Parse the arguments, run `main` and exit.

    The status is 0 if all is done, 1 after an error (a `UserError` is one line, without a traceback), 2 for
    wrong arguments, 130 after Ctrl-C, 143 after SIGTERM. Both reach `main` as KeyboardInterrupt, so that open
    files are completed or removed.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # names of files may be in any script, or no text
    for name in ("SIGTERM", "SIGHUP", "SIGBREAK"):
        number = getattr(signal, name, None)
        if number and signal.getsignal(number) == signal.SIG_DFL:  # nohup ignores SIGHUP
            signal.signal(number, _stop)
    args = parser.parse_args()
    os.environ.pop(TRUST_VARIABLE, None)
    if getattr(args, "trust", False):
        os.environ[TRUST_VARIABLE] = "1"
    main(args)
    sys.stdout.flush()


def _stop(number: int, _frame) -> None:
    global _stopped_by
    _stopped_by = number
    signal.signal(number, signal.SIG_IGN)  # `timeout` signals a process and then its group
    raise KeyboardInterrupt


def _end(kind: type, error: BaseException, trace) -> None:
    """Say in one line why a script ends; what is a fault of the program keeps its traceback."""
    status, line = 1, ""
    if isinstance(error, UserError):
        line = f"error: {' '.join(str(error).split())[:1000]}"  # one line, whatever a library put into it
    elif isinstance(error, ModuleNotFoundError):
        packages = f"requirements{'-live' if Path(sys.argv[0]).name in LIVE else ''}.txt"
        line = f"error: the package {error.name} is missing; activate .venv or run: pip install -r {packages}"
    elif isinstance(error, KeyboardInterrupt):
        status, line = 128 + _stopped_by, "stopped"
    elif isinstance(error, BrokenPipeError):  # the reader has enough: `| head`
        status = 128 + 13
    elif isinstance(error, OSError) and error.errno == errno.ENOSPC:
        line = f"error: {error}; free space there"
    else:
        return sys.__excepthook__(kind, error, trace)
    if line:
        note(line)
    if isinstance(error, OSError):  # the interpreter would try to print the rest, and complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(status)


sys.excepthook = _end


class _Parser(argparse.ArgumentParser):
    """A parser that knows which option is meant by a user who names a file without any."""

    forgotten = ""

    def error(self, message: str):
        _, unrecognized, rest = message.partition("unrecognized arguments: ")
        if self.forgotten and unrecognized and not rest.startswith("-"):
            message = f"did you mean {self.forgotten} {shlex.quote(rest)}?"
        super().error(message)


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows defaults where there is one to show, and paths as one would type them."""

    def _get_help_string(self, action):
        if action.default in (None, False, [], argparse.SUPPRESS) or "default:" in (action.help or ""):
            return action.help
        values = action.default if isinstance(action.default, list) else [action.default]
        shown = " ".join(relative(value) if isinstance(value, Path) else str(value) for value in values)
        return f"{action.help} (default: {shown.replace('%', '%%')})"


def make_parser(docstring: str | None, forgotten: str = "") -> argparse.ArgumentParser:
    """Return a parser described by a script's own docstring, with defaults in its help.

    docstring: None under `python -OO`. forgotten: the option that an argument without one is for.
    """
    parser = _Parser(description=docstring, formatter_class=_HelpFormatter)
    parser.forgotten = forgotten
    return parser


def add_trust_flag(parser: argparse.ArgumentParser) -> None:
    """Add `--trust`, for the scripts that run any `.tflite`."""
    parser.add_argument(
        "--trust",
        action="store_true",
        help="run a .tflite that no emotion_mlp.json beside it lists, so that nothing tells whose it is",
    )


def refuse_idle(parser: argparse.ArgumentParser, args, names: Iterable[str], where: str) -> None:
    """Raise UserError for those of the options that were given, since they do nothing there.

    names: as in `args`; where: such as "without --images".
    """
    given = [
        f"--{name.replace('_', '-')}" for name in names if getattr(args, name) != parser.get_default(name)
    ]
    if given:
        do, them = ("does", "it") if len(given) == 1 else ("do", "them")
        raise UserError(f"{' and '.join(given)} {do} nothing {where}; leave {them} out")


def number(low: float, high: float = math.inf, kind: type = float):
    """Return an argparse type: a number of a kind from `low` to `high`."""

    def convert(text: str):
        value = kind(text)
        if not low <= value <= high:  # NaN neither
            bounds = f"at least {low}" if high == math.inf else f"from {low:g} to {high:g}"
            raise argparse.ArgumentTypeError(f"{text} is not {bounds}")
        return value

    convert.__name__ = kind.__name__  # for argparse: "invalid int value"
    return convert


positive_int = number(1, 10**9, int)
whole_number = number(0, kind=int)
seed = number(0, 2**32 - 1, int)
