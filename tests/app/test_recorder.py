"""Recording expressions of one's own: classes, folders, keys, clips, second opinions."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from conftest import DATA, SMILE, frames_of, run, user_error

import record_dataset
from utils.app import recorder as recorder_module
from utils.app.label_check import Doubts
from utils.app.recorder import Recorder
from utils.app.session_plan import SessionPlan
from utils.app.windows import window as windows
from utils.app.windows.recording_view import RecordingView
from utils.config import UserError
from utils.data.recordings import SessionWriter, load_classes, load_subject, store_consent
from utils.faces.crops import CROP_PX
from utils.model.classifier import Prediction
from utils.video.sources import open_source

PORTRAIT = DATA / "astronaut.jpg"


@pytest.fixture(scope="module")
def class_folders(tmp_path_factory):
    """A folder of real faces: a sub-folder for each of two classes of one's own, and one that is no class."""
    root = tmp_path_factory.mktemp("photos")
    frames = frames_of(SMILE)
    for name, indices in {"Mouth Shut": range(0, 20, 6), "grin": range(45, 65, 5), "_old": [0]}.items():
        (root / name).mkdir()
        for index in indices:
            cv2.imwrite(str(root / name / f"{index:03}.png"), frames[index])
    return root


def test_a_stopped_recording_says_what_is_kept(capsys):
    for counts, said in (
        ({"grin": 2, "wink": 0}, "grin 2, wink 0; the same command with --session 1"),
        ({"grin": 0}, ""),
    ):
        with (
            pytest.raises(KeyboardInterrupt),
            record_dataset.telling_kept(SessionPlan(counts, 20, None), "1"),
        ):
            raise KeyboardInterrupt
        assert said in (err := capsys.readouterr().err) and bool(err) == bool(said)


def test_a_folder_of_class_folders_is_recorded_in_one_run(class_folders, tmp_path):
    done = run("record_dataset.py", "--subject", "ann", "--source", class_folders, "--data", tmp_path)
    assert done.returncode == 0, done.stderr
    samples, _ = load_subject("ann", tmp_path)
    assert {sample.label for sample in samples} == {"grin", "mouth shut"} and len(samples) >= 4
    assert load_classes("ann", tmp_path) == ("mouth shut", "grin")
    assert "ann, session 1: mouth shut" in done.stdout and "still wanted" not in done.stdout
    assert f"from other pictures: python scr/record_dataset.py --subject ann --data {tmp_path} --source" in (
        done.stdout
    )
    again = run(
        "record_dataset.py", "--subject", "ann", "--source", PORTRAIT, "--label", "Grin", "--data", tmp_path
    )
    assert again.returncode == 0 and "mouth shut 0, grin 1" in again.stdout, "the classes are kept"
    for arguments, what in (
        (["--label", "wink"], "--label wink is none of ann's classes (mouth shut, grin)"),
        (["--classes", "grin", "wink", "--label", "wink"], "mouth shut of ann is recorded already"),
        (["--classes", "grin", "--label", "grin"], "1 class (grin)"),
    ):
        asked = run(
            "record_dataset.py", "--subject", "ann", "--source", PORTRAIT, *arguments, "--data", tmp_path
        )
        assert what in user_error(asked)
    (tmp_path / "ann" / "classes.json").write_text("{}")
    damaged = run(
        "record_dataset.py", "--subject", "ann", "--source", PORTRAIT, "--label", "grin", "--data", tmp_path
    )
    assert "classes.json is damaged" in user_error(damaged)


def test_what_surely_looks_otherwise_is_kept_and_said_where_nobody_can_be_asked(tmp_path):
    done = run("record_dataset.py", "--source", PORTRAIT, "--label", "fear", "--data", tmp_path)
    assert (
        "fear 1," in done.stdout and "1 of fear look happy to the general model, and are kept" in done.stdout
    )
    assert "--delete-session 1" in done.stdout


class Certain:
    """A general model that is sure that every face is happy."""

    classes, needs_crops = ("happy", "sad"), True

    def predict(self, landmarks, blendshapes, crops):
        assert crops.shape == (1, CROP_PX, CROP_PX), "a hybrid without crops answers by the landmarks alone"
        return Prediction(np.array([[0.95, 0.05]], np.float32))


