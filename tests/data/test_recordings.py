"""Recordings are never lost and never leak: one store for each person; locks, deletion, old formats."""

import base64
import json
import os
import subprocess
import sys
import zlib
from datetime import UTC, datetime

import numpy as np
import pytest
from conftest import ROOT, load_subject

from utils.config import UserError
from utils.data import recordings as recordings_module
from utils.data.recordings import check_name, delete_folder, list_subjects, open_recordings

FACE = np.arange(478 * 3, dtype=np.float32).reshape(478, 3) / 1000, np.full(52, 0.5, np.float32)
posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX permissions")


def write(folder, session="1", count=1, label="happy", subject="ann"):
    """Record random faces; return their landmarks and blendshapes."""
    generator = np.random.default_rng(len(session) + count)
    landmarks = generator.normal(size=(count, 478, 3)).astype(np.float32)
    blendshapes = generator.random((count, 52), np.float32)
    with open_recordings(subject, folder) as recordings:
        for row in range(count):
            recordings.append(session, landmarks[row], blendshapes[row], label)
    return landmarks, blendshapes


@pytest.mark.usefixtures("system")
def test_what_is_recorded_comes_back_exactly(tmp_path):
    landmarks, blendshapes = write(tmp_path, "1", 3)
    with open_recordings("ann", tmp_path) as recordings:
        recordings.append("2", *FACE, "sad", np.arange(5), "abc")
        assert recordings.sessions == ["1", "2"] and recordings.next_session() == "3"
        assert recordings.count("1") == {"happy": 3} and recordings.count() == {"happy": 3, "sad": 1}
        assert recordings.holds(landmarks[1]) and not recordings.holds(landmarks[1] + 1)
    samples = load_subject("ann", tmp_path)
    np.testing.assert_array_equal([sample.landmarks for sample in samples[:3]], landmarks)
    np.testing.assert_array_equal([sample.blendshapes for sample in samples[:3]], blendshapes)
    assert [sample.label for sample in samples] == ["happy"] * 3 + ["sad"]
    assert samples[0].embedding is None and samples[0].time.utcoffset().total_seconds() == 0
    assert samples[3].embedding.tolist() == [0, 1, 2, 3, 4] and samples[3].crop_network == "abc"
    assert list_subjects(tmp_path) == ["ann"]


def kept_classes(folder):
    with open_recordings("ann", folder, to_read=True) as recordings:
        return recordings.classes


@pytest.mark.usefixtures("system")
def test_classes_and_consent_are_kept_with_the_recordings(tmp_path):
    write(tmp_path)
    assert kept_classes(tmp_path) is None
    with open_recordings("ann", tmp_path) as recordings:
        assert not recordings.has_consent
        recordings.keep_classes(["happy", "very sad"])
        recordings.store_consent()
    with open_recordings("ann", tmp_path, to_read=True) as recordings:
        assert recordings.has_consent and recordings.classes == ("happy", "very sad")


@pytest.mark.usefixtures("system")
def test_where_nothing_is_recorded_nothing_is_left(tmp_path):
    with pytest.raises(KeyboardInterrupt), open_recordings("ann", tmp_path / "personal") as recordings:
        recordings.keep_classes(["a", "b"])
        recordings.store_consent()
        raise KeyboardInterrupt
    assert not list((tmp_path / "personal").iterdir())
    with pytest.raises(UserError, match="no recordings of ann .* nobody yet"):
        load_subject("ann", tmp_path)
    assert not (tmp_path / "ann").exists()


WRITER = """
import sys, numpy as np
from pathlib import Path
from utils.data.recordings import open_recordings
with open_recordings("ann", Path(sys.argv[1])) as recordings:
    for number in range(10**6):
        recordings.append("1", np.full((478, 3), number), np.zeros(52), "sad")
        print(number, flush=True)
"""


