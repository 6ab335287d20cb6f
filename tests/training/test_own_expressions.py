"""The whole way for own classes, by the command line: record, train, judge what was held out, read live."""

import csv
import json

import cv2
import numpy as np
import pytest
from conftest import DEMO, SMILE, frames_of, load_subject, run, run_here, user_error

from utils.data.recordings import open_recordings
from utils.faces.landmarker import FaceLandmarker

OPEN, SHUT = "mouth open", "mouth shut"


def lip_gap(landmarks):
    """Return the distance between the lips' inner edges as a share of the mouth's width.

    No blendshape tells it: mouthUpperUp takes lips that are parted over the teeth for shut ones if the upper
    one is not raised, jawOpen a broad smile.
    """
    upper, lower, left, right = landmarks[[13, 14, 61, 291], :2]
    return np.linalg.norm(upper - lower) / np.linalg.norm(left - right)


def label_frames(clip, stride):
    """Return (index, frame, label) of a clip's frames that plainly show an open or a shut mouth."""
    labelled = []
    landmarker = FaceLandmarker()
    for index, frame in list(enumerate(frames_of(clip)))[::stride]:
        faces = landmarker.detect_picture(frame)
        gap = lip_gap(faces[0].landmarks) if faces else 0.1
        if gap > 0.2 or gap < 0.05:
            labelled.append((index, frame, OPEN if gap > 0.2 else SHUT))
    return labelled


def thirds(frames):
    """Return labelled frames in three parts, of each label the first, the middle and the last in time."""
    parts = [], [], []
    for label in (OPEN, SHUT):
        of_label = [frame for frame in frames if frame[2] == label]
        for number, part in enumerate(parts):
            part += of_label[number * len(of_label) // 3 : (number + 1) * len(of_label) // 3]
    return parts


def record_and_train(root):
    """Record two sessions (first and middle thirds of both clips) and train on them, as a user would.

    Returns what the training printed, and the last thirds, which nothing was recorded of.
    """
    held_out = []
    for clip, stride in ((DEMO, 6), (SMILE, 2)):
        *sessions, last = thirds(label_frames(clip, stride))
        held_out.append(last)
        for session, frames in zip("12", sessions):
            for index, frame, label in frames:
                folder = root / "frames" / session / label
                folder.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(folder / f"{clip.stem}{index:03}.png"), frame)
    for session in "12":
        source = ["--source", root / "frames" / session, "--session", session, "--classes", OPEN, SHUT]
        done = run("record_dataset.py", "--subject", "ann", "--consent", *source, "--data", root / "personal")
        assert done.returncode == 0, done.stderr
    arguments = "--subject", "ann", "--data", root / "personal", "--output", root / "model"
    done = run_here("train_personal.py", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout, held_out


def write_clips(folder, held_out):
    """Write the frames held out of each clip as a video."""
    folder.mkdir()
    for number, frames in enumerate(held_out):
        height, width = frames[0][1].shape[:2]
        writer = cv2.VideoWriter(
            str(folder / f"{number}.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, (width, height)
        )
        for _, frame, _ in frames:
            writer.write(frame)
        writer.release()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of recordings and model, what the training printed, and the frames held out."""
    root = tmp_path_factory.mktemp("own")
    return root, *record_and_train(root)


def test_a_bundle_of_own_classes_is_judged_on_sessions_held_out(trained):
    root, printed, _ = trained
    info = json.loads((root / "model" / "emotion_mlp.json").read_text())
    assert info["classes"] == [OPEN, SHUT] and info["threshold"] < 0.9
    assert "held out, each session in turn" in printed and "guessing is right on 50%" in printed
    assert (root / "model" / "confusion_matrix.png").is_file()
    assert info["metrics"]["test"]["balanced_accuracy"] >= 0.9


def test_what_was_not_recorded_is_read_live(trained, tmp_path):
    """The last thirds of the clips, as videos: the model saw neither these frames nor their neighbours."""
    root, _, held_out = trained
    clips = tmp_path / "clips"
    write_clips(clips, held_out)
    table = tmp_path / "read.csv"
    live = ["--source", clips, "--model", root / "model", "--no-display", "--smoothing-ms", 0]
    read = run("main.py", *live, "--output", table)
    assert read.returncode == 0, read.stderr
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    shown = [(number, *frame) for number, frames in enumerate(held_out) for frame in frames]
    assert len(rows) == len(shown) and list(rows[0])[-2:] == [OPEN, SHUT]
    wrong = [
        f"{index} of clip {number}: {label}, read {row[label]}"
        for row, (number, index, _, label) in zip(rows, shown)
        if max((OPEN, SHUT), key=lambda name, row=row: float(row[name] or 0)) != label
    ]
    assert len(shown) > 25 and len(wrong) <= 0.05 * len(shown), f"{wrong} of {len(shown)} frames"


def test_recordings_that_contradict_each_other_make_no_model_and_say_what_to_record_again(trained, tmp_path):
    """Labels that say nothing about the face: guessing can't be beaten."""
    faces = load_subject("ann", trained[0] / "personal")
    for session in ("1", "2"):
        with open_recordings("bob", tmp_path) as store:
            for number, face in enumerate(faces[:40]):
                label = ("wink", "kiss")[(number // 2 + int(session)) % 2]
                store.append(session, face.landmarks, face.blendshapes, label)
    arguments = "--subject", "bob", "--data", tmp_path, "--output", tmp_path / "model"
    error = user_error(run_here("train_personal.py", *arguments))
    assert "nothing is surely better than guessing" in error and "is taken for" in error
    assert not (tmp_path / "model" / "emotion_mlp.json").exists()
    command = error.rpartition(": ")[2].split()
    assert command[:2] == ["python", "scr/record_dataset.py"]
    again = run("record_dataset.py", *command[2:], "--consent", "--source", SMILE, "--label", "wink")
    assert again.returncode == 0, "the command that it names works"
