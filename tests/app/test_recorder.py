"""Recording: classes, folders, keys, clips, second opinions, what is refused, what is deleted."""

import os
import re
import subprocess
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from conftest import DATA, DEMO, ROOT, SEGMENTS, SMILE, frames_of, load_subject, run, run_here, user_error

import record_dataset
from utils.app.recording import recorder as recorder_module
from utils.app.recording.recorder import Recorder, SampleFilter
from utils.app.recording.recording_view import RecordingView
from utils.app.recording.session_plan import COUNTDOWN_S, RECORD_S, SessionPlan
from utils.app.windows import window as windows
from utils.config import EMOTIONS, MODELS
from utils.data.recordings import list_subjects, open_recordings
from utils.faces.landmarker import FaceLandmarker
from utils.model.bundle import load_info
from utils.model.classifier import EmotionClassifier, Prediction
from utils.video.frames import Frame, Source

PORTRAIT = DATA / "astronaut.jpg"
FACE = np.zeros((478, 3)), np.zeros(52)


def record(folder, *args):
    """Run the script for the recordings in a folder, in this process; everybody agrees."""
    manages = {"--list", "--forget", "--delete-session"} & set(args)
    return run_here("record_dataset.py", "--data", folder, *args, *([] if manages else ["--consent"]))


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


def test_a_stopped_recording_says_what_is_kept(tmp_path, monkeypatch, capsys):
    record_all = Recorder.run_labelled

    def stop_after(*given):
        record_all(*given)
        raise KeyboardInterrupt

    monkeypatch.setattr(Recorder, "run_labelled", stop_after)
    arguments = "--source", str(PORTRAIT), "--label", "happy", "--data", str(tmp_path), "--consent"
    with pytest.raises(KeyboardInterrupt):
        record_dataset.main(record_dataset.build_parser().parse_args(arguments))
    assert "me, session 1: fear 0, happy 1, neutral 0, sad 0" in capsys.readouterr().out


@pytest.mark.usefixtures("system")
def test_a_folder_of_class_folders_is_recorded_in_one_run(class_folders, tmp_path):
    done = record(tmp_path, "--subject", "ann", "--source", class_folders)
    assert done.returncode == 0, done.stderr
    samples = load_subject("ann", tmp_path)
    assert {sample.label for sample in samples} == {"grin", "mouth shut"} and len(samples) >= 4
    with open_recordings("ann", tmp_path, to_read=True) as recordings:
        assert recordings.classes == ("mouth shut", "grin")
    assert "ann, session 1: mouth shut" in done.stdout and "missing" not in done.stdout
    assert f"python scr/record_dataset.py --subject ann --data {tmp_path} --source OTHER" in done.stdout
    again = record(tmp_path, "--subject", "ann", "--source", PORTRAIT, "--label", "Grin")
    assert again.returncode == 0 and "mouth shut 0, grin 1" in again.stdout, "the classes are kept"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--label", "wink"], "ann has no class wink (classes: grin, rest); "),
        (["--label", "wink"], "--classes grin rest wink"),
        (
            ["--classes", "grin", "wink", "--label", "wink"],
            "ann already has recordings of rest, which --classes leaves out",
        ),
        (["--classes", "grin", "--label", "grin"], "1 class (grin)"),
        (["--label", "grin", "--source", "nowhere"], "no file or folder nowhere"),
        (["--yes"], "--yes does nothing without --forget"),
        (["--list"], "--source does nothing with --list, --forget or --delete-session"),
        (["--session", "a/b", "--label", "grin"], "'a/b' can't be used as a name"),
    ],
)
def test_mistakes_are_one_line(arguments, message, tmp_path):
    with open_recordings("ann", tmp_path) as recordings:
        recordings.append("1", *FACE, "rest")
        recordings.keep_classes(["grin", "rest"])
    done = record(tmp_path, "--subject", "ann", "--source", PORTRAIT, *arguments)
    assert message in user_error(done)
    assert len(load_subject("ann", tmp_path)) == 1


@pytest.mark.parametrize("name", ["crop", "landmarks", "hybrid", "NUL", "com1", "Ann"])
def test_a_new_person_gets_a_name_that_is_free_on_every_system(name, tmp_path):
    with open_recordings("ann", tmp_path) as recordings:
        recordings.append("1", *FACE, "sad")
    done = record(tmp_path, "--source", PORTRAIT, "--label", "happy", "--subject", name)
    assert f"{name} can't be a new person's name" in user_error(done)
    assert list_subjects(tmp_path) == ["ann"]


