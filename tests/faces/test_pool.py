"""A worker may die, hang or fail: it costs the task it was at, and results keep their order."""

import contextlib
import os
import time
from functools import partial

import pytest

from utils.config import UserError
from utils.faces.pool import DIED, HUNG, work_through


def work(folder, task):
    kind, number = task
    (folder / str(number)).touch()
    if kind == "kill":
        os.kill(os.getpid(), 9)
    if kind == "hang":
        time.sleep(600)
    if kind == "raise":
        raise UserError("the disk is full")
    return number * 10


@contextlib.contextmanager
def open_worker(folder):
    yield partial(work, folder)


def results_of(folder, kinds, **options):
    tasks = [(kind, number) for number, kind in enumerate(kinds)]
    return list(work_through(partial(open_worker, folder), tasks, jobs=2, **options))


def test_a_task_that_kills_its_worker_costs_itself_alone(tmp_path):
    kinds = ["well"] * 20
    kinds[3] = kinds[4] = kinds[19] = "kill"
    results = results_of(tmp_path, kinds)
    assert results == [DIED if kind == "kill" else number * 10 for number, kind in enumerate(kinds)]


def test_a_worker_that_hangs_is_ended(tmp_path):
    assert results_of(tmp_path, ["well", "hang", "well"], patience_s=2) == [0, HUNG, 20]


def test_what_the_work_raises_is_raised_here(tmp_path):
    with pytest.raises(UserError, match="the disk is full"):
        results_of(tmp_path, ["well", "raise", "well"])


def test_leaving_early_ends_the_workers(tmp_path):
    results = work_through(partial(open_worker, tmp_path), [("well", 1), ("hang", 2)], jobs=2)
    assert next(results) == 10
    start = time.monotonic()
    results.close()
    assert time.monotonic() - start < 60  # of the 600 s that the task takes


def test_no_more_than_some_tasks_are_done_ahead(tmp_path):
    results = work_through(partial(open_worker, tmp_path), [("well", n) for n in range(20)], jobs=2, ahead=2)
    assert next(results) == 0
    time.sleep(1)
    assert len(list(tmp_path.iterdir())) <= 5
    assert list(results) == [10 * number for number in range(1, 20)]


def test_nothing_to_do_starts_nothing(tmp_path):
    assert list(work_through(partial(open_worker, tmp_path), [], jobs=2)) == []
