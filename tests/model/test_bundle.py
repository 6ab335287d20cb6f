"""A bundle is replaced as a whole: killed at any step, the folder holds the old model or the new one."""

import os
import shutil
import subprocess
import sys
import threading
import time

import pytest
from conftest import ROOT

from utils.config import UserError
from utils.files import write_json
from utils.model import bundle
from utils.model.bundle import JSON, NAME, NEXT, OWN, digests, find_model, load_info, replacing
from utils.training.export import adding

posix = pytest.mark.skipif(os.name != "posix", reason="forks and kills")

# Killed before each change of the file system, in a forked process: so each costs little.
STEPS = """
import os, shutil, signal, sys
from pathlib import Path
from utils.files import atomic_path
from utils.model import bundle

CHANGES = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir"}
old, new, folder = map(Path, sys.argv[1:])

def replace():
    with bundle.replacing(folder) as staging:
        for path in sorted(new.iterdir()):
            if path.name in bundle.OWN or path.name == bundle.JSON:
                with atomic_path(staging / path.name) as partial:
                    shutil.copyfile(path, partial)

def killed_at(step, act):
    "Tell whether a process that is killed at a step came so far."
    process = os.fork()
    if process:
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL
    left = step
    def count(event, _):
        nonlocal left
        left -= event in CHANGES
        if not left:
            left = -1  # os.kill is an event as well
            os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(count)
    act()
    os._exit(0)

def reset():
    shutil.rmtree(folder)
    shutil.copytree(old, folder)

def held():
    "Say which model loads, all files compared, now and after the next run that writes."
    info = bundle.load_info(folder)
    for name in info["sha256"]:
        assert bundle.read_checked(folder / name, info).decode() == f"{info['name']} {name}"
    with bundle.replacing(folder):
        pass
    assert bundle.load_info(folder) == info
    names = {path.name for path in folder.iterdir()} - {"README.md", "seven", f".{bundle.JSON}.lock"}
    assert (folder / "README.md").read_text() == "stays" and (folder / "seven").is_dir()
    assert names == {*info["sha256"], bundle.JSON}, names
    return info["name"]

found = []
while killed_at(len(found) + 1, replace):
    found.append(held())
    reset()
first_new = found.index("new")
assert found == ["old"] * first_new + ["new"] * (len(found) - first_new), found
print("writer", first_new, len(found))

step = 0
while True:  # the next run, which moves the rest into place, is killed as well
    reset()
    assert killed_at(first_new + 1, replace)
    step += 1
    def write():
        with bundle.replacing(folder):
            pass
    if not killed_at(step, write):
        break
    assert held() == "new"
print("next", step)
"""


@pytest.fixture
def places(tmp_path):
    """Two bundles, `old` with exports, a note and a folder of another model beside it, and a copy of that."""
    old, new, folder = (tmp_path / name for name in ("old", "new", "folder"))
    for place in (old, new):
        place.mkdir()
        names = [f"{NAME}.keras", "scaler.pkl", f"{NAME}.tflite"]
        names += [f"{NAME}.onnx", f"{NAME}_int8.tflite", "emotion_crop.tflite"] * (place == old)
        for name in names:
            (place / name).write_text(f"{place.name} {name}", encoding="utf-8")
        features = {"kind": "raw", "points": 468, "blendshapes": False}
        about = {"name": place.name, "classes": ["happy", "sad"], "features": features, "threshold": 0.5}
        write_json(place / JSON, about | {"sha256": digests(place)})
    (old / "README.md").write_text("stays", encoding="utf-8")
    (old / "seven").mkdir()
    shutil.copytree(old, folder)
    return old, new, folder