def test_what_surely_looks_otherwise_is_kept_and_said_where_nobody_can_be_asked(tmp_path):
    done = record(tmp_path, "--source", PORTRAIT, "--label", "fear")
    assert "fear 1," in done.stdout and "1 of fear look happy to the model, and are kept" in done.stdout
    assert "--delete-session 1" in done.stdout


class Reader:
    """Stands in for a `FaceReader`: its model is sure that every face is happy."""

    classifier = SimpleNamespace(classes=("happy", "sad"), crop_sha256="abc")

    def predict(self, faces, image):
        return Prediction(np.array([[0.95, 0.05]], np.float32), np.ones((1, 4), np.float32))


FRAME = Frame(np.zeros((480, 640, 3), np.uint8), 0, 0, "clip", 0.0)


def make_recorder(recordings, classes, wanted=20):
    recordings.store_consent()
    return Recorder(recordings, "1", SessionPlan(dict.fromkeys(classes, 0), wanted), Reader())


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


@pytest.fixture
def in_window(monkeypatch):
    """Return a function that runs the script with a window; keys: by the number of pictures shown."""
    monkeypatch.setattr(recorder_module, "Window", Window)
    monkeypatch.setattr(windows, "display_problem", lambda: "")

    def run_in_window(keys, *args):
        monkeypatch.setattr(Window, "keys", keys)
        return run_here("record_dataset.py", *args)

    return run_in_window


@pytest.mark.parametrize("source", [SMILE, PORTRAIT])
def test_without_consent_nothing_is_stored_and_no_folder_left(tmp_path, in_window, source):
    arguments = "--source", source, "--data", tmp_path, "--classes", "grin", "rest"
    done = in_window({1: "space", 2: "q"}, *arguments)
    assert "you did not agree to be recorded" in user_error(done)
    assert not list(tmp_path.iterdir())


def test_pictures_are_recorded_in_the_window_after_consent(tmp_path, in_window):
    arguments = "--source", PORTRAIT, "--data", tmp_path
    # Agree, choose sad, record; the model sees happy: keep.
    done = in_window({1: "y", 2: "4", 3: "space", 4: "y"}, *arguments)
    assert "sad 1" in done.stdout, done.stderr
    again = in_window({1: "1", 2: "space"}, *arguments)
    assert "nothing was recorded: 1 already recorded" in user_error(again), "and consent is asked once"


def test_a_clip_shorter_than_a_countdown_is_recorded_from_and_begins_again(tmp_path, in_window):
    """The clip lasts 2.4 s; the user waits for the smile, records to the end, and again after it."""
    keys = {40: "space", 72 + 10: "2", 72 + 15: "space", 2 * 72 - 5: "q"}
    arguments = "--source", SMILE, "--data", tmp_path, "--classes", "grin", "rest", "--consent"
    assert in_window(keys, *arguments).returncode == 0
    with open_recordings("me", tmp_path, to_read=True) as recordings:
        assert recordings.count()["grin"] >= 2 and recordings.count()["rest"] >= 1


def test_consent_is_asked_where_there_is_no_window(tmp_path):
    arguments = "--source", PORTRAIT, "--label", "happy", "--data", tmp_path
    assert "add --consent" in user_error(run("record_dataset.py", *arguments)), "nobody to ask"
    assert at_terminal("n", "record_dataset.py", *arguments).returncode == 1 and not list(tmp_path.iterdir())
    done = at_terminal("y", "record_dataset.py", *arguments)
    assert done.returncode == 0 and "agree to be recorded?" in done.stderr
    with open_recordings("me", tmp_path, to_read=True) as recordings:
        assert recordings.has_consent
    again = run_here("record_dataset.py", *arguments)
    assert "already recorded" in user_error(again) and "agree" not in again.stderr, "once for each person"


