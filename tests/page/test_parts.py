"""The page's modules, in Node, against the Python that they mirror: where one changes, a test fails."""

import base64
import json
import re
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import DATA

from utils.app import pipeline, smoothing, web_page
from utils.config import MODELS, UserError
from utils.faces.crops import crop_face, mouth_contrast, network_input
from utils.faces.detection import RotatedBox
from utils.faces.features import compute_features, face_box
from utils.faces.images import brighten, shrink
from utils.faces.landmarker import FaceLandmarker
from utils.faces.tracking import PointFilter, appearance_of, change

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js")
HERE = Path(__file__).parent
CLASSES = ("fear", "happy", "neutral", "sad")
REGION, OTHER = (210.0, 130.0, 173.0, 0.3), (300.0, 90.0, 60.0, 0.0)


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    """The page's own files with the constants, without a model or LiteRT.js."""
    folder = tmp_path_factory.mktemp("page") / "page"
    shutil.copytree(web_page.SOURCES, folder)
    (folder / "constants.js").write_text(web_page.constants_script(), encoding="utf-8")
    (folder / "runtime").mkdir()
    names = "export const Tensor = 0, loadAndCompile = 0, loadLiteRt = 0"
    (folder / "runtime" / "litert.js").write_text(names)
    (folder / "package.json").write_text('{"type": "module"}')
    return folder


@pytest.fixture(scope="module")
def portrait() -> np.ndarray:
    """A portrait of odd width and height, BGR."""
    return np.ascontiguousarray(cv2.imread(str(DATA / "astronaut.jpg"))[:391, :427])


@pytest.fixture(scope="module")
def case(portrait) -> dict:
    rng = np.random.default_rng(5)
    (face,) = FaceLandmarker().detect_picture(portrait)
    info = json.loads((MODELS / "emotion_mlp.json").read_text(encoding="utf-8"))
    rows = rng.dirichlet(np.full(4, 0.4), 60)
    rgba = cv2.cvtColor(portrait, cv2.COLOR_BGR2RGBA)
    return {
        "picture": {"data": encoded(rgba), "width": portrait.shape[1], "height": portrait.shape[0]},
        "landmarks": face.landmarks.tolist(),
        "blendshapes": face.blendshapes.tolist(),
        "recipe": info["features"],
        "cropRecipe": info["parts"]["crop"]["features"],
        "region": REGION,
        "other": OTHER,
        "classes": CLASSES,
        "threshold": 0.5,
        "moments": [(int(time), row.tolist()) for time, row in zip(rng.integers(5, 90, 60).cumsum(), rows)],
        "points": rng.normal(100, 5, (12, 9)).astype(np.float32).tolist(),
    }