@posix
def test_killed_at_any_step_the_old_or_the_new_model_is_there(places):
    done = subprocess.run(
        [sys.executable, "-c", STEPS, *places],
        env=os.environ | {"PYTHONPATH": str(ROOT / "scr")},
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (_, first_new, steps), (_, next_steps) = map(str.split, done.stdout.splitlines())
    assert 20 < int(first_new) < int(steps) - 5 and int(next_steps) > 5


@pytest.mark.usefixtures("system")
def test_what_reads_while_a_bundle_is_replaced_sees_one_model(places):
    old, new, folder = places
    stop, seen = threading.Event(), []

    def replace():
        for number, source in enumerate([new, old] * 25):
            until = len(seen) + 2
            while len(seen) < until:  # the second of them began after the last replacement
                time.sleep(0.001)
            with replacing(folder) as staging:
                for path in source.iterdir():
                    if path.name in OWN:
                        shutil.copyfile(path, staging / path.name)
                write_json(staging / JSON, load_info(source) | {"number": number})
        stop.set()

    writer = threading.Thread(target=replace)
    writer.start()
    while not stop.is_set() and writer.is_alive():
        seen.append(find_model(folder).info["name"])
    writer.join()
    assert stop.is_set() and set(seen) == {"old", "new"}


@pytest.mark.usefixtures("system")
def test_a_new_model_loads_though_the_old_ones_files_are_in_use(places):
    """On Windows no file that is open is replaced or removed."""
    old, new, folder = places
    with (folder / f"{NAME}.tflite").open("rb"):
        with replacing(folder) as staging:
            for path in new.iterdir():
                shutil.copyfile(path, staging / path.name)
        assert find_model(folder).parts[folder / f"{NAME}.tflite"].startswith(b"new")
    with replacing(folder):
        pass
    files = {path.name for path in folder.iterdir() if path.is_file()}
    assert not (folder / NEXT).exists() and {*load_info(new)["sha256"], JSON} <= files
    assert f"{NAME}.onnx" not in files, "the new model has none"


def test_a_save_that_fails_leaves_the_old_model(places):
    _, _, folder = places
    before = load_info(folder)
    with pytest.raises(ZeroDivisionError), replacing(folder) as staging:
        (staging / f"{NAME}.keras").write_bytes(b"half")
        raise ZeroDivisionError
    assert load_info(folder) == before and not (folder / NEXT).exists()


@pytest.mark.usefixtures("system")
def test_a_damaged_model_is_replaced(places):
    _, new, folder = places
    (folder / JSON).write_bytes(b"{")
    with replacing(folder) as staging:
        for path in new.iterdir():
            shutil.copyfile(path, staging / path.name)
    assert find_model(folder).info["name"] == "new"


@posix
def test_a_private_model_is_for_its_owner_alone(places, tmp_path):
    _, new, _ = places
    with replacing(tmp_path / "ann", private=True) as staging:
        for path in new.iterdir():
            shutil.copyfile(path, staging / path.name)
    assert (tmp_path / "ann").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "ann").iterdir()} == {0o600}


def test_an_export_goes_to_no_other_models_folder(places):
    old, new, _ = places
    with pytest.raises(UserError, match="holds another model"), adding(old, load_info(new)):
        pass


@pytest.fixture
def named(places, tmp_path, monkeypatch):
    """A shipped hybrid with `seven` beside it, and personal models of people with unlucky names."""
    old, new, _ = places
    monkeypatch.chdir(tmp_path)
    models, personal = tmp_path / "models", tmp_path / "models" / "personal"
    monkeypatch.setattr(bundle, "MODELS", models)
    monkeypatch.setattr(bundle, "PERSONAL_MODELS", personal)
    for place in (models, models / "seven", personal / "seven", personal / "crop", personal / "ann"):
        shutil.copytree(old, place, dirs_exist_ok=True)
    (models / "mix.tflite").write_bytes(b"")
    monkeypatch.setenv("EMOTION_TRUST_MODEL", "1")
    return personal


@pytest.mark.parametrize(
    "name, place",
    [
        ("ann", "models/personal/ann"),
        ("models/personal/crop", "models/personal/crop"),
        ("models/seven", "models/seven"),
        ("landmarks", "models"),
        ("models:crop", "models"),
        ("models/seven:crop", "models/seven"),
        ("models/mix.tflite", "models/mix.tflite"),
        ("crop", "write --model models/personal/crop or --model models:crop"),
        ("seven", "write --model models/personal/seven or --model models/seven"),
    ],
)
def test_each_model_has_a_name_of_its_own(named, name, place):
    if place.startswith("write"):
        with pytest.raises(UserError) as error:
            find_model(name)
        assert f"{name} means several models; {place}" in str(error.value).replace(os.sep, "/")
    else:
        assert find_model(name).path.resolve() == (named.parents[1] / place).resolve()


def test_who_asks_for_the_former_model_of_seven_is_told_how_to_read_seven(tmp_path, monkeypatch):
    monkeypatch.setattr(bundle, "MODELS", tmp_path)
    with pytest.raises(UserError, match="for all seven, write --classes all instead"):
        find_model("seven")


def test_what_to_write_for_a_personal_model_names_it_alone(named):
    names = [bundle.argument_of(named / name).replace(os.sep, "/") for name in ("ann", "crop", "seven")]
    assert names == ["ann", "models/personal/crop", "models/personal/seven"]
