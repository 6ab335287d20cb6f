"""How scripts end: signals, full disks, missing packages."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import DATA, DEMO, ROOT, run, user_error

from utils.config import relative

SCRIPTS = sorted(path.name for path in (ROOT / "scr").glob("*.py"))
FULL = "/dev/full"

posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals and file descriptors")
needs_full = pytest.mark.skipif(not os.path.exists(FULL), reason=f"needs {FULL}")


def start(script, *args, env=()) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, ROOT / "scr" / script, *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
        env={key: value for key, value in os.environ.items() if key != "DISPLAY"} | dict(env),
    )


@posix
def test_ctrl_c_while_modules_load_is_one_line(tmp_path):
    (tmp_path / "numpy.py").write_text("import time\nprint('loading', flush=True)\ntime.sleep(60)\n")
    process = start("evaluate.py", env={"PYTHONPATH": str(tmp_path)})
    assert process.stdout.readline() == "loading\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "stopped\n")


@posix
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_in_order(stop, tmp_path):
    video, table = tmp_path / "out.mp4", tmp_path / "out.csv"
    process = start("main.py", "--source", DEMO, "--no-display", "--save", video, "--output", table)
    deadline = time.monotonic() + 120
    while not (table.exists() and table.stat().st_size > 500) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, stop)
    if stop == signal.SIGTERM:
        os.killpg(process.pid, stop)  # as `timeout` does
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + stop, err
    assert err.splitlines()[-1] == "stopped" and "Traceback" not in err
    assert video.stat().st_size > 1000, "the video was not completed"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv", "out.mp4"]


def test_a_missing_package_is_named_whenever_it_is_missed(tmp_path):
    (tmp_path / "numpy.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'numpy'\", name='numpy')\n"
    )
    done = run("evaluate.py", "--help", env={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 1
    advice = "error: the package numpy is missing; activate .venv or run: pip install -r requirements"
    assert done.stderr == f"{advice}.txt\n"
    assert run("main.py", env={"PYTHONPATH": str(tmp_path)}).stderr == f"{advice}-live.txt\n"
    (tmp_path / "numpy.py").unlink()
    (tmp_path / "keras.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'keras'\", name='keras')\n"
    )
    done = run("export_model.py", "--output", tmp_path / "out", env={"PYTHONPATH": str(tmp_path)})
    assert "the package keras is missing" in user_error(done)


@needs_full
def test_stdout_on_a_full_disk_is_one_line(tmp_path):
    with open(FULL, "w") as full:
        done = subprocess.run(
            [sys.executable, ROOT / "scr" / "record_dataset.py", "--list", "--data", tmp_path],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 1
    assert done.stderr == "error: [Errno 28] No space left on device; free space there\n"


@posix
def test_a_reader_who_has_enough_ends_a_run_in_silence(tmp_path):
    command = [sys.executable, ROOT / "scr" / "record_dataset.py", "--list", "--data", tmp_path]
    reader, writer = os.pipe()
    os.close(reader)  # as `| head` does, but for sure before the run writes
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_script_runs_without_its_docstrings():
    done = subprocess.run(
        [sys.executable, "-OO", ROOT / "scr" / "main.py", "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "--source" in done.stdout and "SUPPRESS" not in done.stdout


TELL_WHILE_FACES_ARE_READ = """
import sys, threading, cv2
from utils.config import note
from utils.faces.landmarker import FaceLandmarker

def read():
    landmarker = FaceLandmarker()
    reads.set()
    while not told.is_set():
        landmarker.detect_picture(picture)

picture, reads, told = cv2.imread(sys.argv[1]), threading.Event(), threading.Event()
threading.Thread(target=read).start()
reads.wait()
for number in range(200):
    note(f"message {number}")
    told.wait(0.005)
told.set()
"""


def test_no_message_is_lost_while_a_thread_reads_faces():
    done = subprocess.run(
        [sys.executable, "-c", TELL_WHILE_FACES_ARE_READ, DATA / "group.jpg"],
        env=os.environ | {"PYTHONPATH": str(ROOT / "scr")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stderr.splitlines() if "message" in line] == [
        f"message {number}" for number in range(200)
    ]


def test_a_path_is_printed_as_it_can_be_typed_from_anywhere(tmp_path, monkeypatch):
    (tmp_path / "inside").mkdir()
    monkeypatch.chdir(tmp_path)
    assert relative(Path("inside/a.csv")) == os.path.join("inside", "a.csv")
    monkeypatch.chdir(tmp_path / "inside")
    assert relative(tmp_path / "a.csv") == str(tmp_path / "a.csv")
