"""`--plot`: what was read is what is drawn."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import DATA, SMILE

from utils.app import command
from utils.app.pipeline import FaceResult
from utils.app.results.plot import COLUMNS, Plot, _spans, _thin_out
from utils.app.smoothing import UNCERTAIN
from utils.app.windows.canvas import COLOURS, UNSURE
from utils.config import EMOTIONS, UserError
from utils.video.frames import Frame


def run(*arguments) -> None:
    command.main(
        command.build_parser().parse_args([str(argument) for argument in (*arguments, "--no-display")])
    )


def face_result(emotion, confidence, face=0) -> FaceResult:
    probabilities = dict.fromkeys(EMOTIONS, (1 - confidence) / 3)
    probabilities[emotion if emotion in EMOTIONS else EMOTIONS[0]] = confidence
    points = np.random.default_rng(0).uniform(0.2, 0.8, (478, 3)).astype(np.float32)
    return FaceResult(face, (20, 20, 60, 60), emotion, confidence, probabilities, {}, points)


def share_of(picture, colour) -> float:
    return float((np.abs(picture.astype(int) - colour).max(axis=2) < 6).mean())


def test_a_video_s_emotions_are_stacked_over_time_and_uncertain_is_shown(tmp_path):
    plot = Plot(tmp_path / "plot.png", EMOTIONS)
    for index in range(90):
        emotion = "happy" if index < 45 else UNCERTAIN
        frame = Frame(np.zeros((100, 100, 3), np.uint8), index, index * 33, "clip.mp4", 0.0)
        plot.add_frame(frame, [face_result(emotion, 0.97)])
    plot.write()
    picture = cv2.imread(str(tmp_path / "plot.png"))
    assert share_of(picture, COLOURS["happy"]) > 0.2 and share_of(picture, COLOURS["fear"]) > 0.1
    strip = picture[-110:-75]
    half = strip.shape[1] // 2
    assert share_of(strip[:, :half], COLOURS["happy"]) > 0.2 and share_of(strip[:, half:], UNSURE) > 0.05
    assert share_of(strip[:, half:], COLOURS["happy"]) < 0.02


def test_long_videos_are_drawn_from_a_bounded_number_of_moments_and_gaps_stay_empty():
    plot = Plot(Path("plot.png"), EMOTIONS)
    image = np.zeros((9, 9, 3), np.uint8)
    for index in range(6000):
        if not 2000 <= index < 3000:
            frame = Frame(image, index, index * 40, "long.mp4", 0.0)
            plot.add_frame(frame, [face_result("sad" if index < 3000 else "happy", 0.9)])
    (track,) = plot.tracks.values()
    times, probabilities, labels = _thin_out(track)
    assert len(times) <= COLUMNS and (labels == "sad").sum() == pytest.approx(222, abs=3)
    assert probabilities.sum(axis=1) == pytest.approx(np.ones(len(times)), abs=2e-3)
    assert [len(labels[span]) for span in _spans(times)] == pytest.approx([222, 333], abs=3)


def test_plot_of_a_video(tmp_path, capsys):
    path = tmp_path / "plot.png"
    run("--source", SMILE, "--plot", path)
    assert f"written: {path}" in capsys.readouterr().out
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert cv2.imread(str(path)).shape[1] == 1500


def test_plot_of_a_picture(tmp_path):
    run("--source", DATA / "astronaut.jpg", "--plot", tmp_path / "plot.png")
    assert share_of(cv2.imread(str(tmp_path / "plot.png")), COLOURS["happy"]) > 0.02


def test_a_source_without_any_face_is_plotted_too(tmp_path):
    run("--source", DATA / "landscape.jpg", "--plot", tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 1000


def test_names_that_are_no_plot_are_refused_at_once(tmp_path):
    with pytest.raises(UserError, match="end it in .png"):
        run("--source", "nowhere.mp4", "--plot", tmp_path / "plot.pdf")
