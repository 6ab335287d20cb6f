"""Files are whole whatever happens, written by one run at a time, and private where they should be."""

import json
import os
import re
import signal
import subprocess
import sys
from datetime import UTC, datetime

import numpy as np
import pytest
from conftest import DATA, ROOT, run, user_error

from utils.config import UserError
from utils.data.recordings import SessionWriter, load_subject, read_session, save_neutral, store_consent
from utils.files import atomic_path, read_verified, scratch_folder, sha256_of, write_json, writing

RECORD = ("--source", DATA / "astronaut.jpg", "--label", "happy", "--subject", "ann", "--session", "1")
FACE = (np.zeros((478, 3), np.float32), np.zeros(52, np.float32))


@pytest.fixture
def holder(tmp_path):
    """A process that writes a session of ann until its stdin is closed."""
    code = (
        "import sys, numpy as np\nfrom pathlib import Path\nfrom utils.data.recordings import SessionWriter\n"
        "with SessionWriter('ann', '1', Path(sys.argv[1])) as writer:\n"
        "    print('open', flush=True); sys.stdin.read()\n"
        "    writer.append(np.zeros((478, 3)), np.zeros(52), 'sad')\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT / "scr")},
    )
    assert process.stdout.readline() == "open\n"
    yield process
    process.kill()
    process.communicate()


def test_the_second_recording_of_a_session_is_told_who_is_at_it(holder, tmp_path):
    message = user_error(run("record_dataset.py", *RECORD, "--data", tmp_path))
    assert "ann/1.jsonl is being written by" in message and f"process {holder.pid}" in message
    assert re.search(r"since \d\d:\d\d:\d\d on 20", message) and "--session NAME" in message
    for command in (["--forget", "ann", "--yes"], ["--subject", "ann", "--delete-session", "1"]):
        assert "is being written by" in user_error(run("record_dataset.py", *command, "--data", tmp_path))
    holder.communicate("")
    assert [sample.label for sample in load_subject("ann", tmp_path)[0]] == ["sad"], (
        "the first lost its sample"
    )
    assert run("record_dataset.py", *RECORD, "--data", tmp_path).returncode == 0
    assert [sample.label for sample in load_subject("ann", tmp_path)[0]] == ["sad", "happy"]


def test_another_session_can_be_recorded_meanwhile(holder, tmp_path):
    with SessionWriter("ann", "2", tmp_path) as writer:
        writer.append(*FACE, "happy")
    assert len(read_session(tmp_path / "ann" / "2.jsonl")[0]) == 1
    assert not (tmp_path / "ann" / ".2.jsonl.lock").exists()


def test_a_lock_falls_with_its_process(holder, tmp_path):
    holder.send_signal(signal.SIGTERM if os.name == "nt" else signal.SIGKILL)
    holder.wait()
    with SessionWriter("ann", "1", tmp_path) as writer:
        writer.append(*FACE, "happy")


def test_a_lock_that_says_nothing_still_holds(tmp_path):
    with writing(tmp_path / "a", "wait"):
        (tmp_path / ".a.lock").write_bytes(b"")
        with (
            pytest.raises(UserError, match="is being written by another run; wait$"),
            writing(tmp_path / "a", "wait"),
        ):
            pass
    with writing(tmp_path / "a", "wait"):
        pass


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX permissions")
def test_what_is_stored_about_a_person_is_for_the_owners_eyes(tmp_path):
    folder = tmp_path / "personal" / "ann"
    folder.mkdir(parents=True, mode=0o755)  # as an earlier version made it
    (folder / "0.jsonl").write_text("")
    (folder / "0.jsonl").chmod(0o644)
    with SessionWriter("ann", "1", tmp_path / "personal") as writer:
        writer.append(*FACE, "happy")
    store_consent(folder)
    save_neutral("ann", FACE[0][None], FACE[1][None], tmp_path / "personal")
    assert folder.stat().st_mode & 0o777 == 0o700
    modes = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
    assert {"0.jsonl", "1.jsonl", "consent.json", "neutral.npz"} <= set(modes)
    assert set(modes.values()) == {0o600}, modes
    agreed = json.loads((folder / "consent.json").read_text())["agreed"]
    assert datetime.fromisoformat(agreed).utcoffset().total_seconds() == 0


