"""Work shared out to processes, any of which may die: that costs the task it was at, never the run."""

import contextlib
import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import resource_tracker

PATIENCE_S = 120.0
"""A worker that is at one task for longer hangs, and is ended: the dearest picture takes some seconds."""
AHEAD = 256
"""Tasks for each worker that may be done before the first one not done yet: bounds what waits in memory."""


class Lost(str):
    """The result of a task that gave none."""


DIED, HUNG = Lost("worker died"), Lost("worker hung")


def work_through(
    open_worker: Callable[[], contextlib.AbstractContextManager[Callable]],
    tasks: Sequence,
    jobs: int,
    patience_s: float = PATIENCE_S,
    ahead: int = AHEAD,
) -> Iterator:
    """Yield in order what the function of `open_worker()` makes of each task; `Lost` if it kills its worker.

    `open_worker` is called once in each of `jobs` fresh processes. It, the tasks and the results are pickled.
    What the function raises is raised here.
    """
    from pebble import ProcessPool

    pool = ProcessPool(max(1, min(jobs, len(tasks))), context=multiprocessing.get_context("spawn"))
    waiting: deque = deque()
    try:
        for task in tasks:
            with _interrupts_withheld():  # the first task starts the processes: Ctrl-C is for this one alone
                waiting.append(pool.schedule(_work_at, (open_worker, task), timeout=patience_s))
            if len(waiting) > ahead * jobs:
                yield _result_of(waiting.popleft())
        while waiting:
            yield _result_of(waiting.popleft())
    finally:
        pool.stop()
        pool.join()


def _result_of(future):
    from pebble import ProcessExpired

    try:
        return future.result()
    except TimeoutError:
        return HUNG
    except ProcessExpired:
        return DIED


_opened: list = []
"""In a worker: its context manager, which is never left, and the function that it gave."""


def _work_at(open_worker, task):
    if not _opened:
        manager = open_worker()
        _opened.extend([manager, manager.__enter__()])
    return _opened[1](task)


@contextlib.contextmanager
def _interrupts_withheld() -> Iterator[None]:
    """Hold Ctrl-C back: a process that is started meanwhile does not hear it, this one does so afterwards."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # it would end the withholding when the first process starts it
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
