"""What is drawn: on the right place, in the right colour, and never over a face."""

import cv2
import numpy as np
import pytest

from utils.app.pipeline import FaceResult, box_px
from utils.app.windows.canvas import COLOURS, CONTOURS, PANEL, PAPER, UNSURE, Canvas, class_colours, drawable
from utils.app.windows.live_view import BARS_TOP, Timeline, View
from utils.app.windows.window import display_problem
from utils.config import ASSETS, EMOTIONS
from utils.data.classes import MOST_CLASSES
from utils.faces.features import face_box
from utils.faces.landmarker import FaceLandmarker
from utils.video.sources import open_source

SIZES = [(640, 480), (1920, 1080), (1080, 1920), (640, 360), (48, 48), (333, 555), (3000, 200)]
PROBABILITIES = np.array([0.1, 0.7, 0.15, 0.05], np.float32)


@pytest.fixture(scope="module")
def portrait():
    """Return a frame of the demo clip and the landmarks (478, 3) of its face."""
    with open_source(str(ASSETS / "demo.mp4")) as source:
        frame = next(frame for frame in source if frame is not None)
    landmarker = FaceLandmarker()
    return frame.image, landmarker.detect_picture(frame.image)[0].landmarks


def reading_on(landmarks: np.ndarray, shape, classes=EMOTIONS, probabilities=PROBABILITIES) -> FaceResult:
    best = int(probabilities.argmax())
    box = box_px(face_box(landmarks).tolist(), shape)
    return FaceResult(
        0, box, classes[best], float(probabilities[best]), dict(zip(classes, probabilities)), {}, landmarks
    )


def is_drawn(image: np.ndarray, plain: np.ndarray) -> np.ndarray:
    return np.abs(image.astype(int) - plain).max(axis=2) > 40


def test_contours_are_mediapipe_s():
    from mediapipe.tasks.python.vision import FaceLandmarksConnections

    theirs = {
        edge
        for name in (
            "FACE_LANDMARKS_FACE_OVAL",
            "FACE_LANDMARKS_LIPS",
            "FACE_LANDMARKS_LEFT_EYE",
            "FACE_LANDMARKS_RIGHT_EYE",
            "FACE_LANDMARKS_LEFT_EYEBROW",
            "FACE_LANDMARKS_RIGHT_EYEBROW",
        )
        for edge in (frozenset((edge.start, edge.end)) for edge in getattr(FaceLandmarksConnections, name))
    }
    ours = {frozenset(edge) for loop in CONTOURS for edge in zip(loop.tolist(), np.roll(loop, -1).tolist())}
    assert (
        theirs <= ours and len(ours - theirs) == 4
    )  # their brows are open lines: we close each at both ends


