"""One model, several vocabularies: four classes by default, all or others on demand, everywhere."""

import csv
import json
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from conftest import SMILE, run, run_here, user_error
from scipy.special import softmax

from utils.app import web_page
from utils.config import EMOTIONS, UserError
from utils.data.face_set import load_face_set, save_face_set
from utils.files import write_json
from utils.model import schema
from utils.model.bundle import find_model, load_info
from utils.model.classifier import EmotionClassifier, mix
from utils.training.pretrained import embed_set, open_pretrained

SEVEN = ("anger", "disgust", "fear", "happy", "neutral", "sad", "surprise")


@pytest.fixture(scope="module")
def faces(landmark_file):
    data = load_face_set(landmark_file)
    return {"landmarks": data.landmarks, "blendshapes": data.blendshapes, "crops": data.crop[:]}


@pytest.fixture(scope="module")
def angry_file(landmark_file, tmp_path_factory):
    """A set whose faces of fear are called anger, which is beyond the default vocabulary."""
    path, data = tmp_path_factory.mktemp("angry") / "angry.faces", load_face_set(landmark_file)
    save_face_set(path, replace(data, label=np.where(data.label == "fear", "anger", data.label)))
    return path


@pytest.mark.parametrize("network", ["hybrid", "landmarks", "crop"])
@pytest.mark.parametrize(
    ("classes", "read", "calibration"),
    [
        (None, EMOTIONS, 0),
        ("all", SEVEN, 1),
        (["all"], SEVEN, 1),
        (["sad", "Happiness"], ("happy", "sad"), 0),
        (["sad", "anger", "happy"], ("anger", "happy", "sad"), 1),
    ],
)
def test_a_choice_is_its_columns_with_the_calibration_of_what_holds_them(
    seven, faces, network, classes, read, calibration
):
    model, whole = (
        EmotionClassifier(f"{seven}:{network}", classes),
        EmotionClassifier(f"{seven}:{network}", "all"),
    )
    info = load_info(seven)
    about = info if network == "hybrid" else info | info["parts"][network] | {"temperature": 1.0}
    vocabulary = schema.vocabularies(about)[calibration]
    assert model.classes == read and model.threshold == vocabulary["threshold"]
    columns = [SEVEN.index(name) for name in read]
    exponent = vocabulary["temperature"] / about["temperature"]
    expected = mix([(1.0, whole.predict(**faces).probabilities[:, columns])], exponent)
    np.testing.assert_allclose(model.predict(**faces).probabilities, expected, atol=1e-5)


def test_what_a_model_lacks_is_named(seven):
    with pytest.raises(UserError, match="does not read wink; it reads: anger, disgust, .*surprise$"):
        EmotionClassifier(seven, ["happy", "wink"])


def test_a_file_alone_reads_as_its_bundle_says(seven):
    (path,) = find_model(f"{seven}:crop").parts
    metadata = json.loads(zipfile.ZipFile(path).read("emotion.json"))
    assert metadata["vocabularies"] == load_info(seven)["parts"]["crop"]["vocabularies"]
    assert metadata["classes"] == list(SEVEN)


@pytest.mark.parametrize(
    "wrong",
    [
        {"classes": ["sad", "happy"]},
        {"classes": list(SEVEN)},
        {"classes": ["happy", "wink"]},
        {"classes": ["happy", "happy"]},
        {"classes": ["happy"]},
        {"temperature": 0},
        {"threshold": None},
    ],
)
def test_a_vocabulary_that_does_not_fit_is_refused(seven, wrong):
    info = load_info(seven)
    info["vocabularies"] = [info["vocabularies"][0] | wrong]
    with pytest.raises(ValueError, match="vocabular"):
        schema.check(info, schema.Bundle)


def test_main_reads_four_seven_or_what_is_named(seven, tmp_path):
    columns = {}
    for name, classes in {"four": [], "seven": ["all"], "three": ["angry", "happy", "neutral"]}.items():
        chosen = ["--classes", *classes] if classes else []
        given = ["--source", SMILE, "--no-display", "--model", seven, "--output", tmp_path / f"{name}.csv"]
        done = run("main.py", *given, *chosen, "--plot", tmp_path / f"{name}.png")
        assert done.returncode == 0, done.stderr
        with (tmp_path / f"{name}.csv").open(encoding="utf-8") as file:
            first, *_ = csv.DictReader(file)
        columns[name] = list(first)[10:]
        assert sum(float(first[one]) for one in columns[name]) == pytest.approx(1, abs=1e-3)
    assert columns == {"four": list(EMOTIONS), "seven": list(SEVEN), "three": ["anger", "happy", "neutral"]}
    error = user_error(
        run("main.py", "--source", SMILE, "--no-display", "--model", seven, "--classes", "a", "b")
    )
    assert "does not read a, b; it reads: anger" in error


