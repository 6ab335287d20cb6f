"""Recordings are never lost and never leak; fine-tuning is judged on a held-out session and leaves the
base model alone."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from conftest import DATA, DEMO, ROOT, SEGMENTS, SMILE, frames_of, run, user_error

from record_dataset import open_view
from utils.app.recorder import Recorder
from utils.app.session_plan import COUNTDOWN_S, RECORD_S, SessionPlan
from utils.config import EMOTIONS, UserError
from utils.data.recordings import (
    SampleFilter,
    SessionWriter,
    count_labels,
    list_sessions,
    load_neutral,
    load_subject,
    read_session,
    save_neutral,
)


def write(folder, session, count, label="happy", subject="ann"):
    generator = np.random.default_rng(len(session) + count)
    faces = (
        generator.normal(size=(count, 478, 3)).astype(np.float32),
        generator.random((count, 52), np.float32),
    )
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
    assert (samples[0].subject, samples[0].session) == ("ann", "1") and samples[0].time.year >= 2026


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
        monkeypatch.setattr(
            os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device"))
        )
        with pytest.raises(UserError, match="No space left"):
            writer.append(np.zeros((478, 3)), np.zeros(52), "sad")
    assert [len(part) if isinstance(part, list) else part for part in read_session(writer.path)] == [1, 0]


FULL = {  # both leave room for three samples and a half; then there is room again
    "file size limit": "(ulimit -f 38; {record}); status=$?; ",
    "full disk": "mount -t tmpfs -o size=44k none {data} || exit 77; {record}; status=$?; "
    "mount -o remount,size=9m {data}; ",
}


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
@pytest.mark.parametrize("kind", FULL)
def test_a_full_disk_costs_the_sample_being_written_and_no_other(recorded, tmp_path, kind):
    data = tmp_path / "personal"
    data.mkdir()
    record = (
        f"{sys.executable} {ROOT}/scr/record_dataset.py --subject ann --session 1 --label sad --data {data} "
        f"--source {recorded.parent}/frames/1/sad"
    )
    # What a power cut on top of it would leave.
    torn = f"head -c 4000 {data}/ann/1.jsonl >> {data}/ann/1.jsonl; "
    script = (
        FULL[kind].format(record=record, data=data)
        + f"cp {data}/ann/1.jsonl {tmp_path}/first.jsonl; [ $status = 1 ] || exit 99; "
        + torn
        + f"{record} && cp {data}/ann/1.jsonl {tmp_path}/last.jsonl"
    )
    in_namespace = ["unshare", "--user", "--map-root-user", "--mount"] if kind == "full disk" else []
    try:
        done = subprocess.run(
            [*in_namespace, "bash", "-c", script], capture_output=True, text=True, timeout=300
        )
    except FileNotFoundError as missing:
        pytest.skip(f"{missing.filename} is not installed")
    if done.returncode == 77 or "unshare failed" in done.stderr or "unshare:" in done.stderr:
        pytest.skip(f"a file system may not be mounted here: {done.stderr.strip()}")
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    (error,) = (line for line in done.stderr.splitlines() if line.startswith("error: "))
    reason = (
        "No space left on device|the disk is full"
        if kind == "full disk"
        else "File too large|the disk is full"
    )
    assert (
        re.search(reason, error)
        and "samples so far are safe" in error
        and f"--subject ann --data {data} --session 1" in error
    )
    samples, dropped = read_session(tmp_path / "first.jsonl")
    assert (len(samples), dropped) == (3, 0)
    assert "1 damaged sample(s)" in done.stderr and "3 are whole" in done.stderr
    samples, dropped = read_session(tmp_path / "last.jsonl")
    wanted = sum(
        sample.session == "1" and sample.label == "sad" for sample in load_subject("ann", recorded)[0]
    )
    assert (len(samples), dropped) == (wanted, 1), "the next run takes what is missing, and nothing twice"


def test_recording_killed_at_any_moment_loses_nothing_that_was_counted(tmp_path):
    code = (
        "import sys, numpy as np\nfrom pathlib import Path\nfrom utils.data.recordings import SessionWriter\n"
        "with SessionWriter('ann', '1', Path(sys.argv[1])) as writer:\n"
        "    for number in range(10**6):\n"
        "        writer.append(np.full((478, 3), number), np.zeros(52), 'sad'); print(number, flush=True)\n"
    )
    recorded = 0
    for attempt in range(6):
        process = subprocess.Popen(
            [sys.executable, "-c", code, tmp_path],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT / "scr")},
        )
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
    from utils.faces.landmarker import FaceLandmarker

    with FaceLandmarker() as landmarker:
        face = landmarker.detect_picture(portrait)[0]
        cut = portrait[:, 195:]
        cut_face = landmarker.detect_picture(cut)[0]
    check = SampleFilter()
    assert check.problem(None, portrait, "happy") == "no face"
    assert check.problem(None, None, "happy") == "unreadable picture"
    assert check.problem(cut_face, cut, "happy") == "face cut off"
    assert check.problem(face, cv2.GaussianBlur(portrait, (0, 0), 5), "happy") == "blurred"
    assert check.problem(face, portrait, "happy") == ""
    check.accept(face, "happy")
    assert check.problem(face, portrait, "happy") == check.SAME
    assert check.problem(face, portrait, "sad") == ""
    wink = face.blendshapes.copy()
    wink[9] += 0.3  # eyeBlinkLeft
    assert check.problem(SimpleNamespace(landmarks=face.landmarks, blendshapes=wink), portrait, "happy") == ""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Two sessions of a subject, recorded by the script from folders of frames of two clips.

    The labels are moved on by one class against those of the base model: a person whom it misreads
    thoroughly.
    """
    root = tmp_path_factory.mktemp("recorded")
    for emotion, (clip, indices) in SEGMENTS.items():
        frames, indices = frames_of(clip), list(indices)
        emotion = EMOTIONS[(EMOTIONS.index(emotion) + 1) % len(EMOTIONS)]
        for session in ("1", "2"):
            folder = root / "frames" / session / emotion
            folder.mkdir(parents=True)
            for index in indices[int(session) - 1 :: 2]:
                cv2.imwrite(str(folder / f"{index:03}.jpg"), frames[min(index, len(frames) - 1)])
            done = run(
                "record_dataset.py",
                "--subject",
                "ann",
                "--session",
                session,
                "--source",
                folder,
                "--label",
                emotion,
                "--data",
                root / "personal",
            )
            assert done.returncode == 0, done.stderr
    return root / "personal"


