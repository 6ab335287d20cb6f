"""The page in a real Chromium with a fake camera: the predictions of Python, nothing sent, no blank page."""

import csv
import json
import os
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import DATA, DEMO, ROOT, SMILE, frames_of, run_here

from utils.app import web_page
from utils.config import MODELS, UserError

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
CLIPS = {"smile": (SMILE, 50), "demo": (DEMO, 40)}
"""Clips whose predictions are compared, and how many of their frames."""
CHECKS = "vector clips looks badFiles badModels use vocabularies cameraProblems offline".split()
HOSTILE = '<img src="https://example.org/x.png" onerror="document.title=1">'


def missing() -> str:
    """Return what the tests need and is not there, or ""."""
    if CHROMIUM is None or shutil.which("node") is None:
        return "needs Chromium and Node.js"
    command = ["node", "-e", "require.resolve('playwright-core')"]
    if subprocess.run(command, cwd=ROOT, capture_output=True).returncode:
        return "needs playwright-core (npm install playwright-core, or NODE_PATH)"
    return ""


WANTED = missing()
pytestmark = pytest.mark.skipif(bool(WANTED), reason=WANTED)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with the shipped model's page (`page`), clips and pictures."""
    folder = tmp_path_factory.mktemp("page")
    try:
        web_page.write_page(MODELS, folder / "page")
    except UserError as error:
        if "npm" not in str(error):
            raise
        pytest.skip(str(error))
    for name, path in {"group.jpg": "group", "portrait.jpg": "astronaut"}.items():
        shutil.copy(DATA / f"{path}.jpg", folder / name)
    shutil.copy(DATA / "group.jpg", folder / "page")
    shutil.copy(SMILE, folder)
    shutil.copy(ROOT / "docs" / "test_vector.json", folder)
    write_camera_clip(folder / "clip.y4m")
    write_clips(folder / "page")
    write_bad_files(folder / "bad")
    model = (folder / "page" / "model.json").read_text()
    (folder / "models.json").write_text(json.dumps(bad_models(model)))
    (folder / "choices.json").write_text(json.dumps(model_of_choices(model)))
    return folder


def write_camera_clip(path: Path) -> None:
    """Write what the fake camera shows."""
    frames = frames_of(SMILE)
    height, width = frames[0].shape[:2]
    with path.open("wb") as file:
        file.write(b"YUV4MPEG2 W%d H%d F30:1 Ip A1:1 C420jpeg\n" % (width, height))
        for frame in frames:
            file.write(b"FRAME\n" + cv2.cvtColor(frame, cv2.COLOR_BGR2YUV_I420).tobytes())


def write_clips(page: Path) -> None:
    """Put the pixels of the clips' frames beside the page: what browsers decode differs by a grey level."""
    clips = {}
    for name, (path, count) in CLIPS.items():
        frames = frames_of(path)[:count]
        rows = read_by_main(path, page.parent)[:count]
        clips[name] = {
            "width": frames[0].shape[1],
            "height": frames[0].shape[0],
            "times": [int(row["timestamp_ms"]) for row in rows],
        }
        for index, frame in enumerate(frames):
            (page / f"{name}-{index}.rgba").write_bytes(cv2.cvtColor(frame, cv2.COLOR_BGR2RGBA).tobytes())
    (page / "clips.json").write_text(json.dumps(clips))


def read_by_main(path: Path, folder: Path) -> list[dict]:
    """Return the rows of main.py for a clip, unsmoothed; one for each frame."""
    table = folder / f"{path.stem}.csv"
    if not table.exists():
        done = run_here("main.py", "--source", path, "--no-display", "--smoothing-ms", 0, "--output", table)
        assert done.returncode == 0, done.stderr
    with table.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write_bad_files(folder: Path) -> None:
    folder.mkdir()
    picture, clip = (DATA / "group.jpg").read_bytes(), SMILE.read_bytes()
    bad = {
        "empty.jpg": b"",
        "noise.png": np.random.default_rng(1).bytes(5000),
        "cut.jpg": picture[:300],
        "cut.mp4": clip[:2000],
        "text.mp4": b"no video",
        "page.html": b"<script>document.title = 1</script>",
        "drawing.svg": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="https://example.org/x"/></svg>',
        "huge.png": picture_header(60_000, 60_000),
        "<img src=x>.jpg": b"name",
    }
    for name, content in bad.items():
        (folder / name).write_bytes(content)


def picture_header(width: int, height: int) -> bytes:
    """Return the start of a PNG that claims a size."""
    whole = cv2.imencode(".png", np.zeros((2, 2, 3), np.uint8))[1].tobytes()
    return whole[:16] + width.to_bytes(4, "big") + height.to_bytes(4, "big") + whole[24:]


def bad_models(text: str) -> list[str]:
    """Return damaged model.json files; the last is whole, with hostile names."""
    info = json.loads(text)
    hostile = info | {"classes": [HOSTILE, *info["classes"][1:]], "name": HOSTILE}
    hostile["colours"] = dict(zip(hostile["classes"], info["colours"].values()))
    hostile["vocabularies"] = [info["vocabularies"][-1] | {"classes": hostile["classes"]}]
    unsure = [info["vocabularies"][0] | {"threshold": "high"}]
    wrong = (
        {"classes": []},
        {"classes": "happy"},
        {"vocabularies": unsure},
        {"parts": {}},
        {"weights": None},
    )
    cut = [text[:100], "", "null", "[]", "{}"]
    return [*cut, *(json.dumps(info | one) for one in wrong), json.dumps(hostile)]


