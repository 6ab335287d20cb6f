"""docs/model_io.md: the test vector is the shipped model's; programs without our code agree."""

import base64
import csv
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import DATA, run

from utils.config import ROOT
from utils.model.classifier import EmotionClassifier

EXAMPLES = ROOT / "docs" / "examples"
STALE = "the shipped model has changed: python tests/measure/write_vector.py"


@pytest.fixture(scope="module")
def vector():
    return json.loads((ROOT / "docs" / "test_vector.json").read_text())


@pytest.fixture(scope="module")
def face(vector):
    """(landmarks, blendshapes, crop)"""
    return (
        np.array(vector["landmarks"], np.float32),
        np.array(vector["blendshapes"], np.float32),
        np.frombuffer(base64.b64decode(vector["crop"]), np.uint8).reshape(120, 120),
    )


@pytest.fixture(scope="module")
def example():
    """docs/examples/read_face.py, which imports nothing of ours."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HTTPS_PROXY", "")  # it sets it; put back afterwards
        patch.syspath_prepend(EXAMPLES)
        import read_face

        yield read_face


def test_the_vector_is_what_main_answers(vector, tmp_path):
    done = run(
        "main.py", "--source", ROOT / vector["picture"], "--no-display", "--output", tmp_path / "o.csv"
    )
    assert done.returncode == 0, done.stderr
    *_, row = csv.DictReader((tmp_path / "o.csv").open())
    values = [float(row[name]) for name in vector["classes"]]
    expected = vector["probabilities"]["hybrid"]
    np.testing.assert_allclose(values, expected, atol=1e-3, err_msg=STALE)  # other processors
    assert 0.3 < max(expected) < 0.9, "a face that the model is not sure of: it shows small mistakes"


@pytest.mark.parametrize("network", ["landmarks", "crop", "hybrid"])
def test_the_vector_has_the_probabilities_of_each_network(vector, face, network):
    model = EmotionClassifier(network, None if network == "hybrid" else "all")
    found = model.predict(*(one[None] for one in face)).probabilities[0]
    np.testing.assert_allclose(found, vector["probabilities"][network], atol=1e-3, err_msg=STALE)


def test_the_python_program_predicts_as_main_does(vector, face, example):
    landmarks, blendshapes, crop = face
    ours = EmotionClassifier("hybrid").predict(*(one[None] for one in face)).probabilities[0]
    np.testing.assert_allclose(example.predict(*face), ours, atol=1e-5)
    np.testing.assert_allclose(
        example.predict(*face), vector["probabilities"]["hybrid"], atol=1e-3, err_msg=STALE
    )
    picture = example.cv2.imread(str(ROOT / vector["picture"]))[..., ::-1]
    found = example.crop_face(np.ascontiguousarray(picture), landmarks.astype(float))
    assert np.abs(found.astype(int) - crop).max() <= 2, "grey levels"


def test_the_python_program_reads_a_photograph_outside_the_repository(tmp_path):
    page = (ROOT / "docs" / "model_io.md").read_text()
    copied = [ROOT / "models" / name for name in page.split("files beside it:")[1].split("`")[1:8:2]]
    for path in (EXAMPLES / "read_face.py", *copied, ROOT / "scr" / "utils" / "faces" / "reference_face.csv"):
        shutil.copy(path, tmp_path)
    done = subprocess.run(
        [sys.executable, tmp_path / "read_face.py", DATA / "astronaut.jpg"],
        capture_output=True,
        text=True,
        env=os.environ | {"HTTPS_PROXY": "http://127.0.0.1:9"},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split("'happy': ")[1].split(",")[0]) > 0.9, done.stdout


def test_the_node_program_reads_the_vector(vector, tmp_path):
    node = shutil.which("node")
    found = node and subprocess.run(
        [node, "-e", "require('onnxruntime-node')"], capture_output=True, cwd=ROOT
    )
    if not found or found.returncode:
        pytest.skip("needs node and onnxruntime-node (NODE_PATH)")
    done = run("export_model.py", "--formats", "onnx", "--output", tmp_path)
    assert done.returncode == 0, done.stderr
    done = subprocess.run(
        [node, EXAMPLES / "read_face.mjs", tmp_path], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    expected = vector["probabilities"]["hybrid"]
    np.testing.assert_allclose([found[name] for name in vector["classes"]], expected, atol=0.01)