def open_recorder(folder, classes):
    doubts = Doubts()
    doubts._classifier = Certain()
    writer = SessionWriter("ann", "1", folder)
    recorder = Recorder(writer, SessionPlan(dict.fromkeys(classes, 0), 20), set(), doubts)
    recorder._image = np.zeros((480, 640, 3), np.uint8)
    return recorder, writer


def face(number):
    return SimpleNamespace(
        landmarks=np.full((478, 3), number, np.float32), blendshapes=np.zeros(52, np.float32)
    )


class Window:
    """A window that nobody sees; its keys are those of its class, by how many pictures it has shown."""

    keys: dict[int, str] = {}

    def __init__(self, title):
        self.shown = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def show(self, image):
        self.shown += 1

    def read_key(self, wait_s=0.0):
        return self.keys.get(self.shown, "")


def test_without_consent_nothing_is_stored_and_no_folder_left(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(recorder_module, "Window", Window)
    monkeypatch.setattr(Window, "keys", {2: "q"})
    monkeypatch.setattr(windows, "display_problem", lambda: "")
    with pytest.raises(UserError, match="you did not agree .* nothing is stored"):
        arguments = "--source", str(SMILE), "--data", str(tmp_path), "--classes", "grin", "rest"
        record_dataset.main(record_dataset.build_parser().parse_args(arguments))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("answer, count", [("y", 2), ("n", 0)])
def test_a_doubt_is_asked_about_once_and_obeyed(tmp_path, answer, count):
    view = RecordingView("ann", "1", "", False)
    recorder, writer = open_recorder(tmp_path, ("sad", "happy", "wink"))
    with writer:
        recorder.plan.start_or_stop(0.0)
        recorder.store(face(0), recorder._ask_in_window)
        assert recorder.asked == ("sad", "happy") and not recorder.plan.recording(4.0)
        assert recorder.plan.counts["sad"] == 0 and not recorder.refused, (
            "neither kept nor refused before the answer"
        )
        plain, asked = (
            view.draw(np.zeros((480, 640, 3), np.uint8), None, recorder.plan, "", 4.0, text)[:50].copy()
            for text in ("", "this looks happy: keep it as sad?")
        )
        assert (plain != asked).any()
        recorder.press("2", 5.0, view)
        assert recorder.asked and recorder.plan.label == "sad", "the question comes first"
        recorder.press(answer, 5.0, view)
        assert recorder.plan.counting(5.1) and not recorder.asked
        for number in (1, 2):
            recorder.problem = ""
            recorder.store(face(number), recorder._ask_in_window)
        assert recorder.plan.counts["sad"] == count and recorder.refused.get("looks happy", 0) == 2 - count
        for label in ("happy", "wink"):  # it agrees, or knows nothing about the class
            recorder.plan.choose(label)
            recorder.problem = ""  # as each frame begins
            recorder.store(face(len(label)), recorder._ask_in_window)
        assert not recorder.asked and recorder.plan.counts["happy"] == recorder.plan.counts["wink"] == 1


def test_digits_choose_up_to_nine_classes(tmp_path):
    view = RecordingView("ann", "1", "", False)
    recorder, writer = open_recorder(tmp_path, [f"own {number}" for number in range(1, 10)])
    with writer:
        recorder.press("9", 0.0, view)
        assert recorder.plan.label == "own 9"
        recorder.press("0", 0.0, view)
        assert recorder.plan.label == "own 9"


def test_a_clip_shorter_than_a_countdown_is_recorded_from_and_begins_again(tmp_path, monkeypatch):
    """The clip lasts 2.4 s; the user agrees, waits for the smile, records to the end and again after it."""
    monkeypatch.setattr(recorder_module, "Window", Window)
    end = 2 * 72 - 5
    monkeypatch.setattr(Window, "keys", {40: "space", 72 + 10: "2", 72 + 15: "space", end: "q"})
    with SessionWriter("ann", "1", tmp_path) as writer:
        store_consent(tmp_path / "ann")
        recorder = Recorder(writer, SessionPlan({"grin": 0, "rest": 0}, 30), set())
        with recorder:
            recorder.run_live(lambda: open_source(str(SMILE)), RecordingView("ann", "1", "", False))
    assert recorder.plan.counts["grin"] >= 2
    assert recorder.plan.counts["rest"] >= 1 and not recorder._landmarkers
