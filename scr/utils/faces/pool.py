"""Work shared out to processes, any of which may die: that costs the task it was at, never the run.

joblib and concurrent.futures give up everything in flight when one worker dies. Here each worker answers task
by task through a pipe of its own, so the task that it died of is known.
"""

import contextlib
import multiprocessing
import signal
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait

from ..config import UserError, interrupts_withheld

PATIENCE_S = START_PATIENCE_S = 120.0
"""A worker that is at one task, or starting, for longer hangs, and is ended: the dearest picture takes some
seconds."""
AHEAD = 256
"""Tasks for each worker that may be done before the first one not done yet: bounds what waits in memory."""
IN_HAND = 2
"""Tasks that a worker holds, so that it need not wait for the next one."""
CHANCES = 2
"""Workers that a task may kill before it is given up: the first may have died of another's memory use."""
BAD_STARTS = 3


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
    """Yield in order what the function of `open_worker()` makes of each task; `Lost` if it kills workers.

    `open_worker` is called once in each of `jobs` fresh processes. It, the tasks
    and the results are pickled. What the function raises is raised here."""
    crew = _Crew(open_worker, tasks, patience_s, ahead)
    try:
        crew.hire(min(jobs, len(tasks)))
        for index in range(len(tasks)):
            while index not in crew.results:
                crew.hand_out(index)
                crew.listen()
            yield crew.results.pop(index)
        crew.dismiss()
    finally:
        crew.end()


class _Worker:
    """A process, the pipe to it, and the numbers of the tasks it holds; the first is the one it is at."""

    def __init__(self, open_worker):
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, open_worker), daemon=True)
        with interrupts_withheld():
            self.process.start()
        theirs.close()
        self.held: deque[int] = deque()
        self.ready = False
        self.since = time.monotonic()

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()


class _Crew:
    """The workers, what is left to do, and the results that were not asked for yet."""

    def __init__(self, open_worker, tasks: Sequence, patience_s: float, ahead: int):
        self._open_worker, self._tasks = open_worker, tasks
        self._patience_s, self._ahead = patience_s, ahead
        self._workers: list[_Worker] = []
        self._left = deque(range(len(tasks)))
        self._deaths: dict[int, int] = {}
        self._bad_starts = 0
        self.results: dict[int, object] = {}

    def hire(self, count: int) -> None:
        self._workers += [_Worker(self._open_worker) for _ in range(count)]

    def hand_out(self, wanted: int) -> None:
        """Give tasks to whoever has room, not too far ahead of the one that is wanted next."""
        last = wanted + self._ahead * len(self._workers)
        for _ in range(IN_HAND):  # in turns: the last few tasks are spread over all
            for worker in self._workers:
                room = worker.ready and len(worker.held) < IN_HAND
                if room and self._left and self._left[0] <= last:
                    self._give(worker, self._left.popleft())

    def _give(self, worker: _Worker, index: int) -> None:
        if not worker.held:
            worker.since = time.monotonic()
        worker.held.append(index)
        with contextlib.suppress(OSError):  # it has just died: `listen` will hear of it
            worker.connection.send((self._tasks[index],))

    def listen(self) -> None:
        """Wait for an answer, a death or a worker that hangs."""
        for connection in wait([worker.connection for worker in self._workers], timeout=1.0):
            worker = next(worker for worker in self._workers if worker.connection is connection)
            try:
                kind, value = connection.recv()
            except (EOFError, OSError):
                self._replace(worker, DIED, CHANCES)
                continue
            if kind == "raised":
                raise value
            if kind == "ready":
                worker.ready = True
            else:
                self.results[worker.held.popleft()] = value
                self._bad_starts = 0
            worker.since = time.monotonic()
        for worker in list(self._workers):
            patience_s = self._patience_s if worker.ready else START_PATIENCE_S
            if (worker.held or not worker.ready) and time.monotonic() - worker.since > patience_s:
                self._replace(worker, HUNG, 1)

    def _replace(self, worker: _Worker, result: Lost, chances: int) -> None:
        """Put a new worker in the place of one that died; the task that it was at has one chance less."""
        worker.end()
        self._workers.remove(worker)
        if not worker.ready:
            self._bad_starts += 1
            if self._bad_starts >= BAD_STARTS:
                raise UserError(
                    f"worker processes don't start (exit code {worker.process.exitcode}); "
                    "free memory, or try --jobs 1"
                )
        elif worker.held:
            culprit = worker.held.popleft()
            self._deaths[culprit] = self._deaths.get(culprit, 0) + 1
            if self._deaths[culprit] >= chances:
                self.results[culprit] = result
            else:
                self._left.append(culprit)
        self._left = deque(sorted([*worker.held, *self._left]))
        if self._left:
            self.hire(1)

    def dismiss(self) -> None:
        """Let the workers end in order, which frees what they opened."""
        for worker in self._workers:
            with contextlib.suppress(OSError):
                worker.connection.send(None)
        for worker in self._workers:
            worker.process.join(5)

    def end(self) -> None:
        """End whoever is left, at once."""
        for worker in self._workers:
            worker.end()


def _serve(connection: Connection, open_worker) -> None:
    """Answer task by task, in a process of its own, until the parent says so or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with open_worker() as work:
            connection.send(("ready", None))
            while (task := connection.recv()) is not None:
                connection.send(("done", work(*task)))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # the parent is gone
    except Exception as error:
        error.add_note(traceback.format_exc())
        connection.send(("raised", error))
