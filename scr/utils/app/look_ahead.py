"""Work on what comes, in a thread of its own, while the caller still deals with what came before."""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator

WAIT_S = 0.05
"""How long the thread waits for the caller before it looks whether it shall end."""


class LookAhead:
    """Iterates over (item, work(item)) in order; a context manager that ends its thread.

    One pair waits for the caller at most while the next is worked on. What the thread raises is raised to the
    caller, after all pairs before it.
    """

    def __init__(self, items: Iterable, work: Callable):
        self._items, self._work = items, work
        self._ready: queue.Queue = queue.Queue(1)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __iter__(self) -> Iterator[tuple]:
        while True:
            pair, error = self._ready.get()
            if error is not None:
                raise error
            if pair is None:
                return
            yield pair

    def _run(self) -> None:
        try:
            for item in self._items:
                if not self._put((item, self._work(item)), None):
                    return
        except BaseException as error:  # it is the caller's
            self._put(None, error)
        else:
            self._put(None, None)

    def _put(self, pair: tuple | None, error: BaseException | None) -> bool:
        while not self._stopped.is_set():
            try:
                self._ready.put((pair, error), timeout=WAIT_S)
                return True
            except queue.Full:
                continue
        return False

    def __enter__(self) -> "LookAhead":
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._stopped.set()
        self._thread.join()
