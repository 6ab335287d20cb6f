"""How scripts end: signals, full disks, closed streams, temporary files of runs that were killed."""

import os
import platform
import signal
import subprocess
import sys
import time
import zlib

import pytest
from conftest import DATA, DEMO, ROOT, run, user_error

from utils.config import UserError, atomic_path, scratch_folder, write_json

SCRIPTS = sorted(path.name for path in (ROOT / "scr").glob("*.py"))
FULL = "/dev/full"

posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals and file descriptors")
needs_full = pytest.mark.skipif(not os.path.exists(FULL), reason=f"needs {FULL}")


def start(script, *args, **options) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, ROOT / "scr" / script, *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
        env={key: value for key, value in os.environ.items() if key != "DISPLAY"},
        **options,
    )


@pytest.fixture
def gate(tmp_path):
    """A module `numpy` that says that it is being loaded, and takes its time: Ctrl-C comes exactly then."""
    (tmp_path / "numpy.py").write_text("import time\nprint('loading', flush=True)\ntime.sleep(60)\n")
    return {"PYTHONPATH": str(tmp_path)}


@posix
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_signal_while_modules_load_prints_one_line(script, stop, gate):
    args = {"main.py": ["--source", DATA / "astronaut.jpg", "--no-display"]}.get(script, [])
    process = subprocess.Popen(
        [sys.executable, ROOT / "scr" / script, *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | gate,
    )
    assert process.stdout.readline() == "loading\n"
    process.send_signal(stop)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (128 + stop, "stopped\n")


@posix
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_in_order(stop, tmp_path):
    video, table = tmp_path / "out.mp4", tmp_path / "out.csv"
    process = start("main.py", "--source", DEMO, "--no-display", "--save", video, "--output", table)
    deadline = time.monotonic() + 120
    while not (table.exists() and table.stat().st_size > 500) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, stop)
    time.sleep(0.05)
    os.killpg(process.pid, stop)  # as `timeout` does: to the process, and to its group
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + stop, err
    assert err.splitlines()[-1] == "stopped" and "Traceback" not in err
    assert video.stat().st_size > 1000, "the video was not completed"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv", "out.mp4"]


@posix
def test_what_a_library_makes_of_an_interrupt_is_no_traceback(tmp_path):
    (tmp_path / "cv2.py").write_text(
        "import time\n"
        "try:\n"
        "    print('loading', flush=True)\n"
        "    time.sleep(60)\n"
        "except BaseException as error:\n"
        "    raise ImportError('initialization failed') from error\n"
    )
    process = subprocess.Popen(
        [sys.executable, ROOT / "scr" / "main.py", "--source", DATA / "astronaut.jpg", "--no-display"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )
    assert process.stdout.readline() == "loading\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "stopped\n")


def test_a_missing_package_is_named_whenever_it_is_missed(tmp_path):
    (tmp_path / "numpy.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'numpy'\", name='numpy')\n"
    )
    done = run("evaluate.py", "--help", env={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 1
    assert done.stderr == (
        "error: this needs more packages (numpy is missing); run: pip install -r requirements.txt\n"
    )
    (tmp_path / "numpy.py").unlink()
    (tmp_path / "keras.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'keras'\", name='keras')\n"
    )
    done = run("export_model.py", "--output", tmp_path / "out", env={"PYTHONPATH": str(tmp_path)})
    assert "needs more packages (keras is missing)" in user_error(done)


@needs_full
@pytest.mark.parametrize("args", [["--help"], ["--list"]])
def test_stdout_on_a_full_disk_is_one_line(args, tmp_path):
    with open(FULL, "w") as full:
        done = subprocess.run(
            [sys.executable, ROOT / "scr" / "record_dataset.py", *args, "--data", tmp_path],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 1
    assert done.stderr == (
        "error: can't print the results: No space left on device; free space or choose another place\n"
    )


@posix
@pytest.mark.parametrize(
    ("redirect", "args", "status"),
    [
        ("2>&-", "--list --data {tmp}", 0),
        ("2>&-", "--forget nobody --data {tmp}", 1),
        ("2>&-", "--no-such-flag", 2),
        ("1>&- 2>&-", "--list --data {tmp}", 0),
        ("0<&- 1>&- 2>&-", "--source {picture} --label happy --data {tmp}", 0),
        pytest.param(f"2>{FULL}", "--forget nobody --data {tmp}", 1, marks=needs_full),
        pytest.param(f"2>{FULL}", "--source {picture} --label happy --data {tmp}", 0, marks=needs_full),
    ],
)
def test_closed_and_full_streams_are_silent_and_leave_the_exit_status(redirect, args, status, tmp_path):
    args = args.format(tmp=tmp_path / "personal", picture=DATA / "astronaut.jpg")
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} {ROOT}/scr/record_dataset.py {args} {redirect}"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    if "--label" in args:
        lines = (tmp_path / "personal" / "me" / "1.jsonl").read_bytes().splitlines()
        assert len(lines) == 1, "native libraries printed into the file, or the sample is missing"


@posix
def test_temporary_files_of_killed_runs_go_and_those_of_others_stay(tmp_path):
    ended = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True
    )
    dead, host = int(ended.stdout), f"{zlib.crc32(platform.node().encode()):08x}"
    gone = [tmp_path / f".{dead}-{host}.other.npz", tmp_path / f".{os.getpid()}-{host}.a.json"]
    kept = [
        tmp_path / f".{os.getppid()}-{host}.a.json",  # of a run that lives
        tmp_path / f".{dead}-00000000.a.json",  # of another machine
        tmp_path / f".{dead}.a.json",  # of who knows
    ]
    for path in (*gone, *kept):
        path.write_text("")
    write_json(tmp_path / "a.json", {})
    assert not any(path.exists() for path in gone) and all(path.exists() for path in kept)


@posix
def test_a_killed_run_leaves_a_temporary_file_that_the_next_run_removes(tmp_path):
    code = (
        "import os, signal, sys; from pathlib import Path; from utils.config import atomic_path\n"
        "with atomic_path(Path(sys.argv[1])) as partial:\n"
        "    partial.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run(
        [sys.executable, "-c", code, tmp_path / "a"], env=os.environ | {"PYTHONPATH": str(ROOT / "scr")}
    )
    assert len(list(tmp_path.iterdir())) == 1
    write_json(tmp_path / "b", {})
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


@posix
def test_a_killed_runs_scratch_folder_goes_with_the_next(tmp_path):
    code = (
        "import os, signal, sys; from pathlib import Path; from utils.config import scratch_folder\n"
        "with scratch_folder(Path(sys.argv[1])) as folder:\n"
        "    (folder / 'maps.npy').write_text('large'); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path], env=os.environ | {"PYTHONPATH": str(ROOT / "scr")})
    (left,) = tmp_path.iterdir()
    with scratch_folder(tmp_path) as folder:
        assert list(tmp_path.iterdir()) == [folder] != [left]
    assert not list(tmp_path.iterdir())


def test_a_private_file_is_its_owners_from_the_first_byte(tmp_path):
    with atomic_path(tmp_path / "a", private=True) as partial:
        assert os.name == "nt" or partial.stat().st_mode & 0o777 == 0o600
        partial.write_text("x")
    assert (tmp_path / "a").read_text() == "x"
    assert os.name == "nt" or (tmp_path / "a").stat().st_mode & 0o777 == 0o600


def test_a_folder_that_is_none_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="can't write"):
        write_json(tmp_path / "file" / "a.json", {})
