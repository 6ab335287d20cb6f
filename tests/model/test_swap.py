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
from utils.model.bundle import digests, find_model, load_info
from utils.model.swap import JSON, NAME, NEXT, OWN, replacing
from utils.training.export import adding

posix = pytest.mark.skipif(os.name != "posix", reason="forks and kills")

# Killed before each change of the file system, in a forked process: so each costs little.
STEPS = """
import os, shutil, signal, sys
from pathlib import Path
from utils.model import bundle, swap

CHANGES = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir"}
old, new, folder = map(Path, sys.argv[1:])

def replace():
    from utils.files import atomic_path, write_json
    from utils.data.checks import read_json
    with swap.replacing(folder) as staging:
        for path in new.iterdir():
            if path.name in swap.OWN:
                with atomic_path(staging / path.name) as partial:
                    shutil.copyfile(path, partial)
        write_json(staging / swap.JSON, read_json(new / swap.JSON))

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
    "Say which model the folder holds, all files compared; the folder is as if nothing had happened."
    info = bundle.load_info(folder)
    for name in info["sha256"]:
        bundle.read_checked(folder / name, info)
    hidden = [path.name for path in folder.iterdir() if path.name.startswith(".")]
    assert not hidden, hidden
    names = {path.name for path in folder.iterdir()} - {"README.md", "seven"}
    assert (folder / "README.md").read_text() == "stays" and (folder / "seven").is_dir()
    assert names & swap.OWN == set(info["sha256"]), names
    return info["name"]

found = []
while killed_at(len(found) + 1, replace):
    found.append(held())
    reset()
first_new = found.index("new")
assert found == ["old"] * first_new + ["new"] * (len(found) - first_new), found
print("writer", first_new, len(found))

step = 0
while True:  # the one that completes it is killed as well
    reset()
    assert killed_at(first_new + 1, replace)
    step += 1
    if not killed_at(step, lambda: swap.settle(folder)):
        break
    assert held() == "new"
print("reader", step)
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
            (place / name).write_text(f"{place.name} {name}")
        features = {"kind": "raw", "points": 468, "blendshapes": False}
        about = {"name": place.name, "classes": ["happy", "sad"], "features": features, "threshold": 0.5}
        write_json(place / JSON, about | {"sha256": digests(place)})
    (old / "README.md").write_text("stays")
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
    (_, first_new, steps), (_, reader_steps) = map(str.split, done.stdout.splitlines())
    assert 20 < int(first_new) < int(steps) - 5 and int(reader_steps) > 5


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
    while not stop.is_set():
        seen.append(find_model(folder).info["name"])
    writer.join()
    assert set(seen) == {"old", "new"}


def test_a_save_that_fails_leaves_the_old_model(places):
    _, _, folder = places
    before = load_info(folder)
    with pytest.raises(ZeroDivisionError), replacing(folder) as staging:
        (staging / f"{NAME}.keras").write_bytes(b"half")
        raise ZeroDivisionError
    assert load_info(folder) == before and not (folder / NEXT).exists()


def test_an_export_goes_to_no_other_models_folder(places):
    old, new, _ = places
    with pytest.raises(UserError, match="holds another model"), adding(old, load_info(new)):
        pass
