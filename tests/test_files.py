"""Files are whole whatever happens, written by one run at a time, and private where they should be."""

import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT

from utils.config import UserError
from utils.files import read_verified, scratch_folder, sha256_of, write_json, writing


def test_a_second_writer_is_refused_until_the_first_is_done(tmp_path):
    with (
        writing(tmp_path / "a", "wait"),
        pytest.raises(UserError, match="is being written by another run; wait$"),
    ):
        writing(tmp_path / "a", "wait").__enter__()
    with writing(tmp_path / "a", "wait"):
        pass


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