@pytest.fixture
def writer(tmp_path):
    """Return a function that starts a process which records ann without end; killed when the test ends."""
    processes = []

    def start():
        command = [sys.executable, "-c", WRITER, tmp_path]
        surroundings = os.environ | {"PYTHONPATH": str(ROOT / "scr")}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=surroundings)
        assert process.stdout.readline() == "0\n"
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.usefixtures("system")
def test_a_killed_recording_loses_nothing_that_was_counted(writer, tmp_path):
    recorded = 0
    for count in (1, 2, 7):
        process = writer()
        for _ in range(count - 1):
            process.stdout.readline()
        process.kill()
        counted = count + len(process.stdout.read().splitlines())
        process.wait()
        samples = load_subject("ann", tmp_path)
        assert len(samples) - recorded in (counted, counted + 1)
        recorded = len(samples)


@pytest.mark.usefixtures("system")
def test_one_run_at_a_time_records_or_deletes_and_many_read(writer, tmp_path, monkeypatch):
    monkeypatch.setattr(recordings_module, "PATIENCE_S", 0.1)
    process = writer()
    for change in (
        lambda: write(tmp_path),
        lambda: delete_folder(tmp_path / "ann"),
        lambda: load_subject("ann", tmp_path),
    ):
        with pytest.raises(UserError, match="another run uses or changes"):
            change()
    write(tmp_path, subject="bob")
    process.kill()
    process.wait()
    write(tmp_path)  # the lock fell with its process
    with open_recordings("ann", tmp_path, to_read=True) as recordings:
        assert len(load_subject("ann", tmp_path)) == len(recordings.samples())
        with pytest.raises(UserError, match="another run"):
            delete_folder(tmp_path / "ann")
    delete_folder(tmp_path / "ann")
    assert list_subjects(tmp_path) == ["bob"]


@posix
def test_what_is_stored_about_a_person_is_for_the_owners_eyes(tmp_path):
    folder = tmp_path / "personal" / "ann"
    folder.mkdir(parents=True, mode=0o755)  # as an early version made it
    (folder / "neutral.npz").touch(0o644)
    with open_recordings("ann", tmp_path / "personal") as recordings:
        recordings.append("1", *FACE, "happy")
        modes = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {"neutral.npz", "recordings.sqlite", "recordings.sqlite-journal"} == set(modes)
    assert set(modes.values()) == {0o600}, modes


def holds_bytes(folder, data):
    return any(data in path.read_bytes() for path in folder.rglob("*") if path.is_file())


@pytest.mark.usefixtures("system")
def test_what_is_deleted_is_overwritten(tmp_path):
    write(tmp_path, "2", 3)
    with open_recordings("ann", tmp_path) as recordings:
        recordings.append("1", *FACE, "happy")
    assert holds_bytes(tmp_path, FACE[0].tobytes()[:400])
    with open_recordings("ann", tmp_path) as recordings:
        with pytest.raises(UserError, match="ann has no session 3"):
            recordings.delete_session("3")
        recordings.delete_session("1")
    assert not holds_bytes(tmp_path, FACE[0].tobytes()[:400])
    assert [sample.session for sample in load_subject("ann", tmp_path)] == ["2"] * 3
    with open_recordings("ann", tmp_path) as recordings:
        recordings.delete_session("2")
    assert not list(tmp_path.iterdir()), "nothing is recorded any more"


@pytest.mark.usefixtures("system")
def test_damaged_recordings_are_one_line_and_can_be_deleted(tmp_path, capsys):
    write(tmp_path, count=3)
    path = tmp_path / "ann" / "recordings.sqlite"
    with open_recordings("ann", tmp_path) as recordings:
        recordings.append("1", np.full((478, 3), np.nan), FACE[1], "happy")
    assert len(load_subject("ann", tmp_path)) == 3
    assert "1 damaged samples of ann are left out; 3 are whole" in capsys.readouterr().err
    path.write_bytes(b"no database" + path.read_bytes()[11:])
    for to_read in (True, False):
        with (
            pytest.raises(UserError, match="is damaged .* --forget ann"),
            open_recordings("ann", tmp_path, to_read),
        ):
            pass
    delete_folder(tmp_path / "ann")
    assert not list(tmp_path.iterdir())


