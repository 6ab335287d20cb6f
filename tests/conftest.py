"""Real faces for the tests: a portrait, a group, two clips; no camera, no network, no GPU."""

import contextlib
import importlib
import io
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import windows_rules as rules

from utils.config import UserError
from utils.data.face_set import load_face_set
from utils.data.recordings import open_recordings
from utils.model.bundle import JSON, load_info

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "tests" / "assets"
DEMO = ROOT / "assets" / "demo.mp4"
SMILE = DATA / "smile.mp4"

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # started in the background: scripts would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

SEGMENTS = {  # class -> where its frames come from; the labels only drive the pipeline
    "sad": (DEMO, range(130, 235, 7)),
    "happy": (DEMO, range(350, 470, 8)),
    "fear": (DEMO, range(235, 340, 7)),
    "neutral": (SMILE, range(0, 70, 5)),
}


def run(script: str, *args, cwd=None, env=None, timeout: int = 300) -> subprocess.CompletedProcess:
    """Run a script as a user would, without a display; returns the process with its output as text."""
    surroundings = {
        key: value for key, value in os.environ.items() if key not in ("DISPLAY", "WAYLAND_DISPLAY")
    }
    return subprocess.run(
        [sys.executable, str(ROOT / "scr" / script), *map(str, args)],
        cwd=cwd or ROOT,
        encoding=(surroundings | (env or {})).get("PYTHONIOENCODING", "utf-8"),
        capture_output=True,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
        env=surroundings | (env or {}),
    )


def run_here(script: str, *args, cwd=None) -> subprocess.CompletedProcess:
    """Run a script's `main` in this process: TensorFlow, which takes seconds to load, is loaded once for all.

    Returns what `run` would. Not for what concerns the process: signals, streams, which packages are loaded.
    """
    module = importlib.import_module(script.removesuffix(".py"))
    code, output, errors = 0, io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
        contextlib.chdir(cwd or ROOT),
    ):
        try:
            module.main(module.build_parser().parse_args([str(argument) for argument in args]))
        except UserError as error:
            code = 1
            print(f"error: {error}", file=sys.stderr)
    return subprocess.CompletedProcess([script, *args], code, output.getvalue(), errors.getvalue())


def load_subject(subject: str, folder: Path) -> list:
    """Return the recorded samples of a subject."""
    with open_recordings(subject, folder, to_read=True) as recordings:
        return recordings.samples()


def user_error(done: subprocess.CompletedProcess) -> str:
    """Return the one line of a `UserError`; fails if the script ended in any other way."""
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, done.stderr
    return lines[0]


def frames_of(path: Path) -> list[np.ndarray]:
    """Return all frames of a clip, BGR."""
    capture, frames = cv2.VideoCapture(str(path)), []
    while (read := capture.read())[0]:
        frames.append(read[1])
    capture.release()
    return frames


@pytest.fixture
def windows_rules(monkeypatch, tmp_path_factory):
    """The rules of Windows, as far as `windows_rules.py` knows them, for this process and those it starts."""
    if os.name == "nt":
        return
    if sys.platform != "linux":
        pytest.skip("needs /proc")
    for name, value in rules.prepare_processes(tmp_path_factory.mktemp("windows")).items():
        monkeypatch.setenv(name, value)
    rules.install(monkeypatch)


@pytest.fixture(params=["here", "windows"])
def system(request):
    """Runs a test twice: by the rules of this system, and by those of Windows."""
    if request.param == "windows":
        request.getfixturevalue("windows_rules")


def read_pictures(path: Path) -> int:
    """Return how many pictures of a set are read, though a run is writing it."""
    uri = f"{path.as_uri()}?mode=ro&immutable=1"
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(uri, uri=True)) as file:
        return file.execute("SELECT COUNT(*) FROM picture WHERE reason IS NOT NULL").fetchone()[0]
    return 0


def assert_same_sets(one: Path, other: Path) -> None:
    """Fail unless two files hold the same set of faces."""
    for name, values in vars(load_face_set(one)).items():
        np.testing.assert_array_equal(values, getattr(load_face_set(other), name), err_msg=name)


@pytest.fixture(scope="session")
def portrait() -> np.ndarray:
    return cv2.imread(str(DATA / "astronaut.jpg"))


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> Path:
    """Folders `<part>/<emotion>/*.png` of real faces: 15 of each class, varied in crop, size and tilt."""
    root = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    clips = {path: frames_of(path) for path in (DEMO, SMILE)}
    for emotion, (clip, indices) in SEGMENTS.items():
        for number, index in enumerate(indices):
            frame = clips[clip][min(index, len(clips[clip]) - 1)]
            height, width = frame.shape[:2]
            turn = cv2.getRotationMatrix2D(
                (width / 2, height / 2), generator.uniform(-20, 20), generator.uniform(0.7, 1.0)
            )
            turn[:, 2] += generator.uniform(-20, 20, 2)
            frame = cv2.warpAffine(frame, turn, (width, height), borderMode=cv2.BORDER_REPLICATE)
            folder = root / ("Test" if number % 5 == 4 else "Train") / emotion.capitalize()
            folder.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / f"face_{index:03}.png"), frame)
    return root


@pytest.fixture(scope="session")
def landmark_file(pictures, tmp_path_factory) -> Path:
    """The landmark set of `pictures`, made by the script."""
    output = tmp_path_factory.mktemp("landmarks") / "faces.faces"
    done = run("extract_landmarks.py", "--images", pictures, "--output", output)
    assert done.returncode == 0, done.stderr
    return output


@pytest.fixture(scope="session")
def many_pictures(pictures, tmp_path_factory) -> Path:
    """The pictures, four times over at other sizes: for several parts; and three that can't be read."""
    root = tmp_path_factory.mktemp("many")
    for path in sorted(pictures.rglob("*.png")):
        frame = cv2.imread(str(path))
        for scale in (0.3, 0.4, 0.5, 0.6):
            folder = root / path.parent.name
            folder.mkdir(exist_ok=True)
            cv2.imwrite(str(folder / f"{path.stem}_{scale}.jpg"), cv2.resize(frame, None, fx=scale, fy=scale))
    (root / "Happy" / "empty.jpg").write_bytes(b"")
    (root / "Happy" / "garbage.jpg").write_bytes(b"\xff\xd8garbage" * 50)
    cv2.imwrite(str(root / "Sad" / "tiny.png"), np.zeros((8, 8, 3), np.uint8))
    return root


@pytest.fixture(scope="session")
def whole_file(many_pictures, tmp_path_factory) -> Path:
    """The landmark set of `many_pictures`, made by a run that nothing disturbs."""
    output = tmp_path_factory.mktemp("whole") / "whole.faces"
    done = run("extract_landmarks.py", "--images", many_pictures, "--jobs", 2, "--output", output)
    assert done.returncode == 0, done.stderr
    for reason in ("2 unreadable", "1 too small"):
        assert reason in done.stdout
    return output


@pytest.fixture(scope="session")
def bundle(landmark_file, tmp_path_factory) -> Path:
    """A model trained for two epochs on `pictures`, made by the script."""
    output = tmp_path_factory.mktemp("bundle")
    done = run_here("train_model.py", "--data", landmark_file, "--output", output, "--epochs", 2)
    assert done.returncode == 0, done.stderr
    return output


@pytest.fixture(scope="session")
def seven(tmp_path_factory) -> Path:
    """A copy of the shipped model, of seven classes, which is read out by four unless asked for more."""
    folder, models = tmp_path_factory.mktemp("seven"), ROOT / "models"
    for name in (JSON, *load_info(models)["sha256"]):
        shutil.copy(models / name, folder)
    return folder
