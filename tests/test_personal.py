"""Recordings are never lost and never leak; fine-tuning is judged on a held-out session and leaves the base model alone."""

import json
import os
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
from conftest import DEMO, ROOT, SEGMENTS, SMILE, frames_of, run, user_error

from train_personal import make_folds
from utils.classifier import NAME, EmotionClassifier
from utils.config import EMOTIONS, UserError
from utils.recordings import SampleFilter, SessionWriter, count_labels, list_sessions, load_subject, read_session


def write(folder, session, count, label="happy", subject="ann"):
    generator = np.random.default_rng(len(session) + count)
    faces = generator.normal(size=(count, 478, 3)).astype(np.float32), generator.random((count, 52), np.float32)
    with SessionWriter(subject, session, folder) as writer:
        for landmarks, blendshapes in zip(*faces):
            writer.append(landmarks, blendshapes, label)
    return writer.path, faces


def test_recording_round_trip_is_exact(tmp_path):
    path, (landmarks, blendshapes) = write(tmp_path, "1", 3)
    samples, dropped = read_session(path)
    assert dropped == 0 and [sample.label for sample in samples] == ["happy"] * 3
    np.testing.assert_array_equal([sample.landmarks for sample in samples], landmarks)
    np.testing.assert_array_equal([sample.blendshapes for sample in samples], blendshapes)
    assert (samples[0].subject, samples[0].session) == ("ann", "1") and samples[0].time[:2] == "20"


def test_a_torn_line_and_a_flipped_bit_cost_one_sample_each(tmp_path):
    path, _ = write(tmp_path, "1", 4)
    data = bytearray(path.read_bytes())
    data[len(data) // 8] ^= 1
    path.write_bytes(data[:-100])
    samples, dropped = read_session(path)
    assert (len(samples), dropped) == (2, 2)
    write(tmp_path, "1", 1, "sad")  # the next run begins on a line of its own
    samples, dropped = read_session(path)
    assert (len(samples), dropped) == (3, 2) and samples[-1].label == "sad"


def test_a_refusing_disk_is_said_and_leaves_whole_lines(tmp_path, monkeypatch):
    with SessionWriter("ann", "1", tmp_path) as writer:
        writer.append(np.zeros((478, 3)), np.zeros(52), "sad")
        monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(UserError, match="No space left"):
            writer.append(np.zeros((478, 3)), np.zeros(52), "sad")
    assert [len(part) if isinstance(part, list) else part for part in read_session(writer.path)] == [1, 0]


def test_recording_killed_at_any_moment_loses_nothing_that_was_counted(tmp_path):
    code = ("import sys, numpy as np\nfrom pathlib import Path\nfrom utils.recordings import SessionWriter\n"
            "with SessionWriter('ann', '1', Path(sys.argv[1])) as writer:\n"
            "    for number in range(10**6):\n"
            "        writer.append(np.full((478, 3), number), np.zeros(52), 'sad'); print(number, flush=True)\n")
    recorded = 0
    for attempt in range(6):
        process = subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, text=True,
                                   env=os.environ | {"PYTHONPATH": str(ROOT / "scr")})
        process.stdout.readline()
        time.sleep(0.01 + 0.017 * attempt)
        process.send_signal(signal.SIGKILL)
        counted = 1 + len(process.stdout.read().splitlines())
        process.wait()
        samples, dropped = read_session(tmp_path / "ann" / "1.jsonl")
        assert len(samples) - recorded in (counted, counted + 1) and dropped <= attempt + 1
        recorded = len(samples)


def test_names_that_are_paths_are_refused():
    for name in ("../ann", "a/b", "", ".hidden", "x" * 80):
        with pytest.raises(UserError, match="can't be used as a name"):
            SessionWriter(name, "1")


