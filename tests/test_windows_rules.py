"""The rules of Windows hold where a test asks for them, and the programs use nothing that it lacks."""

import ast
import multiprocessing
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import DATA, ROOT, SMILE, run

ELSEWHERE = {"fcntl", "grp", "pwd", "resource", "termios"}
ELSEWHERE_NAMES = {"fork", "getuid", "killpg", "mkfifo", "SIGALRM", "SIGHUP", "SIGKILL"}


@pytest.mark.parametrize("path", sorted((ROOT / "scr").rglob("*.py")), ids=lambda path: path.stem)
def test_no_program_needs_what_windows_lacks(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not imported & ELSEWHERE and not used & ELSEWHERE_NAMES


@pytest.mark.usefixtures("windows_rules")
class TestRules:
    def test_an_open_file_is_neither_removed_nor_replaced(self, tmp_path):
        old, new = tmp_path / "old", tmp_path / "new"
        for path in (old, new):
            path.write_text("x")
        with old.open():
            for action in (old.unlink, lambda: new.replace(old), lambda: old.replace(new)):
                with pytest.raises(PermissionError):
                    action()
            with pytest.raises(PermissionError):
                shutil.rmtree(tmp_path)
        new.write_text("x")
        new.replace(old)
        old.unlink()

    def test_an_open_database_is_open(self, tmp_path):
        database = sqlite3.connect(tmp_path / "a.sqlite")
        database.execute("create table faces (label)")
        with pytest.raises(PermissionError):
            (tmp_path / "a.sqlite").unlink()
        database.close()
        (tmp_path / "a.sqlite").unlink()

    def test_only_what_can_be_written_is_synced(self, tmp_path):
        (tmp_path / "a").write_text("x")
        with (tmp_path / "a").open("rb") as file, pytest.raises(OSError):
            os.fsync(file.fileno())
        with (tmp_path / "a").open("rb+") as file:
            os.fsync(file.fileno())

    @pytest.mark.parametrize("name", ["con", "nul.txt", "a:b", "what?", "end.", "ANN"])
    def test_some_names_make_no_file(self, tmp_path, name):
        (tmp_path / "Ann").mkdir()
        with pytest.raises(OSError):
            (tmp_path / name).write_text("x")
        with pytest.raises(OSError):
            (tmp_path / name).mkdir()

    def test_text_is_of_windows(self, tmp_path):
        with open(tmp_path / "a", "w") as file:
            file.write("é\n")
        assert (tmp_path / "a").read_bytes() == b"\xe9\r\n"
        with pytest.raises(UnicodeEncodeError):
            (tmp_path / "a").write_text("हँसी")

    def test_processes_follow_them_and_are_spawned(self, tmp_path):
        assert multiprocessing.get_start_method() == "spawn" and not hasattr(os, "fork")
        code = "import os; print('हँसी')"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert "UnicodeEncodeError" in done.stderr
        code = "import os; print(hasattr(os, 'fork'), flush=True); os.kill(os.getpid(), 15)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.stdout == "False\n" and done.returncode == -9


@pytest.mark.usefixtures("windows_rules")
def test_the_scripts_read_write_and_record_by_them(tmp_path):
    picture, script, folder = DATA / "astronaut.jpg", "record_dataset.py", ("--data", tmp_path / "personal")
    names = ["हँसी.csv", "drawn.png", "plot.png"]
    outputs = [tmp_path / name for name in names]
    pictures = tmp_path / "pictures" / "happy"
    pictures.mkdir(parents=True)
    shutil.copy(picture, pictures)
    for arguments in (
        ("main.py", "--source", picture, "--no-display", "--output", outputs[0], "--save", outputs[1]),
        ("main.py", "--source", SMILE, "--no-display", "--save", tmp_path / "a.mp4", "--plot", outputs[2]),
        ("extract_landmarks.py", "--images", pictures.parent, "--output", tmp_path / "a.faces", "--jobs", 2),
        (script, "--source", picture, "--label", "happy", "--subject", "ann", "--consent", *folder),
        (script, "--list", *folder),
        (script, "--forget", "ann", "--yes", *folder),
    ):
        done = run(*arguments)
        assert done.returncode == 0, done.stderr
    assert all(path.stat().st_size > 100 for path in outputs)
    assert not list((tmp_path / "personal").iterdir())


def test_they_end_with_the_test(tmp_path):
    with open(tmp_path / "nul", "w") as file:
        file.write("\n")
        Path(tmp_path / "nul").unlink()