def test_an_embedding_of_another_length_costs_its_sample_and_is_one_line(tmp_path, capsys):
    with open_recordings("ann", tmp_path) as recordings:
        for size in (4, 5):
            recordings.append("1", *FACE, "happy", np.ones(size), "abc")
    assert [sample.embedding.size for sample in load_subject("ann", tmp_path)] == [4]
    assert "1 damaged samples of ann" in capsys.readouterr().err


def old_line(number, label="happy", time="2026-10-24T12:00:00.000+00:00"):
    """Return a line of a session as versions before 1.1 kept it."""
    arrays = {"landmarks": FACE[0] + number, "blendshapes": FACE[1], "embedding": np.ones(4, np.float32)}
    body = {name: base64.b64encode(values.tobytes()).decode() for name, values in arrays.items()}
    text = json.dumps({"label": label, "time": time, "crop_network": "abc"} | body).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


@pytest.fixture
def old_folder(tmp_path):
    """The folder of a subject of an earlier version: two sessions, one of them torn, classes and consent."""
    folder = tmp_path / "ann"
    folder.mkdir()
    (folder / "1.jsonl").write_bytes(
        old_line(0, "sad", "2026-10-25T02:30:00.000+02:00")  # the hour that summer time repeats
        + old_line(1, "happy", "2026-10-25T02:10:00.000+01:00")
        + old_line(2).replace(b"landmarks", b"landmurks")
        + old_line(3)[:4000]
    )
    (folder / "b.jsonl").write_bytes(old_line(4, "wink"))
    (folder / "classes.json").write_text('{"classes": ["wink", "happy", "sad"]}')
    (folder / "consent.json").write_text('{"agreed": "2026-10-24T10:00:00+00:00"}')
    return folder


@pytest.mark.parametrize("to_read", [False, True])
def test_old_sessions_are_taken_over(old_folder, tmp_path, to_read, capsys):
    assert list_subjects(tmp_path) == ["ann"]
    with open_recordings("ann", tmp_path, to_read) as recordings:
        samples = recordings.samples()
        assert recordings.classes == ("wink", "happy", "sad") and recordings.has_consent
    assert [(sample.label, sample.session) for sample in samples] == [
        ("wink", "b"),
        ("sad", "1"),
        ("happy", "1"),
    ]
    np.testing.assert_array_equal(samples[1].landmarks, FACE[0])
    assert samples[1].time == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    assert samples[1].embedding.tolist() == [1] * 4 and samples[1].crop_network == "abc"
    assert [path.name for path in old_folder.iterdir()] == ["recordings.sqlite"]
    assert "2 damaged samples could not be read" in capsys.readouterr().err
    load_subject("ann", tmp_path)
    assert not capsys.readouterr().err, "it is told once"


@pytest.mark.usefixtures("system")
def test_a_take_over_that_was_killed_loses_nothing_and_doubles_nothing(old_folder, tmp_path):
    old = {path: path.read_bytes() for path in old_folder.iterdir()}
    load_subject("ann", tmp_path)
    for path, data in old.items():  # killed before they were deleted
        path.write_bytes(data)
    assert len(load_subject("ann", tmp_path)) == 3
    assert [path.name for path in old_folder.iterdir()] == ["recordings.sqlite"]


def test_damaged_old_classes_are_named_and_cost_no_sample(old_folder, tmp_path, capsys):
    (old_folder / "classes.json").write_text("{")
    assert len(load_subject("ann", tmp_path)) == 3 and kept_classes(tmp_path) is None
    assert "classes.json is damaged" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["../ann", "a/b", "", ".hidden", "x" * 80, "a b", "a\n"])
def test_names_that_are_no_folder_are_refused(name, tmp_path):
    with pytest.raises(UserError, match="can't be used as a name"):
        check_name(name)
    with pytest.raises(UserError, match="can't be used as a name"), open_recordings(name, tmp_path):
        pass