def judged(folder, *arguments):
    """Return the recalls, by class, of each system that evaluate.py judged, and what it said."""
    done = run_here("evaluate.py", *arguments, "--output", folder)
    assert done.returncode == 0, done.stderr
    reports = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*/*/report.json")]
    return {one["model"]: one["all"] for one in reports}, done.stderr


def test_pictures_are_judged_by_the_vocabulary_that_holds_their_labels(
    seven, bundle, pictures, angry_file, tmp_path
):
    found, told = judged(tmp_path / "pictures", "--images", pictures / "Test", "--model", seven, "--jobs", 1)
    assert len(found[seven.name]["confusion_matrix"][0]) == 5 and "may still predict" not in told
    given = "--data", angry_file, "--split", "all"
    found, told = judged(tmp_path / "all", *given, "--model", seven)
    assert "no picture of disgust, fear, surprise" in told
    assert list(found[seven.name]["recall"]) == ["anger", "happy", "neutral", "sad"]
    found, _ = judged(tmp_path / "narrow", *given, "--model", seven, "--classes", "sad", "happy")
    assert len(found[seven.name]["confusion_matrix"][0]) == 5, "as main.py reads them"
    found, told = judged(tmp_path / "both", *given, "--compare", seven, bundle)
    assert {tuple(one["recall"]) for one in found.values()} == {("happy", "neutral", "sad")}
    assert "left out, not a class of the model: 15 anger" in told and "no picture of fear," in told


@pytest.mark.parametrize(
    ("labels", "read"),
    [({"happy", "sad"}, EMOTIONS), ({"sad", "anger"}, ("anger", "sad")), ({"wink", "happy"}, EMOTIONS)],
)
def test_fine_tuning_starts_from_what_the_base_reads_of_the_labels(seven, faces, landmark_file, labels, read):
    data = load_face_set(landmark_file)
    base = open_pretrained(seven, embed_set(data, seven), labels)
    model = EmotionClassifier(seven, read)
    assert base.classes == model.classes == read and base.threshold == model.threshold
    expected = model.predict(**faces).probabilities
    np.testing.assert_allclose(softmax(base.layer.logits(base.hidden(data)), axis=1), expected, atol=0.02)


def test_a_fine_tuned_model_reads_what_it_learned_and_is_a_base_again(seven, angry_file, tmp_path):
    arguments = "--data", angry_file, "--output", tmp_path / "own", "--max-forgetting", 1
    done = run_here("train_model.py", "--base", seven, *arguments)
    assert done.returncode == 0, done.stderr
    model = EmotionClassifier(tmp_path / "own")
    assert model.classes == model.network_classes == ("anger", "happy", "neutral", "sad")
    data = load_face_set(angry_file)
    predicted = model.predict(data.landmarks, data.blendshapes, data.crop).probabilities.argmax(axis=1)
    assert (predicted == data.class_index(model.classes)).mean() > 0.8
    assert open_pretrained(tmp_path / "own", embed_set(data, tmp_path / "own")).classes == model.classes
    done = run_here("export_model.py", "--model", tmp_path / "own", "--data", angry_file, "--formats", "onnx")
    assert done.returncode == 0, done.stderr
    info, _ = web_page.describe_model(find_model(tmp_path / "own"))
    (only,) = info["vocabularies"]
    assert only["classes"] == list(model.classes) and only["temperature"] == 1


def test_training_takes_vocabularies_from_a_calibration(landmark_file, tmp_path):
    narrow = {"classes": ["happy", "sad"], "temperature": 0.9, "threshold": 0.6, "sources": {}}
    written = {"calibration": {"temperature": 1.2, "threshold": 0.5}, "vocabularies": [narrow]}
    write_json(tmp_path / "left_out.json", written)
    arguments = "--data", landmark_file, "--calibration", tmp_path / "left_out.json", "--epochs", 2
    done = run_here("train_model.py", *arguments, "--output", tmp_path / "new")
    assert done.returncode == 0, done.stderr
    info = load_info(tmp_path / "new")
    del narrow["sources"]
    assert info["vocabularies"] == [narrow] and info["threshold"] == 0.5
    assert EmotionClassifier(tmp_path / "new").classes == ("happy", "sad")
    assert EmotionClassifier(tmp_path / "new", "all").classes == EMOTIONS
    refused = run_here("train_model.py", *arguments, "--classes", "happy", "sad", "--output", tmp_path / "x")
    assert "is of another network or other classes" in user_error(refused)


def test_the_page_offers_them_and_shows_the_first(seven):
    info, _ = web_page.describe_model(find_model(seven))
    assert [one["classes"] for one in info["vocabularies"]] == [list(EMOTIONS), list(SEVEN)]
    info, _ = web_page.describe_model(find_model(seven), ["anger", "happy"])
    assert [len(one["classes"]) for one in info["vocabularies"]] == [2, 4, 7]


def test_exports_carry_them(seven, tmp_path):
    done = run_here("export_model.py", "--model", seven, "--formats", "tflite", "onnx", "--output", tmp_path)
    assert done.returncode == 0, done.stderr
    assert load_info(tmp_path)["vocabularies"] == load_info(seven)["vocabularies"]
    assert EmotionClassifier(tmp_path).classes == EMOTIONS
    assert EmotionClassifier(tmp_path / "emotion_crop.tflite").classes == EMOTIONS
    import onnxruntime

    session = onnxruntime.InferenceSession(str(tmp_path / "emotion_crop.onnx"))
    metadata = json.loads(session.get_modelmeta().custom_metadata_map["emotion.json"])
    assert metadata["vocabularies"][0]["classes"] == list(EMOTIONS)
