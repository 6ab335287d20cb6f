"""Work ahead of the caller: in order, no further than one, and nothing left running."""

import threading
import time

import pytest

from utils.app.look_ahead import LookAhead


def test_pairs_come_in_order():
    with LookAhead(range(50), lambda number: number * number) as ahead:
        assert list(ahead) == [(number, number * number) for number in range(50)]


def test_the_next_is_worked_on_while_the_caller_is_busy_but_no_further():
    done = []
    with LookAhead(range(50), done.append) as ahead:
        for item, _ in ahead:
            time.sleep(0.02)
            assert len(done) <= item + 3
            if item == 5:
                break
        assert len(done) >= 6
    assert len(done) < 12


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_what_the_thread_raises_is_raised_after_all_before_it(error):
    def numbers():
        yield from range(5)
        raise error

    seen = []
    with pytest.raises(error), LookAhead(numbers(), lambda number: number) as ahead:
        for item, _ in ahead:
            seen.append(item)
    assert seen == list(range(5))


def test_leaving_early_ends_the_thread():
    before = threading.active_count()
    with LookAhead(iter(int, 1), lambda number: number) as ahead:
        next(iter(ahead))
    assert threading.active_count() == before
