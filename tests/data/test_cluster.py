"""Extraction on a cluster: a scheduler and two workers on this machine, one of which is killed on the way."""

import contextlib
import importlib.util
import os
import socket
import subprocess
import sys
import time
import types

import pytest
from conftest import ROOT, assert_same_sets, read_pictures, run, user_error

from utils.config import UserError

needs_dask = pytest.mark.skipif(
    importlib.util.find_spec("distributed") is None,
    reason="distributed is not installed; pip install -r requirements-cluster.txt",
)


@contextlib.contextmanager
def dask(*args, folder):
    environment = os.environ | {"PYTHONPATH": str(ROOT / "scr"), "DASK_LOGGING__DISTRIBUTED": "error"}
    process = subprocess.Popen(
        [sys.executable, "-m", "dask", *map(str, args)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
        cwd=folder,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def scheduler(tmp_path):
    """The address of a scheduler on this machine."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with dask("scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard", folder=tmp_path):
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.1)
        yield f"tcp://127.0.0.1:{port}"


def worker(scheduler, folder):
    place = folder / f"worker{time.monotonic_ns()}"
    place.mkdir()
    flags = ("--nthreads", 1, "--no-nanny", "--no-dashboard", "--local-directory", place)
    return dask("worker", scheduler, *flags, folder=folder)


@needs_dask
def test_a_cluster_that_loses_a_worker_makes_the_same_set(many_pictures, whole_file, scheduler, tmp_path):
    output = tmp_path / "many.faces"
    arguments = "--images", many_pictures, "--jobs", 2, "--output", output, "--cluster", scheduler
    with worker(scheduler, tmp_path) as first, worker(scheduler, tmp_path):
        process = subprocess.Popen(
            [sys.executable, ROOT / "scr" / "extract_landmarks.py", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        deadline = time.monotonic() + 200
        while not read_pictures(output) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        done_before = read_pictures(output)
        first.kill()
        out, err = process.communicate(timeout=300)
    assert process.returncode == 0 and "Traceback" not in err, err
    assert 1 <= done_before < 240, "the worker was killed too early or too late to show anything"
    assert_same_sets(output, whole_file)
    assert "2 unreadable" in out


def test_what_a_worker_lacks_is_named(many_pictures, tmp_path, monkeypatch):
    from utils.data.extraction import extract
    from utils.data.image_folder import find_labelled_images

    def client(*_, **__):
        raise RuntimeError("deserialization") from ModuleNotFoundError(
            "No module named 'utils'", name="utils"
        )

    stand_in = types.SimpleNamespace(
        Client=client, KilledWorker=type("KilledWorker", (Exception,), {}), as_completed=None
    )
    monkeypatch.setitem(sys.modules, "distributed", stand_in)
    images = find_labelled_images(many_pictures)[0]
    with pytest.raises(
        UserError, match="the cluster at tcp://a:1 can't be used: a worker has no utils; see that"
    ):
        extract(images, many_pictures, "many", tmp_path / "a.faces", 1, "tcp://a:1")


def extract(pictures, folder, address, **options):
    flags = ("--images", pictures, "--output", folder / "a.faces", "--cluster", address)
    return run("extract_landmarks.py", *flags, **options)


@needs_dask
def test_a_cluster_that_is_not_there_is_one_line(many_pictures, tmp_path):
    address = "tcp://127.0.0.1:9"
    done = extract(many_pictures, tmp_path, address)
    assert f"the cluster at {address} can't be used" in user_error(done)


def test_dask_that_is_not_installed_is_named(many_pictures, tmp_path):
    (tmp_path / "distributed.py").write_text("raise ModuleNotFoundError(name='distributed')\n")
    done = extract(many_pictures, tmp_path, "tcp://a:1", env={"PYTHONPATH": str(tmp_path)})
    assert "pip install -r requirements-cluster.txt" in user_error(done)