def test_a_failing_detector_is_no_face_and_said(tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("the graph has errors")

    monkeypatch.setattr(FaceLandmarker, "detect_picture", fail)
    done = record(tmp_path, "--source", PORTRAIT, "--label", "happy")
    assert "nothing was recorded: 1 no face (" in user_error(done)
    assert "astronaut.jpg: the graph has errors" in done.stderr


class Camera(Source):
    """A camera that is lost and comes back before its two frames, and is gone in the end."""

    live = True

    def __init__(self):
        super().__init__("0", "camera")

    def __iter__(self):
        self.news.append("camera 0 is lost")
        yield None
        self.news.append("camera 0 is back")
        yield FRAME
        self.failure = "camera 0 is gone"


def test_the_news_of_a_camera_are_told_while_recording(tmp_path, capsys):
    reader = Reader()
    reader.find = lambda frame: []
    with open_recordings("ann", tmp_path) as recordings:
        recorder = Recorder(recordings, "1", SessionPlan({"happy": 0}, 20), reader)
        recorder.run_labelled(Camera())
    assert capsys.readouterr().err.splitlines() == [
        "camera 0 is lost",
        "camera 0 is back",
        "camera 0 is gone",
    ]
    assert recorder.refused == {"no face": [""]}


def test_the_embedding_of_the_model_at_hand_is_kept(tmp_path):
    classifier = EmotionClassifier(MODELS)
    record(tmp_path, "--source", PORTRAIT, "--label", "happy")
    (sample,) = load_subject("me", tmp_path)
    size = load_info(MODELS)["parts"]["crop"]["features"]["embedding"]
    assert sample.crop_network == classifier.crop_sha256 and sample.embedding.shape == (size,)
    done = record(
        tmp_path, "--source", PORTRAIT, "--label", "happy", "--subject", "bob", "--model", "landmarks"
    )
    (sample,) = load_subject("bob", tmp_path)
    assert done.returncode == 0 and sample.embedding is None


@pytest.mark.parametrize("answer, count", [("y", 2), ("n", 0)])
def test_a_doubt_is_asked_about_once_and_obeyed(tmp_path, answer, count):
    view = RecordingView("ann", False)
    with open_recordings("ann", tmp_path) as recordings:
        recorder = make_recorder(recordings, ("sad", "happy", "wink"))
        recorder.plan.start_or_stop(0.0)
        recorder.store(FRAME, face(0), recorder.ask_in_window)
        assert recorder.open_question == ("sad", "happy") and not recorder.plan.recording(4.0)
        assert recorder.plan.counts["sad"] == 0 and not recorder.refused, (
            "neither kept nor refused before the answer"
        )
        plain, asked = (
            view.draw(np.zeros((480, 640, 3), np.uint8), None, recorder.plan, "", 4.0, text)[:50].copy()
            for text in ("", "this looks happy: keep it as sad?")
        )
        assert (plain != asked).any()
        recorder.press("2", 5.0, view)
        assert recorder.open_question and recorder.plan.label == "sad", "the question comes first"
        recorder.press(answer, 5.0, view)
        assert recorder.plan.counting(5.1) and not recorder.open_question
        for number in (1, 2):
            recorder.problem = ""
            recorder.store(FRAME, face(number), recorder.ask_in_window)
        assert recorder.plan.counts["sad"] == count and len(recorder.refused["looks happy"]) == 2 - count
        for label in ("happy", "wink"):  # it agrees, or knows nothing about the class
            recorder.plan.choose(label)
            recorder.problem = ""  # as each frame begins
            recorder.store(FRAME, face(len(label)), recorder.ask_in_window)
        assert (
            not recorder.open_question and recorder.plan.counts["happy"] == recorder.plan.counts["wink"] == 1
        )


def test_digits_choose_up_to_nine_classes(tmp_path):
    view = RecordingView("ann", False)
    with open_recordings("ann", tmp_path) as recordings:
        recorder = make_recorder(recordings, [f"own {number}" for number in range(1, 10)])
        recorder.press("9", 0.0, view)
        assert recorder.plan.label == "own 9"
        recorder.press("0", 0.0, view)
        assert recorder.plan.label == "own 9"


def test_what_would_spoil_the_set_is_refused(portrait):
    landmarker = FaceLandmarker()
    face = landmarker.detect_picture(portrait)[0]
    cut = portrait[:, 195:]
    cut_face = landmarker.detect_picture(cut)[0]
    check = SampleFilter()
    assert check.problem(None, portrait, "happy") == "no face"
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
    """Two sessions of a subject, recorded by the script from folders of frames of two clips."""
    root = tmp_path_factory.mktemp("recorded")
    for emotion, (clip, indices) in SEGMENTS.items():
        frames, indices = frames_of(clip), list(indices)
        for session in ("1", "2"):
            folder = root / "frames" / session / emotion
            folder.mkdir(parents=True)
            for index in indices[int(session) - 1 :: 2]:
                cv2.imwrite(str(folder / f"{index:03}.jpg"), frames[min(index, len(frames) - 1)])
    for session in ("1", "2"):
        folder = root / "frames" / session
        done = record(root / "personal", "--subject", "ann", "--session", session, "--source", folder)
        assert done.returncode == 0, done.stderr
    return root / "personal"


def test_folders_are_recorded_as_landmarks_only(recorded):
    with open_recordings("ann", recorded, to_read=True) as recordings:
        assert recordings.sessions == ["1", "2"]
        assert min(recordings.count()[name] for name in EMOTIONS) >= 6
    assert [path.name for path in recorded.rglob("*") if path.is_file()] == ["recordings.sqlite"]


def test_a_picture_is_recorded_once(tmp_path):
    for label, session in (("happy", "1"), ("sad", "2")):
        arguments = "--source", PORTRAIT, "--label", label, "--subject", "zoe", "--session", session
        done = record(tmp_path, *arguments)
    error = user_error(done)
    assert "nothing was recorded: 1 already recorded (" in error and "astronaut.jpg)" in error
    assert "run the same command again with other pictures" in error
    assert {sample.session for sample in load_subject("zoe", tmp_path)} == {"1"}


def test_an_empty_class_folder_stops_no_recording(tmp_path, portrait):
    for name in ("fear", "happy"):
        (tmp_path / "frames" / name).mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "frames" / "happy" / "a.png"), portrait)
    done = record(tmp_path / "data", "--subject", "eve", "--source", tmp_path / "frames")
    assert done.returncode == 0 and "left out, nothing in: fear" in done.stderr and "happy 1" in done.stdout