def model_of_choices(text: str) -> dict:
    """Return a model.json with a narrower vocabulary before that of all classes."""
    info = json.loads(text)
    whole = info["vocabularies"][-1]
    return info | {"vocabularies": [whole | {"classes": ["happy", "sad"]}, whole]}


@pytest.fixture(scope="module")
def seen(folder) -> dict:
    """What the browser's checks saw, each by its name."""
    with web_page.serving(folder / "page") as address:
        return browse(address, folder, CHECKS)


def browse(address: str, folder: Path, checks: list[str], **environment: str) -> dict:
    """Return what checks of browser.mjs saw on the page at an address."""
    command = ["node", str(Path(__file__).with_name("browser.mjs")), address, str(folder), *checks]
    environment = os.environ | {"CHROMIUM": CHROMIUM} | environment
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_test_vector_gives_its_probabilities(seen):
    vector = json.loads((ROOT / "docs" / "test_vector.json").read_text(encoding="utf-8"))
    for name, expected in vector["probabilities"].items():
        np.testing.assert_allclose(seen["vector"][name], expected, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("clip", CLIPS)
def test_each_frame_is_read_as_main_reads_it(seen, folder, clip):
    same, differences = compare(seen["clips"][clip], read_by_main(CLIPS[clip][0], folder))
    assert same >= 0.99
    assert np.median(differences) < 0.02
    assert differences.max() < 0.1


def compare(predictions: list, rows: list[dict]) -> tuple[float, np.ndarray]:
    """Return the share of frames of the same label, and the largest difference of a probability on each."""
    assert all(predictions)
    labels = [one[0] == row["emotion"] for one, row in zip(predictions, rows)]
    classes = list(rows[0])[10:]
    expected = np.array([[float(row[name]) for name in classes] for row in rows[: len(predictions)]])
    return np.mean(labels), np.abs(np.array([one[1:] for one in predictions]) - expected).max(axis=1)


def test_camera_pictures_and_videos_are_read(seen, folder):
    use = seen["use"]
    assert use["camera"] in {"happy", "neutral", "uncertain"}
    assert use["portrait"].endswith("happy")
    assert use["video"] in {"happy", "neutral"}
    assert use["group"] == 5
    assert use["stopped"]
    assert use["cameras"] >= 2
    assert use["mirrored"] == "false"  # as key m made it; a camera begins mirrored
    assert use["readWhilePaused"] == 0
    assert use["announced"] <= 3  # to screen readers, of some 50 frames


def test_table_and_picture_are_saved(seen, folder):
    rows = list(csv.DictReader(seen["use"]["csv"].splitlines()))
    assert list(rows[0]) == [*web_page.table.COLUMNS, "fear", "happy", "neutral", "sad"]
    assert len(rows) >= 40 and rows[-1]["source"] == "camera"
    times = [int(row["timestamp_ms"]) for row in rows]
    assert times == sorted(times)
    assert cv2.imread(str(folder / "saved.png")).shape == frames_of(SMILE)[0].shape


def test_the_expressions_to_tell_apart_can_be_chosen(seen, folder):
    whole = json.loads((folder / "choices.json").read_text())["classes"]
    found = seen["vocabularies"]
    assert found["first"] == [["happy", "sad"], "2"]
    assert found["chosen"] == found["all"] == [whole, str(len(whole))]
    assert found["emotion"].endswith("happy") and found["shares"] == pytest.approx(100, abs=3)


def test_nothing_leaves_and_nothing_is_complained_of(seen):
    assert seen["use"]["outside"] == []
    assert seen["use"]["complaints"] == []
    assert seen["use"]["refused"] == "connect-src"  # another address, by the page's policy
    assert seen["use"]["message"] == "<b>group.jpg"  # as text


def test_it_opens_without_a_network(seen):
    assert seen["offline"] == {"emotion": "0  happy"}


def test_what_fails_with_a_camera_is_a_line(seen):
    messages = seen["cameraProblems"]
    fragments = {
        "NotAllowedError": "refused",
        "NotFoundError": "No camera",
        "NotReadableError": "busy",
        "OverconstrainedError": "gone",
        "OddError": "does not start",
        "insecure": "https://",
        "unplugged": "disconnected",
        "back": "",
    }
    for name, fragment in fragments.items():
        assert fragment in messages[name], name
    assert messages["turned"] == [360, 360]
    assert messages["complaints"] == []


def test_a_file_that_is_no_picture_is_a_line(seen):
    assert len(seen["badFiles"]["messages"]) == 9
    for name, message in seen["badFiles"]["messages"].items():
        assert message.startswith(f"{name} can't be read"), name
    assert seen["badFiles"]["after"] == "0  happy"
    assert seen["badFiles"]["complaints"] == []


def test_a_damaged_model_is_a_line_and_names_are_text(seen):
    *damaged, hostile, network = seen["badModels"]
    assert len(damaged) == 10
    assert "networks/crop.tflite is damaged" in network
    assert all(message.startswith("The page can't start: ") for message in damaged)
    assert hostile["names"][0] == HOSTILE
    assert (hostile["title"], hostile["elements"]) == ("Facial expressions", 0)


def test_it_can_be_read_at_three_widths_in_both_themes(seen):
    assert len(seen["looks"]) == 6
    for look in seen["looks"]:
        assert (look["low"], look["unnamed"], look["overflow"]) == ([], 0, 0), look