def test_what_would_spoil_the_set_is_refused(portrait):
    from utils.landmarks import FaceLandmarker

    with FaceLandmarker() as landmarker:
        face = landmarker.detect_picture(portrait)[0]
        cut = portrait[:, 195:]
        cut_face = landmarker.detect_picture(cut)[0]
    check = SampleFilter()
    assert check.problem(None, portrait, "happy") == "no face"
    assert check.problem(None, None, "happy") == "unreadable picture"
    assert check.problem(cut_face.landmarks, cut, "happy") == "face cut off"
    assert check.problem(face.landmarks, cv2.GaussianBlur(portrait, (0, 0), 5), "happy") == "blurred"
    assert check.problem(face.landmarks, portrait, "happy") == ""
    check.accept(face.landmarks, "happy")
    assert check.problem(face.landmarks, portrait, "happy") == check.SAME
    assert check.problem(face.landmarks, portrait, "sad") == ""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Two sessions of a subject, recorded by the script from folders of frames of two clips.

    The labels are moved on by one class against those of the base model: a person whom it misreads thoroughly.
    """
    root = tmp_path_factory.mktemp("recorded")
    for emotion, (clip, indices) in SEGMENTS.items():
        frames, indices = frames_of(clip), list(indices)
        emotion = EMOTIONS[(EMOTIONS.index(emotion) + 1) % len(EMOTIONS)]
        for session in ("1", "2"):
            folder = root / "frames" / session / emotion
            folder.mkdir(parents=True)
            for index in indices[int(session) - 1::2]:
                cv2.imwrite(str(folder / f"{index:03}.jpg"), frames[min(index, len(frames) - 1)])
            done = run("record_dataset.py", "--subject", "ann", "--session", session, "--source", folder, "--label", emotion,
                       "--data", root / "personal")
            assert done.returncode == 0, done.stderr
    return root / "personal"


def test_folders_are_recorded_as_landmarks_only(recorded):
    samples, dropped = load_subject("ann", recorded)
    assert dropped == 0 and min(count_labels(samples).values()) >= 6
    assert {path.suffix for path in recorded.rglob("*") if path.is_file()} == {".jsonl"}
    assert [path.stem for path in list_sessions(recorded)] == ["1", "2"]


def test_a_video_is_recorded_without_repeating_still_frames(tmp_path):
    done = run("record_dataset.py", "--subject", "bob", "--source", SMILE, "--label", "neutral", "--data", tmp_path)
    assert done.returncode == 0, done.stderr
    samples, _ = load_subject("bob", tmp_path)
    assert 2 <= len(samples) < 40 and SampleFilter.SAME in done.stdout


def test_list_delete_and_forget_really_delete(tmp_path):
    write(tmp_path, "1", 2)
    write(tmp_path, "2", 1)
    write(tmp_path, "1", 1, subject="bob")
    listed = run("record_dataset.py", "--list", "--data", tmp_path).stdout
    assert "ann, session 1: fear 0, happy 2" in listed and "bob, session 1" in listed
    run("record_dataset.py", "--subject", "ann", "--delete-session", "1", "--data", tmp_path)
    assert [path.parent.name + path.stem for path in list_sessions(tmp_path)] == ["ann2", "bob1"]
    run("record_dataset.py", "--forget", "ann", "--data", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["bob"]
    assert "nothing is stored about ann" in user_error(run("record_dataset.py", "--forget", "ann", "--data", tmp_path))


def test_recording_without_a_display_says_how_to_go_on(tmp_path):
    assert "--label happy" in user_error(run("record_dataset.py", "--source", DEMO, "--data", tmp_path))
    assert "no file or folder" in user_error(run("record_dataset.py", "--source", "nowhere", "--label", "sad", "--data", tmp_path))


def test_fine_tuning_compares_on_a_held_out_session_and_keeps_the_base(recorded, bundle, tmp_path):
    before = {path.name: path.read_bytes() for path in bundle.iterdir()}
    done = run("train_personal.py", "--subject", "ann", "--data", recorded, "--base", bundle, "--output", tmp_path / "ann")
    assert done.returncode == 0, done.stderr
    assert {path.name: path.read_bytes() for path in bundle.iterdir()} == before
    for row in ("base model", "from scratch", "fine-tuned: last layer", "by inner validation"):
        assert row in done.stdout
    info = json.loads((tmp_path / "ann" / f"{NAME}.json").read_text())
    reports = info["metrics"]["held_out"]
    samples, _ = load_subject("ann", recorded)
    assert info["name"] == "ann" and reports["base"]["faces"] == len(samples)
    assert reports["picked"]["balanced_accuracy"] > reports["base"]["balanced_accuracy"] + 0.2
    classifier = EmotionClassifier(tmp_path / "ann")
    faces = (np.stack([getattr(sample, name) for sample in samples]) for name in ("landmarks", "blendshapes"))
    label = np.array([EMOTIONS.index(sample.label) for sample in samples])
    assert classifier.name == "ann" and (classifier.predict(*faces).argmax(axis=1) == label).mean() > 0.8


def test_the_base_model_is_never_overwritten(recorded, bundle):
    assert "never overwritten" in user_error(
        run("train_personal.py", "--subject", "ann", "--data", recorded, "--base", bundle, "--output", bundle))


def test_unknown_subject_and_too_few_samples_are_one_line(recorded, bundle, tmp_path):
    assert "recorded: ann" in user_error(run("train_personal.py", "--subject", "zoe", "--data", recorded, "--base", bundle))
    write(tmp_path, "1", 3)
    assert "too few recordings" in user_error(run("train_personal.py", "--subject", "ann", "--data", tmp_path, "--base", bundle))


def test_held_out_is_a_session_or_a_block_in_time():
    label = np.array([0] * 9 + [1] * 6)
    folds, _ = make_folds(label, np.array(["a"] * 7 + ["b"] * 8))
    assert [sorted(test) for _, test in folds] == [[0, 1, 2, 3, 4, 5, 6]], "a fold whose training part lacks a class is no test"
    (train, test), = make_folds(label, np.array(["a"] * 15))[0]
    assert sorted(test) == [6, 7, 8, 13, 14] and not set(train) & set(test)
    assert max(row for row in train if label[row] == 0) < min(row for row in test if label[row] == 0)