def test_folders_are_recorded_as_landmarks_only(recorded):
    samples, dropped = load_subject("ann", recorded)
    assert dropped == 0 and min(count_labels(samples, EMOTIONS).values()) >= 6
    assert {path.suffix for path in recorded.rglob("*") if path.is_file()} == {".jsonl"}
    assert [path.stem for path in list_sessions(recorded)] == ["1", "2"]


def test_a_picture_is_recorded_once_and_mistakes_are_said(recorded, tmp_path):
    picture = DATA / "astronaut.jpg"
    for label, session in (("happy", "1"), ("sad", "2")):
        done = run(
            "record_dataset.py",
            "--source",
            picture,
            "--label",
            label,
            "--subject",
            "zoe",
            "--session",
            session,
            "--data",
            tmp_path,
        )
    said = user_error(done)
    assert "nothing was recorded: 1 already recorded (" in said and "astronaut.jpg)" in said
    assert said.endswith("with other pictures")
    assert [path.stem for path in list_sessions(tmp_path)] == ["1"]
    assert "--subject" in user_error(run("record_dataset.py", "--delete-session", "1", "--data", tmp_path))
    assert "add --label" in user_error(run("record_dataset.py", "--source", picture, "--data", tmp_path))
    (tmp_path / "file").touch()


def test_an_empty_class_folder_stops_no_recording(tmp_path):
    for name in ("fear", "happy"):
        (tmp_path / "frames" / name).mkdir(parents=True)
    shutil.copy(DATA / "astronaut.jpg", tmp_path / "frames" / "happy")
    done = run(
        "record_dataset.py", "--subject", "eve", "--source", tmp_path / "frames", "--data", tmp_path / "data"
    )
    assert done.returncode == 0 and "left out, nothing in: fear" in done.stderr and "happy 1" in done.stdout


def test_a_video_is_recorded_without_repeating_still_frames(tmp_path):
    done = run(
        "record_dataset.py", "--subject", "bob", "--source", SMILE, "--label", "neutral", "--data", tmp_path
    )
    assert done.returncode == 0, done.stderr
    samples, _ = load_subject("bob", tmp_path)
    assert 2 <= len(samples) < 40 and "nearly the same face as the last one" in done.stdout
    assert f"--data {tmp_path} --source OTHER_FILE --label neutral" not in done.stdout, "one class is no set"
    assert (
        "not recorded yet: fear, happy, sad; to add it: python scr/record_dataset.py --subject bob "
        f"--data {tmp_path} --session 1 --source OTHER_FILE --label fear"
    ) in done.stdout


def test_list_delete_and_forget_really_delete(tmp_path):
    write(tmp_path, "1", 2)
    write(tmp_path, "2", 1)
    write(tmp_path, "1", 1, subject="bob")
    kept = np.zeros((5, 478, 3), np.float32), np.zeros((5, 52), np.float32)
    save_neutral("ann", *kept, tmp_path)
    np.testing.assert_array_equal(load_neutral("ann", tmp_path)[1], kept[1])
    listed = run("record_dataset.py", "--list", "--data", tmp_path).stdout
    assert "ann, session 1: fear 0, happy 2" in listed and "bob, session 1" in listed
    assert "ann, neutral face" in listed and "bob, neutral" not in listed
    run("record_dataset.py", "--subject", "ann", "--delete-session", "1", "--data", tmp_path)
    assert [path.parent.name + path.stem for path in list_sessions(tmp_path)] == ["ann2", "bob1"]
    forget = "record_dataset.py", "--data", tmp_path, "--forget", "ann"
    assert "add --yes" in user_error(run(*forget)), "nobody to ask"
    assert answer_forget(tmp_path, "n").returncode == 1 and len(list_sessions(tmp_path)) == 2
    run("record_dataset.py", "--forget-neutral", "ann", "--data", tmp_path)
    assert load_neutral("ann", tmp_path) is None and len(list_sessions(tmp_path)) == 2
    assert "no neutral face" in user_error(
        run("record_dataset.py", "--forget-neutral", "ann", "--data", tmp_path)
    )
    assert answer_forget(tmp_path, "y").returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["bob"]
    run("record_dataset.py", "--data", tmp_path, "--forget", "bob", "--yes")
    assert not list_sessions(tmp_path)
    assert "nothing is stored about ann" in user_error(
        run("record_dataset.py", "--forget", "ann", "--data", tmp_path)
    )


