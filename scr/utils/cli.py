"""How a script begins and ends: streams, signals, exit status. Standard library only.

Every script imports this module before all else (`pyproject.toml` sorts the imports so), and it loads next to
nothing itself. From then on a signal, a missing package, a full disk behind stdout or a closed stderr end in
one line at most, never in a traceback.
"""

import atexit
import io
import os
import signal
import sys
import time

SAME_REQUEST_S = 2.0
"""A second signal within this time is the same request: `timeout` signals a process and then its group."""


class _Stop:
    """Handles the signals that ask a run to end.

    While `main` runs, the first raises KeyboardInterrupt, so that open files are completed or removed; a
    later one ends the process at once. Before and after `main` there is nothing to complete, and the process
    ends at once.
    """

    def __init__(self):
        self.running, self.number, self._time = False, 0, 0.0

    def install(self) -> None:
        # Ctrl-C; kill and timeout; the terminal was closed; Ctrl-Break.
        for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK"):
            number = getattr(signal, name, None)
            if number and signal.getsignal(number) is not signal.SIG_IGN:  # as nohup and background jobs want
                signal.signal(number, self)
        sys.unraisablehook = self._unraisable

    def __call__(self, number: int, _frame) -> None:
        if self.number and time.monotonic() - self._time < SAME_REQUEST_S:
            return
        if self.number or not self.running:
            try:
                os.write(2, b"stopped\n")
            finally:
                os._exit(128 + number)
        self.number, self._time = number, time.monotonic()
        raise KeyboardInterrupt

    def _unraisable(self, unraisable) -> None:
        """Ask again where Python had to swallow the exception: in finalisers and native code's callbacks."""
        if not isinstance(unraisable.exc_value, KeyboardInterrupt):
            sys.__unraisablehook__(unraisable)
        elif self.number:
            import threading

            number, self.number = self.number, 0
            threading.Timer(0.1, signal.raise_signal, [number]).start()


class _Stream(io.TextIOWrapper):
    """stdout or stderr: remembers what it could not write, and raises it only where that matters."""

    failure: OSError | None = None

    @classmethod
    def instead_of(cls, stream, raises: bool) -> "_Stream":
        if stream is None:
            stream = open(os.devnull, "w", encoding="utf-8")
        settings = {name: getattr(stream, name) for name in ("encoding", "line_buffering", "write_through")}
        new = cls(stream.detach(), errors="backslashreplace", **settings)  # a file's name need not be text
        new._raises = raises
        return new

    def write(self, text: str) -> int:
        return self._try(super().write, text) or len(text)

    def flush(self) -> None:
        self._try(super().flush)

    def _try(self, action, *args):
        try:
            return action(*args)
        except OSError as error:
            self.failure = error
            if self._raises:
                raise


def _prepare_streams() -> None:
    """Give file descriptors 0 to 2 and `sys.stdout`, `sys.stderr` something to stand for where they are
    closed.

    Otherwise the next file that is opened gets number 1 or 2, and native libraries print into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)  # mostly gets this very number
            if null != number:
                os.dup2(null, number)
                os.close(null)
            os.set_inheritable(number, True)
    sys.stdout = sys.__stdout__ = _Stream.instead_of(sys.stdout, raises=True)
    sys.stderr = sys.__stderr__ = _Stream.instead_of(sys.stderr, raises=False)


def _report_uncaught(kind: type, error: BaseException, trace) -> None:
    """Report an exception that was raised while the modules were loaded."""
    if issubclass(kind, ModuleNotFoundError):
        print(_missing_package(error), file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


def _missing_package(error: ModuleNotFoundError) -> str:
    return f"error: this needs more packages ({error.name} is missing); run: pip install -r requirements.txt"


def _is_script() -> bool:
    """Tell whether the program of this process is one of our scripts; a test, or a worker, is none."""
    program = getattr(sys.modules["__main__"], "__file__", None)
    scripts = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
    return bool(program) and os.path.dirname(os.path.realpath(program)) == scripts


_stop = _Stop()
if _is_script():
    _stop.install()
    _prepare_streams()
    sys.excepthook = _report_uncaught


def run_script(main, parser) -> None:
    """Parse with an `argparse.ArgumentParser`, run, exit.

    The status is 0 if all is done, 1 after an error (a `UserError` is one line, without a traceback), 2 for
    wrong arguments, 128 and the number of the signal that ended the run: 130 for Ctrl-C, 143 for SIGTERM.
    """
    try:
        status = _run(main, parser)
    except SystemExit as end:  # argparse: --help, wrong arguments
        status = end.code
    status = status or _check_stdout()
    if _stop.number:
        # Not by sys.exit: while the interpreter tears itself down, a repeated signal would change the status.
        atexit._run_exitfuncs()
        os._exit(status)
    sys.exit(status)


def _run(main, parser) -> int:
    from .config import SHARE_VARIABLE, TRUST_VARIABLE

    _stop.install()
    try:
        args = parser.parse_args()
        for flag, variable in {"share_usage_metrics": SHARE_VARIABLE, "trust": TRUST_VARIABLE}.items():
            os.environ.pop(variable, None)
            if getattr(args, flag, False):
                os.environ[variable] = "1"
        _stop.running = True
        main(args)
        return 0
    except (Exception, KeyboardInterrupt) as error:
        _stop.running = False
        return _explain(error)
    finally:
        _stop.running = False


def _explain(error: BaseException) -> int:
    """Say why a run ended early and return the exit status; raises what is a fault of the program."""
    from .config import UserError, note

    if isinstance(error, UserError) and not (_stop.number and isinstance(error.__cause__, ImportError)):
        note(f"error: {' '.join(str(error).split())[:1000]}")  # one line, whatever a library told us
    if _stop.number or isinstance(error, KeyboardInterrupt):
        # Whatever was raised: libraries turn the interrupt into exceptions of their own, an ImportError say.
        note("stopped")
        return 128 + (_stop.number or signal.SIGINT)
    if isinstance(error, UserError):
        return 1
    if isinstance(error, ModuleNotFoundError):
        note(_missing_package(error))
        return 1
    if isinstance(error, OSError) and error is getattr(sys.stdout, "failure", None):
        return 0  # run_script looks at stdout
    raise error


def _check_stdout() -> int:
    """Return 1 if stdout could not take all that was printed, else 0; a reader may leave (`| head`)."""
    from .config import note

    try:
        sys.stdout.flush()
        error = getattr(sys.stdout, "failure", None)
    except OSError as refused:
        error = refused
    if error is None:
        return 0
    # So that the interpreter does not try again, and complain, when it ends.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if isinstance(error, BrokenPipeError):
        return 0
    note(f"error: can't print the results: {error.strerror or error}; free space or choose another place")
    return 1