def test_samples_sort_by_time_not_by_its_text(tmp_path):
    import zlib

    for session, (time, label) in enumerate(
        [
            ("2026-10-25T02:30:00.000+02:00", "sad"),  # the hour that summer time repeats
            ("2026-10-25T02:10:00.000+01:00", "happy"),
            ("2026-10-24T23:00:00.000+00:00", "fear"),
        ]
    ):
        with SessionWriter("ann", str(session), tmp_path) as writer:
            writer.append(*FACE, label)
        body = json.loads(writer.path.read_bytes().partition(b" ")[2])
        assert datetime.fromisoformat(body["time"]).tzinfo == UTC
        text = json.dumps(body | {"time": time}).encode()
        writer.path.write_bytes(b"%08x %s\n" % (zlib.crc32(text), text))
    samples, dropped = load_subject("ann", tmp_path)
    assert [sample.label for sample in samples] == ["fear", "sad", "happy"] and dropped == 0


def run_killed(code: str, folder) -> None:
    """Run Python code in a process that kills itself; the folder is its `sys.argv[1]`."""
    code = "import os, sys; from pathlib import Path; from utils.files import *\n" + code
    path = os.pathsep.join(filter(None, [str(ROOT / "scr"), os.environ.get("PYTHONPATH")]))
    done = subprocess.run([sys.executable, "-c", code, folder], env=os.environ | {"PYTHONPATH": path})
    assert done.returncode


KILL = "os.kill(os.getpid(), 9)"


@pytest.mark.usefixtures("system")
def test_a_run_killed_while_it_writes_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})
    run_killed(f"with atomic_path(Path(sys.argv[1], 'a.json')) as a: a.write_text('half'); {KILL}", tmp_path)
    assert json.loads(path.read_text()) == {"old": 1}


@pytest.mark.usefixtures("system")
def test_a_killed_runs_scratch_folder_goes_with_the_next_and_another_runs_stays(tmp_path):
    run_killed(
        f"with scratch_folder(Path(sys.argv[1])) as a: (a / 'maps.npy').write_text('large'); {KILL}", tmp_path
    )
    (left,) = tmp_path.iterdir()
    with scratch_folder(tmp_path) as first, scratch_folder(tmp_path) as second:
        assert set(tmp_path.iterdir()) == {first, second} and left not in (first, second)
    assert not list(tmp_path.iterdir())


def test_a_private_file_is_its_owners_from_the_first_byte(tmp_path):
    with atomic_path(tmp_path / "a", private=True) as partial:
        assert os.name == "nt" or partial.stat().st_mode & 0o777 == 0o600
        partial.write_text("x")
    assert (tmp_path / "a").read_text() == "x"
    assert os.name == "nt" or (tmp_path / "a").stat().st_mode & 0o777 == 0o600


@pytest.mark.usefixtures("system")
def test_a_folder_that_is_none_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    for write in (
        lambda path: write_json(path, {}),
        lambda path: scratch_folder(path).__enter__(),
        lambda path: writing(path, "").__enter__(),
    ):
        with pytest.raises(UserError, match="can't write"):
            write(tmp_path / "file" / "a.json")


@pytest.mark.usefixtures("system")
def test_a_known_file_is_read_and_another_refused(tmp_path):
    path = tmp_path / "network"
    with pytest.raises(UserError, match="can't read .*; run: git checkout"):
        read_verified(path, "", "run: git checkout")
    path.write_bytes(b"weights")
    assert read_verified(path, sha256_of(path), "") == b"weights"
    with pytest.raises(UserError, match="damaged or another version"):
        read_verified(path, "0" * 64, "")


@pytest.mark.usefixtures("windows_rules")
def test_a_file_that_another_program_has_open_is_kept_and_said_to_be(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})
    with path.open("rb"), pytest.raises(UserError, match="close what uses it"):
        write_json(path, {"new": 1})
    assert json.loads(path.read_text()) == {"old": 1} and list(tmp_path.iterdir()) == [path]
