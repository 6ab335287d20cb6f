"""Work is done ahead of the caller: in order, no further than wanted, and nothing is left running."""

import contextlib
import threading
import time

import pytest

from utils.video.frames import look_ahead


def test_work_is_done_ahead_in_order_and_no_further():
    done = []
    with contextlib.closing(look_ahead(range(1, 51), lambda item: done.append(item) or item, 2)) as ahead:
        for item in filter(None, ahead):
            time.sleep(0.02)
            assert len(done) <= item + 2
            if item == 5:
                break
    assert 5 <= len(done) < 12 and done == sorted(done)
    results = [result for result in look_ahead(range(1, 9), lambda number: -number, 3) if result]
    assert results == [-number for number in range(1, 9)]


def test_the_caller_is_not_kept_waiting():
    wait = threading.Event()
    with contextlib.closing(look_ahead([1], lambda item: wait.wait() and item, 1)) as ahead:
        assert next(ahead) is None
        wait.set()
        assert list(filter(None, ahead)) == [1]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, TimeoutError])
def test_what_the_thread_raises_is_raised_after_all_before_it(error):
    def numbers():
        yield from range(1, 6)
        raise error

    seen, before = [], threading.active_count()
    with pytest.raises(error):
        for item in look_ahead(numbers(), lambda number: number, 2):
            seen += [item] if item else []
    assert seen == list(range(1, 6)) and threading.active_count() == before