@pytest.mark.parametrize("size", SIZES)
def test_the_picture_stays_free_of_text_and_the_panel_is_beside_it(portrait, size):
    frame = cv2.resize(portrait[0], size)
    landmarks = portrait[1] * (1, (size[1] / size[0]) / (360 / 640), 1)
    view = View(EMOTIONS, "emotion_mlp")
    view.show_help = True
    view.draw(frame, [reading_on(landmarks, frame.shape)], 1000)
    image = view.add_hints("30 fps  delay 12 ms", "camera 0 is lost, trying again")
    zoom = max(1, min(360 / min(size), 1600 / max(size)))
    width, height = round(size[0] * zoom), round(size[1] * zoom)
    assert image.shape[0] % 2 == image.shape[1] % 2 == 0
    assert (
        width + PANEL <= image.shape[1] <= width + 4 * PANEL + 1
        and height <= image.shape[0] <= max(height, 300) + 1
    )
    plain = cv2.resize(frame, (width, height), interpolation=cv2.INTER_CUBIC)
    changed = (image[:height, :width] != plain).any(axis=2)
    points = (landmarks[:, :2] * width).astype(int)
    near_face = np.zeros((height, width), np.uint8)
    cv2.polylines(near_face, [points[loop] for loop in CONTOURS], True, 255, max(8, width // 80))
    assert changed.any() and not (changed & (near_face == 0)).any()


def test_contours_have_the_emotion_s_colour_and_follow_the_mirror(portrait):
    frame, landmarks = portrait
    view = View(EMOTIONS)
    grey = np.full_like(frame, 90)
    readings = [reading_on(landmarks, frame.shape)]
    straight = view.draw(grey, readings)[:, :640].copy()
    view.mirror = True
    mirrored = view.draw(grey, readings)[:, :640].copy()
    drawn = is_drawn(straight, grey)
    assert np.median(straight[drawn], axis=0) == pytest.approx(0.75 * np.array(COLOURS["happy"]), abs=40)
    overlap = drawn & is_drawn(mirrored[:, ::-1], grey)
    assert overlap.sum() > 0.5 * drawn.sum()
    view.mirror, view.show_landmarks = False, True
    assert is_drawn(view.draw(grey, readings)[:, :640], grey).sum() > drawn.sum() + 200


def test_panel_says_what_is_read(portrait):
    frame, landmarks = portrait
    view = View(EMOTIONS, "emotion_mlp")
    panel = view.draw(frame, [reading_on(landmarks, frame.shape)])[:, 640:].copy()
    for row, name in enumerate(EMOTIONS):
        bar = (panel == np.array(COLOURS[name], np.uint8)).all(axis=2)[
            80 + row * 25 + 16 : 80 + row * 25 + 20
        ]
        assert bar.all(axis=0).sum() == pytest.approx(PROBABILITIES[row] * (PANEL - 24), abs=2)
    assert not (view.draw(frame, [])[:, 640:] == panel).all()
    assert (
        view.draw(frame, [], caption="x" * 300)[:, -10:] == np.array(PAPER)
    ).all()  # long text is cut, not let run out


def test_a_class_at_nought_percent_has_no_bar_and_several_faces_have_numbers(portrait, monkeypatch):
    frame, landmarks = portrait
    probabilities = dict(zip(EMOTIONS, (0.004, 0.99, 0.004, 0.002)))
    readings = [
        FaceResult(face, (0, 0, 9, 9), "happy", 0.99, probabilities, {}, landmarks) for face in (0, 1)
    ]
    figures, text = [], Canvas.text
    monkeypatch.setattr(
        Canvas,
        "text",
        lambda canvas, shown, *rest, **more: (figures.append(shown), text(canvas, shown, *rest, **more)),
    )
    panel = View(EMOTIONS).draw(np.full((1080, 1920, 3), 90, np.uint8), readings)[:, 1920:]
    assert not (panel == np.array(COLOURS["fear"], np.uint8)).all(axis=2).any()
    assert {"0  happy", "1  happy"} <= set(figures)


def test_help_lists_the_keys_that_do_something(portrait, monkeypatch):
    texts = []
    monkeypatch.setattr(Canvas, "text", lambda canvas, text, *rest, **more: texts.append(text))
    view = View(EMOTIONS)
    view.show_help = True
    view.draw(portrait[0], [], 1000)
    assert "mirror" not in texts
    view.add_hints()
    assert "mirror" in texts and "next picture" not in texts
    view.draw(portrait[0], [])
    view.add_hints()
    assert "next picture" in texts


def test_what_is_drawn_for_a_file_has_no_hints_though_a_window_had(portrait):
    frame, landmarks = portrait
    for timestamp_ms in (0, None):
        view = View(EMOTIONS)
        faces = [reading_on(landmarks, frame.shape)]
        clean = view.draw(frame, faces, timestamp_ms).copy()
        for show_help in (False, True):
            view.show_help = show_help
            hinted = view.add_hints("30 fps", "saved in data/snapshots").copy()
            assert (hinted != clean).any()
            assert (view.draw(frame, faces, timestamp_ms) == clean).all()


def test_tags_show_the_panel_s_numbers_though_those_change_less_often(portrait, monkeypatch):
    frame, landmarks = portrait
    tags, figures = [], []
    monkeypatch.setattr(
        Canvas, "draw_tags", lambda canvas, given: tags.append([text for _, text, _ in given])
    )
    text = Canvas.text
    monkeypatch.setattr(
        Canvas,
        "text",
        lambda canvas, shown, *rest, **more: (figures.append(shown), text(canvas, shown, *rest, **more)),
    )
    view = View(EMOTIONS)
    for number in range(12):
        readings = [
            FaceResult(
                face,
                (0, 0, 9, 9),
                "happy",
                0.5 + number / 100 + face / 10,
                dict(zip(EMOTIONS, PROBABILITIES)),
                {},
                landmarks,
            )
            for face in (0, 1)
        ]
        view.draw(frame, readings, number * 33)
    shown = [
        text
        for text in figures
        if text.endswith("%") and text[:2] in ("50", "51", "52", "53", "54", "55", "56", "57", "58", "59")
    ]
    main = list(dict.fromkeys(tag[0].split()[-1] for tag in tags))
    assert 2 <= len(main) <= 5 and main == list(dict.fromkeys(shown))[: len(main)]


def test_tags_of_several_faces_cover_no_face():
    canvas = Canvas()
    frame = np.full((480, 640, 3), 90, np.uint8)
    corners = [(20, 200), (240, 190), (460, 5), (470, 260)]
    faces = [np.array([[x, y], [x + 150, y + 200]], float) for x, y in corners]
    canvas.begin(frame)
    canvas.draw_tags(
        [(points, f"{number}  neutral 93%", COLOURS["neutral"]) for number, points in enumerate(faces)]
    )
    changed = (canvas.image[:480, :640] != 90).any(axis=2)
    assert changed.sum() > 3 * 2000
    for x, y in corners:
        assert not changed[y : y + 200, x : x + 150].any()


def test_timeline_shows_ten_seconds_in_colour_and_height():
    timeline = Timeline()
    for stamp in range(0, 20_000, 40):
        timeline.add(
            stamp, 1.0 if stamp < 15_000 else 0.5, COLOURS["sad"] if stamp < 15_000 else COLOURS["happy"]
        )
    strip = timeline.render(200, 40)
    sad, happy = ((strip == np.array(COLOURS[name], np.uint8)).all(axis=2) for name in ("sad", "happy"))
    assert sad[:, :98].all() and happy[20:, 102:].all() and not happy[:19].any()


def test_another_video_begins_another_timeline():
    timeline = Timeline()
    for stamp in range(0, 9000, 40):
        timeline.add(stamp, 1.0, COLOURS["anger"])
    for stamp in range(0, 1000, 40):
        timeline.add(stamp, 1.0, COLOURS["sad"])
    strip = timeline.render(200, 40)
    sad, anger = ((strip == np.array(COLOURS[name], np.uint8)).all(axis=2) for name in ("sad", "anger"))
    assert sad[:, -15:].all() and not anger.any()


def test_names_in_any_script_are_drawn_readably_and_apart():
    names = ["खुश", "दुखी", "மகிழ்ச்சி", "ดีใจ", "幸せ", "счастье", "glücklich", "سعيد", "שמח", "\udcff"]
    shown = list(map(drawable, names))
    assert shown[4:9] == names[4:9] and shown[9] == "?"
    assert all(name.isascii() and name.isalpha() for name in shown[:4]) and len(set(shown)) == len(names)
    classes = names[:9]
    probabilities = np.full(9, 1 / 9, np.float32)
    landmarks = np.random.default_rng(0).random((478, 3)).astype(np.float32)
    frame = np.full((480, 640, 3), 90, np.uint8)
    View(classes).draw(frame, [reading_on(landmarks, frame.shape, classes, probabilities)], 0)


@pytest.mark.parametrize("deficiency", ["none", "protan", "deutan", "tritan"])
def test_colours_stay_apart_for_colour_blind_eyes(deficiency):
    # Machado, Oliveira and Fernandes (2009), severity 1.0, on linear RGB.
    matrix = {
        "none": np.eye(3),
        "protan": [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ],
        "deutan": [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ],
        "tritan": [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ],
    }
    colours = np.array([colour[::-1] for colour in (*COLOURS.values(), UNSURE, PAPER)]) / 255
    seen = np.clip(colours**2.2 @ np.array(matrix[deficiency]).T, 0, 1).astype(np.float32)
    lab = cv2.cvtColor((seen ** (1 / 2.2))[None].astype(np.float32), cv2.COLOR_RGB2Lab)[0]
    distances = [np.linalg.norm(lab[one] - lab[other]) for one in range(len(lab)) for other in range(one)]
    assert len(COLOURS) == MOST_CLASSES and min(distances) > 18


def test_each_of_nine_classes_has_a_colour_of_its_own():
    own = [f"own {number}" for number in range(MOST_CLASSES - 1)]
    colours = class_colours(["sad", *own])
    assert len(set(colours.values())) == MOST_CLASSES and colours["sad"] == COLOURS["sad"]
    assert class_colours(EMOTIONS) == {name: COLOURS[name] for name in EMOTIONS}


@pytest.mark.parametrize("size", [(640, 480), (640, 360)])
def test_nine_bars_stand_below_each_other_and_inside_the_panel(portrait, size):
    classes = (
        "wink",
        "kiss",
        "mouth open",
        "brows up and together",
        "happy",
        "sad",
        "fear",
        "neutral",
        "sleepy",
    )
    frame = cv2.resize(portrait[0], size)
    probabilities = np.full(9, 1 / 9, np.float32)
    reading = reading_on(portrait[1], frame.shape, classes, probabilities)
    view = View(classes)
    panel = view.draw(frame, [reading], 1000)[:, 640:]
    rows = []
    for colour in class_colours(classes).values():
        bar = (panel[:, 12:] == np.array(colour, np.uint8)).all(axis=2).sum(axis=1) >= 15
        rows.append(np.flatnonzero(bar[BARS_TOP : size[1] - 92]))  # above the time line
    assert all(2 <= len(found) <= 6 and np.ptp(found) < 8 for found in rows)
    tops = [found[0] for found in rows]
    assert np.diff(tops).min() > 15, "room for a name in letters of 11 pixels"


def test_a_long_name_is_cut_inside_the_panel(portrait):
    classes = ("x" * 24, "W" * 24)
    frame, landmarks = portrait
    reading = reading_on(landmarks, frame.shape, classes, np.array([0.2, 0.8], np.float32))
    assert (View(classes).draw(frame, [reading])[:, -10:] == np.array(PAPER)).all()


@pytest.mark.parametrize(
    "environment, reason",
    [
        ({}, "DISPLAY is not set"),
        ({"WAYLAND_DISPLAY": "wayland-0"}, "xwayland"),
        ({"DISPLAY": ":4711"}, ":4711 does not answer"),
    ],
)
def test_a_missing_display_is_found_before_a_window_is_opened(monkeypatch, environment, reason):
    monkeypatch.setattr("sys.platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert reason in display_problem()
