"""Crop network and hybrid: trained, exported, run, calibrated and fine-tuned as the landmark network is."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from conftest import run, run_here, user_error

from utils.config import EMOTIONS, UserError
from utils.data.face_set import load_face_set, save_face_set
from utils.data.splits import assign_split
from utils.evaluation.metrics import confidence_threshold
from utils.model.bundle import NAME, TFLITE
from utils.model.classifier import EmotionClassifier, mix
from utils.training import crop_network
from utils.training.export import load_bundle
from utils.training.leave_one_source_out import LeftOut, calibrate


@pytest.fixture(scope="module")
def hybrid(landmark_file, tmp_path_factory):
    """A hybrid trained for two epochs on the tests' pictures, made by the script."""
    output = tmp_path_factory.mktemp("hybrid")
    arguments = "--data", landmark_file, "--output", output, "--epochs", 2, "--network", "hybrid"
    done = run_here("train_model.py", *arguments)
    assert done.returncode == 0, done.stderr
    return output


def test_a_set_holds_the_crops_that_live_use_makes(landmark_file, pictures):
    import cv2

    from utils.faces.crops import crop_face

    data = load_face_set(landmark_file)
    assert len(data.crop) == len(data)
    for row in (0, len(data) - 1):
        frame_bgr = cv2.imread(str(pictures / data.path[row]))
        np.testing.assert_array_equal(data.crop[row], crop_face(frame_bgr, data.landmarks[row]))


def test_a_hybrid_is_the_weighted_mean_of_its_parts(hybrid, landmark_file):
    data = load_face_set(landmark_file)
    faces = {"landmarks": data.landmarks, "blendshapes": data.blendshapes}
    whole = EmotionClassifier(hybrid)
    parts = {name: EmotionClassifier(hybrid / TFLITE[name]) for name in ("landmarks", "crop")}
    assert whole.needs_crops and parts["crop"].needs_crops and not parts["landmarks"].needs_crops
    crops = data.crop[:]
    of_parts = {name: part.predict(**faces, crops=crops).probabilities for name, part in parts.items()}
    info = json.loads((hybrid / f"{NAME}.json").read_text())
    expected = mix([(info["weights"][name], of_parts[name]) for name in of_parts], info["temperature"])
    np.testing.assert_allclose(whole.predict(**faces, crops=data.crop).probabilities, expected, atol=1e-6)
    for needy in (whole, parts["crop"]):
        with pytest.raises(ValueError, match="crops"):
            needy.predict(**faces)
    embedding = whole.predict_crops(crops[:2]).embedding
    assert embedding.shape == (2, info["parts"]["crop"]["features"]["embedding"])
    assert whole.classes == EMOTIONS


def test_the_deployed_crop_network_predicts_as_its_heads_do(hybrid, landmark_file):
    from utils.faces.crops import network_input

    parts, info = load_bundle(hybrid)
    crops = load_face_set(landmark_file).crop[:8]
    outputs = parts["crop"][0].predict(network_input(crops, crop_network.INPUT), verbose=0)
    lite = EmotionClassifier(hybrid / TFLITE["crop"])
    np.testing.assert_allclose(lite.predict_crops(crops).probabilities, outputs["probabilities"], atol=0.02)
    kernel, bias = parts["crop"][0].get_layer("probabilities").get_weights()
    logits = outputs["embedding"] @ kernel + bias
    np.testing.assert_allclose(np.log(outputs["probabilities"]) - logits, 0 * logits + (
        np.log(outputs["probabilities"]) - logits
    ).mean(axis=1, keepdims=True), atol=1e-3)  # fmt: skip


def test_a_fine_tuned_backbone_learns_with_its_heads(landmark_file):
    from utils.faces.crops import network_input
    from utils.training import ensemble

    data = assign_split(load_face_set(landmark_file).of_classes(EMOTIONS))
    recipe = crop_network.Recipe(epochs=1, batch_size=16, fine_tuned_faces=320)
    with ensemble.maps_of(data, "crop") as data:
        parts = data.part("train"), data.part("val")
        one, other, whole = (
            crop_network.train(*parts, made, 0, EMOTIONS, progress=False)
            for made in (recipe, recipe, replace(recipe, fine_tuned_share=1.0))
        )
        predicted = one.predict(parts[1])
        np.testing.assert_array_equal(other.predict(parts[1]), predicted)  # the same seed, the same weights
    start, end, middle = (
        {layer.name: layer.get_weights() for layer in backbone.layers if layer.weights}
        for backbone in (crop_network.BACKBONE.build(), whole.backbone, one.backbone)
    )
    for name, (kernel, bias) in start.items():
        kept = name == "conv1" or int(name[-1]) <= recipe.frozen_blocks
        assert np.array_equal(end[name][0], kernel) == np.array_equal(end[name][1], bias) == kept, name
        np.testing.assert_allclose(middle[name][0], kernel + 0.75 * (end[name][0] - kernel), atol=1e-5)
    (deployed,) = one.deployable()
    seen = network_input(parts[1].crop[:], crop_network.INPUT)
    np.testing.assert_allclose(deployed.predict(seen, verbose=0)["probabilities"], predicted, atol=1e-4)


