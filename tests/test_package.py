"""What `pip install .` installs, put together from pyproject.toml and used in an empty folder.

`.ci/run` builds the wheel itself and tries it.
"""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from conftest import DATA, ROOT, user_error
from packaging.requirements import Requirement

from utils.config import VERSION
from utils.faces.detection import DETECTOR_FILE
from utils.faces.mesh import TASK_FILE
from utils.model import bundle

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SETUP = PROJECT["tool"]["setuptools"]
NAME = "emotion_detection"


def folder_of(package: str) -> Path:
    """Return the folder in the repository that a package is made of."""
    mapped = max((name for name in SETUP["package-dir"] if f"{package}.".startswith(f"{name}.")), key=len)
    return ROOT / SETUP["package-dir"][mapped] / package[len(mapped) + 1 :].replace(".", "/")


def packaged_files() -> dict[str, Path]:
    """Return the files of the wheel by their place in it."""
    return {
        f"{package.replace('.', '/')}/{path.name}": path
        for package in SETUP["packages"]
        for pattern in ("*.py", *SETUP["package-data"].get(package, ()))
        for path in folder_of(package).glob(pattern)
    }


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder with the package as it is installed."""
    root = tmp_path_factory.mktemp("site")
    for place, path in packaged_files().items():
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, root / place)
    return root


def use(installed: Path, place: Path, code: str, *arguments) -> subprocess.CompletedProcess:
    """Run Python code that uses the package, in a folder."""
    environment = {name: value for name, value in os.environ.items() if name != "DISPLAY"}
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=place,
        env=environment | {"PYTHONPATH": str(installed)},
        capture_output=True,
        encoding="utf-8",
    )


def test_all_files_of_the_code_are_in_it():
    files = {path for path in (ROOT / "scr/utils").rglob("*") if path.is_file() and path.suffix != ".pyc"}
    assert files - set(packaged_files().values()) == set()


def test_the_models_in_it_are_the_shipped_ones_and_what_they_need():
    packed = {path for place, path in packaged_files().items() if "/models/" in place}
    shipped = {ROOT / name for name in bundle.shipped().values()}
    needed = {path for path in shipped if path.name in {bundle.JSON, *bundle.TFLITE.values()}}
    cards = {path.with_name("README.md") for path in needed}
    assert packed == needed | cards | {DETECTOR_FILE, TASK_FILE}


def test_version_and_dependencies_are_stated_once():
    assert PROJECT["project"]["dynamic"] == ["version"]
    assert SETUP["dynamic"]["version"] == {"attr": f"{NAME}.config.VERSION"}
    lines = (ROOT / "requirements-live.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if line[0] != "#")
    needed = {one.name: one.specifier for one in map(Requirement, PROJECT["project"]["dependencies"])}
    assert list(needed) == list(pins)
    for name, pin in pins.items():
        assert pin in needed[name], f"{name}: the pinned {pin} is not {needed[name]}"


def test_it_reads_faces_in_an_empty_folder(installed, tmp_path):
    code = (
        "import sys, emotion_detection as package\n"
        "assert not {'numpy', 'emotion_detection.cli'} & set(sys.modules)\n"
        "for reader in (package, package.Reader(classes='all')):\n"
        "    print(len(reader.read_faces(sys.argv[1])), package.__file__)\n"
        "assert sys.excepthook is sys.__excepthook__\n"
    )
    done = use(installed, tmp_path, code, DATA / "group.jpg")
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert done.stdout.splitlines() == [f"5 {installed / NAME / '__init__.py'}"] * 2
    assert not any(tmp_path.iterdir())


def test_its_command_works_in_an_empty_folder(installed, tmp_path):
    def command(*arguments):
        code = "from emotion_detection.app.command import start; start()"
        return use(installed, tmp_path, code, *arguments)

    assert "    emotion-detection --source clip.mp4" in command("--help").stdout
    assert command("--version").stdout == f"Emotion Detection {VERSION}\n"  # no commit of a repository around
    done = command("--source", DATA / "astronaut.jpg", "--no-display", "--output", "-")
    assert done.returncode == 0 and done.stdout.splitlines()[1].split(",")[8] == "happy", done.stderr
    assert "check     network: " in command("--doctor").stdout
    assert "no model named nobody" in user_error(command("--model", "nobody"))
    assert not any(tmp_path.iterdir())