@pytest.fixture(scope="module")
def made(page, case) -> dict:
    command = ["node", str(HERE / "parts.mjs"), str(page)]
    done = subprocess.run(command, input=json.dumps(case), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def encoded(pixels: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(pixels).tobytes()).decode()


def test_pixels_are_those_of_opencv(made, case, portrait):
    height, width = portrait.shape[:2]
    even = portrait[: height // 2 * 2, : width // 2 * 2]
    half = (width // 2, height // 2)
    expected = {
        "halved_even": cv2.resize(even, half, interpolation=cv2.INTER_AREA),
        "halved_odd": cv2.resize(portrait, half, interpolation=cv2.INTER_AREA),
        "shrunk": shrink(portrait, 0.37),
        "enlarged": cv2.resize(np.ascontiguousarray(portrait[:88, :88]), (160, 160)),
        "grey": cv2.cvtColor(portrait, cv2.COLOR_BGR2GRAY),
        "bright": brighten(portrait >> 4),
        "region": RotatedBox(*REGION).cut(portrait, 256, 100),
        "crop": crop_face(portrait, np.array(case["landmarks"], np.float32)),
    }
    for name, pixels in expected.items():
        got = np.frombuffer(base64.b64decode(made["pictures"][name]), np.uint8)
        if pixels.ndim == 3:
            got, pixels = got.reshape(-1, 4)[:, :3], pixels[..., ::-1].reshape(-1, 3)
        off = np.abs(got.astype(int) - pixels.reshape(got.shape))
        assert off.max() <= 1 and (off > 0).mean() < 0.001, name


def test_features_and_network_input_are_those_of_python(made, case):
    landmarks, blendshapes = (np.array(case[key], np.float32)[None] for key in ("landmarks", "blendshapes"))
    features = compute_features(landmarks, blendshapes, case["recipe"])[0]
    np.testing.assert_allclose(made["features"], features, atol=2e-5)
    crop = np.frombuffer(base64.b64decode(made["pictures"]["crop"]), np.uint8).reshape(1, 120, 120)
    values = network_input(crop, case["cropRecipe"])[0].ravel()
    np.testing.assert_allclose(made["input"], values, atol=1e-3)
    assert made["mouth"] == pytest.approx(mouth_contrast(crop[0]), abs=1e-4)
    height = case["picture"]["height"]
    box = pipeline.box_px(face_box(landmarks[0]).tolist(), (height, case["picture"]["width"]))
    assert tuple(made["box"]) == box


def test_labels_are_those_of_python(made, case):
    smoother = smoothing.EmotionSmoother(CLASSES, case["threshold"], 300)
    expected = [smoother.update(np.array(row, np.float32), time) for time, row in case["moments"]]
    assert [label for label, _ in made["labels"]] == [label for label, _ in expected]
    assert smoothing.UNCERTAIN in dict(expected)
    np.testing.assert_allclose([one[1] for one in made["labels"]], [one[1] for one in expected], atol=1e-5)


def test_tracking_is_that_of_python(made, case, portrait):
    points = np.array(case["points"], np.float32)
    point_filter = PointFilter(points[0], 0)
    expected = [point_filter.update(row, 80, 40 * i) for i, row in enumerate(points)]
    np.testing.assert_allclose(made["smoothed"], expected, rtol=1e-5)
    one, other = (appearance_of(portrait, RotatedBox(*region)) for region in (REGION, OTHER))
    assert made["change"] == pytest.approx(change(one, other), abs=1e-4)


def test_the_table_is_quoted_and_no_formula(made):
    header, first, second = made["csv"].splitlines()
    assert header.endswith('confidence,a,"b,""c"')
    assert first == "./=1+1.jpg,0,0" + "," * 9
    assert second == "x,1,40,0,1,2,3,4,a,0.60000,0.60000,0.40000"


def test_every_constant_that_the_page_names_is_one_of_python(page):
    """A constant that Python renames would be undefined in the page, without an error."""
    exported = {
        name: re.findall(r'"([A-Z_]+)": ', values)
        for name, values in re.findall(r"^export const (\w+) = (.*)$", web_page.constants_script(), re.M)
    }
    aliases = {"theme": "canvas", "recipes": "features"}
    named = 0
    for path in page.glob("*.js"):
        text = path.read_text(encoding="utf-8")
        used = re.findall(r"const \{([\sA-Z_,]+)\} = (\w+)", text)
        used += [(name, module) for module, name in re.findall(r"\b(\w+)\.([A-Z]+_[A-Z_]+)\b", text)]
        for names, module in used:
            for name in re.findall(r"\w+", names):
                assert name in exported[aliases.get(module, module)], f"{path.name}: {module}.{name}"
                named += 1
    assert named > 50


def test_a_damaged_model_is_refused_in_a_line(page):
    """Each value of model.json is replaced by each kind of junk."""
    info, _ = web_page.describe_model(web_page.find_model(MODELS))
    command = ["node", str(HERE / "fuzz.mjs"), str(page / "classifier.js")]
    done = subprocess.run(command, input=json.dumps(info), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)
    assert counts["failed"] == []
    assert counts["refused"] > 200


def test_networks_predict_as_before_with_a_fixed_batch():
    """LiteRT.js would compute something else, without an error, where a shape is packed."""
    from ai_edge_litert.interpreter import Interpreter

    for path, content in web_page.find_model(MODELS).parts.items():
        outputs = []
        for network in (content, web_page.rewrite_network(content)):
            interpreter = Interpreter(model_content=network)
            interpreter.allocate_tensors()
            detail = interpreter.get_input_details()[0]
            values = np.random.default_rng(2).normal(0, 1, detail["shape"]).astype(np.float32)
            interpreter.set_tensor(detail["index"], values)
            interpreter.invoke()
            outputs.append([interpreter.get_tensor(one["index"]) for one in interpreter.get_output_details()])
            operators = {one["op_name"] for one in interpreter._get_ops_details()}
        assert all(np.array_equal(*pair) for pair in zip(*outputs)), path.name
        assert (detail["shape_signature"] > 0).all()
        assert "PACK" not in operators and "SHAPE" not in operators


@pytest.fixture
def no_runtime(tmp_path, monkeypatch):
    """LiteRT.js is not needed: the files of the page are few."""
    monkeypatch.setattr(web_page, "runtime_files", lambda: iter([("runtime/litert.js", b"")]))


def test_a_page_is_replaced_as_a_whole_and_nothing_else(no_runtime, seven, tmp_path):
    folder = web_page.write_page(MODELS, tmp_path / "page")
    (folder / "old.js").write_text("")
    assert web_page.write_page(seven, folder) == folder
    listed = json.loads((folder / web_page.FILE_LIST).read_text())
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert there == {*listed, web_page.FILE_LIST}
    assert len(json.loads((folder / "model.json").read_text())["classes"]) == 7
    assert [path.name for path in tmp_path.iterdir()] == ["page"]
    (tmp_path / "photos").mkdir()
    with pytest.raises(UserError, match="is no page"):
        web_page.write_page(MODELS, tmp_path / "photos")


def test_a_personal_page_says_whose_it_is(no_runtime, tmp_path, monkeypatch, capsys):
    shutil.copytree(MODELS, tmp_path / "ann", ignore=shutil.ignore_patterns("personal", "*.keras"))
    monkeypatch.setattr(web_page, "PERSONAL_MODELS", tmp_path)
    folder = web_page.write_page(tmp_path / "ann", tmp_path / "page")
    assert "has the model" in capsys.readouterr().err
    assert json.loads((folder / "model.json").read_text())["personal"]


def test_without_npm_it_says_what_to_put_where(tmp_path, monkeypatch):
    monkeypatch.setattr(web_page, "DOWNLOADS", tmp_path)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError) as error:
        web_page.write_page(MODELS, tmp_path / "page")
    for fragment in ("@litertjs/core@", "@litertjs/wasm-utils@", str(tmp_path)):
        assert fragment in str(error.value)
    for name in web_page.PACKAGES:
        (tmp_path / f"litertjs-{name}-{web_page.VERSION}.tgz").write_bytes(b"another")
    with pytest.raises(UserError, match="sha512"):
        web_page.write_page(MODELS, tmp_path / "page")