def answer_forget(folder, answer):
    """Forget ann at a terminal that gives an answer; return the finished process."""
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    os.write(ours, f"{answer}\n".encode())
    arguments = [sys.executable, str(ROOT / "scr" / "record_dataset.py"), "--data", str(folder)]
    done = subprocess.run(
        [*arguments, "--forget", "ann"], stdin=theirs, capture_output=True, text=True, timeout=60
    )
    assert "1 samples in 1 sessions" in done.stdout + done.stderr
    os.close(ours), os.close(theirs)
    return done


def test_a_countdown_comes_before_each_expression(portrait, tmp_path):
    args = SimpleNamespace(subject="ann", mirror=True)
    plan, view = SessionPlan(count_labels([], EMOTIONS), wanted=2), open_view(args, "1", 1)
    with SessionWriter("ann", "1", tmp_path) as writer:
        recorder = Recorder(writer, plan, set())
        faces = [
            SimpleNamespace(
                landmarks=np.full((478, 3), number, np.float32), blendshapes=np.zeros(52, np.float32)
            )
            for number in range(2)
        ]
        frame = portrait[:480, :640]
        waiting = view.draw(frame, None, plan, "", 100.0).copy()
        recorder.press("space", 100.0, view)
        pictures = [view.draw(frame, None, plan, "", 100.1 + second).copy() for second in range(3)]
        assert all((one[:50] != other[:50]).any() for one, other in zip([waiting, *pictures], pictures)), (
            "it does not count"
        )
        moments = [
            (plan.counting(now), plan.recording(now))
            for now in (99.9 + COUNTDOWN_S, 100 + COUNTDOWN_S, 101 + COUNTDOWN_S)
        ]
        assert moments == [(True, False), (False, True), (False, True)]
        for face in faces:
            recorder.store(face)
            plan.move_on()
        assert plan.counts["fear"] == 2 and plan.label == "happy", "it goes to the next expression"
        assert not plan.recording(101 + COUNTDOWN_S), "which gets a countdown of its own"
        assert view.sessions == "afterwards run this once more"


def test_the_plan_of_a_session_needs_no_window():
    plan = SessionPlan(count_labels([], EMOTIONS), wanted=2)
    plan.start_or_stop(200.0)
    assert plan.counting(201.0)
    plan.start_or_stop(201.0)
    assert not plan.counting(201.1) and not plan.recording(201 + COUNTDOWN_S), "space stops it"
    plan.start_or_stop(300.0)
    assert plan.recording(300 + COUNTDOWN_S) and not plan.recording(300 + COUNTDOWN_S + RECORD_S)
    plan.choose("sad")
    assert not plan.recording(300 + COUNTDOWN_S), "another class stops it"
    plan.count()
    plan.move_on()
    assert plan.label == "sad" and plan.missing == {"fear": 2, "happy": 2, "neutral": 2, "sad": 1}
    plan.count()
    plan.move_on()
    assert plan.label == "fear" and "sad" not in plan.missing
    for name in ("fear", "happy", "neutral"):
        plan.choose(name)
        plan.counts[name] = 1
        plan.count()
    plan.move_on()
    assert not plan.missing and plan.label == "neutral", "nothing is wanted: the class at hand stays"
    assert SessionPlan({name: 2 for name in plan.counts} | {"sad": 1}, wanted=2).label == "sad"


def test_recording_without_a_display_says_how_to_go_on(tmp_path):
    no_camera = user_error(
        run("record_dataset.py", "--subject", "ann", "--classes", "wink", "happy", "--wanted", 9)
    )
    assert (
        "--subject ann --classes wink happy --wanted 9 --source FOLDER; or all of one class: add --label wink"
        in (no_camera)
    )
    (tmp_path / "empty").mkdir()
    for source, what in (("nowhere", "no file or folder nowhere"), (tmp_path / "empty", "no pictures")):
        done = run("record_dataset.py", "--subject", "cat", "--source", source, "--data", tmp_path / "data")
        assert what in user_error(done) and not (tmp_path / "data").exists()
    assert "--label fear" in user_error(run("record_dataset.py", "--source", DEMO, "--data", tmp_path))
    assert "no file or folder" in user_error(
        run("record_dataset.py", "--source", "nowhere", "--label", "sad", "--data", tmp_path)
    )