def test_feature_maps_are_computed_once_and_beyond_a_bound_each_time(landmark_file, tmp_path, monkeypatch):
    monkeypatch.setattr(crop_network, "MOST_MAPS", 6)
    data = load_face_set(landmark_file)
    maps = crop_network.FeatureMaps(data.crop, tmp_path / "maps")
    rows = np.array([3, 1, 7, 4])
    first = maps[rows]
    np.testing.assert_array_equal(maps[rows], first)
    np.testing.assert_allclose(maps[np.array([7, 9, 10, 11, 3])][[0, 4]], first[[2, 0]], atol=0.01)
    assert (tmp_path / "maps").stat().st_size == 4 * first[0].nbytes


def test_a_changed_backbone_is_refused(tmp_path):
    backbone = replace(crop_network.BACKBONE, file=tmp_path / "backbone.npz")
    with pytest.raises(UserError, match="backbone.npz.*restore it"):
        backbone.load()
    backbone.file.write_bytes(crop_network.BACKBONE.file.read_bytes()[:-1])
    with pytest.raises(UserError, match="damaged"):
        backbone.load()


def test_a_set_without_crops_says_what_to_do(landmark_file, hybrid, tmp_path):
    save_face_set(tmp_path / "plain.faces", replace(load_face_set(landmark_file), crop=None))
    arguments = "--data", tmp_path / "plain.faces", "--output", tmp_path
    assert "hold none" in user_error(run_here("train_model.py", *arguments, "--network", "crop"))
    assert "hold none" in user_error(run("evaluate.py", *arguments, "--model", hybrid))


def test_exports_of_a_hybrid_predict_as_keras_does(hybrid, landmark_file, tmp_path):
    copy = shutil.copytree(hybrid, tmp_path / "copy")
    done = run_here(
        "export_model.py", "--model", copy, "--data", landmark_file, "--formats", "tflite", "onnx"
    )
    assert done.returncode == 0, done.stderr
    info = json.loads((copy / f"{NAME}.json").read_text())
    assert {f"{NAME}.onnx", "emotion_crop.onnx"} <= set(info["sha256"])


def test_evaluate_and_live_use_read_a_hybrid(hybrid, landmark_file, pictures, tmp_path):
    done = run(
        "evaluate.py", "--data", landmark_file, "--model", hybrid, "--output", tmp_path, "--split", "all"
    )
    assert done.returncode == 0, done.stderr
    picture = next(pictures.rglob("*.png"))
    done = run(
        "main.py", "--source", picture, "--model", hybrid, "--no-display", "--output", tmp_path / "o.csv"
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "o.csv").read_text().count("\n") == 2


def test_calibration_of_a_source_comes_from_the_others():
    generator = np.random.default_rng(0)
    pooled = {}
    for name, sharpness in (("a", 4.0), ("b", 4.0), ("c", 1.0)):
        label = generator.integers(0, 4, 800)
        logits = generator.normal(size=(800, 4)) + 2 * np.eye(4)[label]
        pooled[name] = label, mix([(sharpness, np.exp(logits))])
    none = np.empty(0, int)
    found = calibrate(
        [LeftOut(name, "left out", label, none, {"crop": [p]}) for name, (label, p) in pooled.items()], "crop"
    )
    assert found["sources"]["c"]["temperature"] > found["temperature"] > 0.6
    assert found["sources"]["c"]["temperature"] == pytest.approx(2, abs=0.3)
    label, probabilities = np.array([0, 0, 1]), np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3]])
    assert confidence_threshold(label, probabilities, 0.9) == (0.8, pytest.approx(2 / 3))
    assert confidence_threshold(label, probabilities, 0.9, np.array([1, 1, 0.1])) == (0.0, 1.0)