def test_a_video_is_recorded_without_repeating_still_frames(tmp_path):
    done = record(tmp_path, "--subject", "bob", "--source", SMILE, "--label", "neutral")
    assert done.returncode == 0, done.stderr
    assert 2 <= len(load_subject("bob", tmp_path)) < 40 and SampleFilter.SAME in done.stdout
    assert "next" not in done.stdout, "one class is no set"
    assert (
        f"missing: fear, happy, sad; python scr/record_dataset.py --subject bob --data {tmp_path} --session "
        "1 --source OTHER_SOURCE --label fear"
    ) in done.stdout


FULL = {  # both leave room for some samples; then there is room again
    "file size limit": "(ulimit -f 60; {record}); status=$?; ",
    "full disk": "mount -t tmpfs -o size=80k none {data} || exit 77; {record}; status=$?; "
    "mount -o remount,size=9m {data}; ",
}


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
@pytest.mark.parametrize("kind", FULL)
def test_a_full_disk_costs_the_sample_being_written_and_no_other(recorded, tmp_path, kind):
    data = tmp_path / "personal"
    data.mkdir()
    frames = recorded.parent / "frames" / "1" / "sad"
    record = (
        f"{sys.executable} {ROOT}/scr/record_dataset.py --subject ann --session 1 --label sad --consent "
        f"--data {data} --source {frames}"
    )
    copy = f"cp {data}/ann/recordings.sqlite {tmp_path}"
    script = (
        FULL[kind].format(record=record, data=data)
        + f"mkdir {tmp_path}/first {tmp_path}/last; {copy}/first; [ $status = 1 ] || exit 99; "
        + f"{record} && {copy}/last"
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
    assert re.search("disk is full|disk I/O error", error) and "samples so far are safe" in error
    assert "ann, session 1: fear 0, happy 0, neutral 0, sad" in done.stdout
    first, last = (load_subject(name, tmp_path) for name in ("first", "last"))
    wanted = sum(sample.session == "1" and sample.label == "sad" for sample in load_subject("ann", recorded))
    assert 0 < len(first) < len(last) == wanted, "the next run takes what is missing, and nothing twice"


@pytest.mark.usefixtures("system")
def test_list_delete_and_forget_really_delete(tmp_path):
    for subject, session in (("ann", "1"), ("ann", "2"), ("bob", "1")):
        with open_recordings(subject, tmp_path) as recordings:
            recordings.append(session, *FACE, "happy")
    (tmp_path / "ann" / "neutral.npz").touch()  # of an earlier version
    listed = record(tmp_path, "--list").stdout
    assert "ann, session 1: happy 1" in listed and "bob, session 1" in listed
    assert "--subject" in user_error(record(tmp_path, "--delete-session", "1"))
    assert "no session 7" in user_error(record(tmp_path, "--subject", "ann", "--delete-session", "7"))
    assert record(tmp_path, "--subject", "ann", "--delete-session", "1").returncode == 0
    assert [sample.session for sample in load_subject("ann", tmp_path)] == ["2"]
    assert "add --yes" in user_error(run("record_dataset.py", "--data", tmp_path, "--forget", "ann"))
    forget = "record_dataset.py", "--data", tmp_path, "--forget", "ann"
    assert at_terminal("n", *forget).returncode == 1 and list_subjects(tmp_path) == ["ann", "bob"]
    assert at_terminal("y", *forget).returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["bob"]
    assert record(tmp_path, "--forget", "bob", "--yes").returncode == 0
    assert not list(tmp_path.iterdir())
    assert "nothing is stored about ann" in user_error(record(tmp_path, "--forget", "ann"))
    assert "nothing recorded" in record(tmp_path, "--list").stdout


@pytest.mark.usefixtures("system")
def test_forgetting_deletes_the_model_too_unless_a_training_reads(tmp_path, monkeypatch):
    monkeypatch.setattr(record_dataset, "PERSONAL_MODELS", tmp_path / "models")
    (tmp_path / "models" / "ann").mkdir(parents=True)
    (tmp_path / "models" / "ann" / "emotion_mlp.json").touch()
    data = tmp_path / "personal"
    with open_recordings("ann", data) as recordings:
        recordings.append("1", *FACE, "happy")
    with open_recordings("ann", data, to_read=True):
        assert "another run uses or changes" in user_error(record(data, "--forget", "ann", "--yes"))
    assert (tmp_path / "models" / "ann").exists() and list_subjects(data) == ["ann"]
    assert record(data, "--forget", "ann", "--yes").returncode == 0
    assert not list(data.iterdir()) and not list((tmp_path / "models").iterdir())


def at_terminal(answer, script, *args):
    """Run a script at a terminal that gives an answer; return the finished process."""
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    os.write(ours, f"{answer}\n".encode())
    command = [sys.executable, str(ROOT / "scr" / script), *map(str, args)]
    done = subprocess.run(command, stdin=theirs, capture_output=True, text=True, timeout=60)
    os.close(ours), os.close(theirs)
    return done


def test_a_countdown_comes_before_each_expression(portrait, tmp_path):
    plan, view = SessionPlan(dict.fromkeys(EMOTIONS, 0), wanted=2), RecordingView("ann", True)
    with open_recordings("ann", tmp_path) as recordings:
        recordings.store_consent()
        recorder = Recorder(recordings, "1", plan, Reader())
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
        for number in range(2):
            recorder.store(FRAME, face(number), recorder.ask_in_window)
            plan.move_on()
        assert plan.counts["fear"] == 2 and plan.label == "happy", "it goes to the next expression"
        assert not plan.recording(101 + COUNTDOWN_S), "which gets a countdown of its own"


def test_the_plan_of_a_session_needs_no_window():
    plan = SessionPlan(dict.fromkeys(EMOTIONS, 0), wanted=2)
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--subject", "ann", "--classes", "wink", "happy", "--wanted", "9"],
            "--wanted 9 --source FOLDER --classes wink happy",
        ),
        (["--source", "nowhere"], "no file or folder nowhere"),
        (["--source", "{empty}"], "no pictures"),
        (["--source", DEMO], "add --label fear"),
        (["--source", PORTRAIT], "add --label fear"),
    ],
)
def test_recording_without_a_display_says_how_to_go_on(arguments, message, tmp_path):
    (tmp_path / "empty").mkdir()
    arguments = [str(argument).format(empty=tmp_path / "empty") for argument in arguments]
    assert message in user_error(run("record_dataset.py", *arguments, "--data", tmp_path / "data"))
    assert not list((tmp_path / "data").glob("*"))
