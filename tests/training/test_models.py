"""Bundles: the same run twice, checked before they are opened, the same predictions in every format."""

import hashlib
import json
import shutil

import joblib
import numpy as np
import pytest
from conftest import DATA, ROOT, run, run_here, user_error

import export_model
from export_model import FORMATS
from utils.config import EMOTIONS, MODELS, TRUST_VARIABLE, UserError
from utils.data.face_set import load_face_set
from utils.evaluation.metrics import MISSED, evaluate_predictions, expected_calibration_error, wilson_interval
from utils.faces.features import compute_features, mirror_faces, mirror_map
from utils.model.bundle import NAME, load_info, read_metadata, shipped
from utils.model.classifier import EmotionClassifier, LiteNetwork
from utils.training.export import load_bundle, open_exported, save_bundle


@pytest.fixture
def copy(bundle, tmp_path):
    return shutil.copytree(bundle, tmp_path / "copy")


def test_two_runs_with_one_seed_give_the_same_weights(bundle, landmark_file, tmp_path):
    run("train_model.py", "--data", landmark_file, "--output", tmp_path, "--epochs", 2)
    first, second = (load_bundle(folder)[0]["landmarks"] for folder in (bundle, tmp_path))
    for one, other in zip(first[0].get_weights(), second[0].get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(first[1].mean_, second[1].mean_)


def test_bundle_has_the_contract(bundle):
    info = json.loads((bundle / f"{NAME}.json").read_text())
    assert info["classes"] == list(EMOTIONS)
    assert set(info["sha256"]) == {f"{NAME}.keras", "scaler.pkl", f"{NAME}.tflite"}
    assert {"features", "training", "data", "metrics", "versions"} <= set(info)
    assert {"learning_curves.png", "confusion_matrix.png"} <= {path.name for path in bundle.iterdir()}
    scaler = joblib.load(bundle / "scaler.pkl")
    assert type(scaler).__name__ == "StandardScaler"


def test_scaler_and_reference_see_the_training_part_only(bundle, landmark_file):
    from utils.data.splits import assign_split

    parts, info = load_bundle(bundle)
    _, scaler = parts["landmarks"]
    data = assign_split(load_face_set(landmark_file).of_classes(EMOTIONS))
    part = data.part("train")
    kept = len(part) - info["training"]["landmarks"]["dropped"]
    assert scaler.n_samples_seen_ == 2 * kept, (
        "each face of the training part that was kept, and its mirror image"
    )
    if kept == len(part):
        partner = mirror_map(np.array(info["features"]["reference"]))
        images = mirror_faces(np.asarray(part.landmarks), part.blendshapes, partner)
        both = [
            compute_features(*faces, info["features"])
            for faces in ((part.landmarks, part.blendshapes), images)
        ]
        np.testing.assert_allclose(scaler.mean_, np.concatenate(both).mean(axis=0), atol=1e-5)


def test_a_feature_that_hardly_moves_is_not_blown_up():
    from utils.training.landmark_network import LEAST_SCALE, fit_scaler

    scaler = fit_scaler([np.array([[0, 1e-7], [1, 2e-7]], np.float32)])
    np.testing.assert_allclose(scaler.scale_, [0.5, LEAST_SCALE], rtol=1e-6)


def test_lite_model_predicts_as_keras_does(bundle, landmark_file):
    parts, info = load_bundle(bundle)
    network, scaler = parts["landmarks"]
    faces = load_face_set(landmark_file)
    x = scaler.transform(compute_features(faces.landmarks, faces.blendshapes, info["features"])).astype(
        np.float32
    )
    classifier = EmotionClassifier(bundle)

    def predict(*seen):
        return classifier.predict(*seen).probabilities

    np.testing.assert_allclose(
        predict(faces.landmarks, faces.blendshapes), network.predict(x, verbose=0), atol=1e-5
    )
    few = faces.landmarks[:5], faces.blendshapes[:5]
    one_by_one = np.concatenate([predict(one[None], scores[None]) for one, scores in zip(*few)])
    np.testing.assert_allclose(one_by_one, predict(*few), atol=1e-6)
    assert predict(faces.landmarks[:0], faces.blendshapes[:0]).shape == (0, 4)


@pytest.mark.parametrize("name", [f"{NAME}.keras", f"{NAME}.tflite"])
def test_a_changed_file_is_refused_by_name_before_it_is_opened(copy, name):
    path = copy / name
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(UserError, match=name):
        EmotionClassifier(copy) if name.endswith(".tflite") else load_bundle(copy)


def test_mean_and_scale_are_read_from_the_json_to_the_bit(bundle):
    kept, restored = joblib.load(bundle / "scaler.pkl"), load_bundle(bundle)[0]["landmarks"][1]
    for name in ("mean_", "scale_", "n_samples_seen_"):
        np.testing.assert_array_equal(getattr(restored, name), getattr(kept, name))


def test_a_network_without_a_number_for_an_answer_is_not_written(copy):
    parts, info = load_bundle(copy)
    network = parts["landmarks"][0]
    network.set_weights([np.full_like(values, np.nan) for values in network.get_weights()])
    with pytest.raises(UserError, match="no model is written"):
        save_bundle(copy, parts, info)
    assert load_bundle(copy)[1] == info and len(list(copy.iterdir())) == 6


def test_a_network_that_predicts_no_probabilities_is_refused_by_name(bundle, tmp_path):
    from utils.training.export import export_tflite
    from utils.training.networks import import_keras

    info, keras = load_info(bundle), import_keras()
    layers = keras.layers
    inputs = keras.Input((1456,), name="features")
    # Probabilities for the mean face that it is tried with when it is opened, none for others.
    far = layers.Dense(4, use_bias=False)(inputs)
    half = layers.Add()([layers.Softmax()(far), far])
    export_tflite(tmp_path / "forged.tflite", (keras.Model(inputs, half),), info)
    network = LiteNetwork(tmp_path / "forged.tflite", (tmp_path / "forged.tflite").read_bytes())
    with pytest.raises(UserError, match="forged.tflite predicts no probabilities"):
        network.predict(np.ones((1, 1456), np.float32))
    with pytest.raises(UserError, match="forged.tflite predicts no probabilities"):
        network.predict(np.full((1, 1456), np.nan, np.float32))


def test_a_lite_file_without_its_entry_runs_only_if_it_is_trusted(copy, monkeypatch, capsys):
    info = json.loads((copy / f"{NAME}.json").read_text())
    shutil.copy(copy / f"{NAME}.tflite", copy / "unlisted.tflite")
    with pytest.raises(UserError, match="unlisted.tflite is listed in no .*--trust"):
        EmotionClassifier(copy / "unlisted.tflite")
    del info["sha256"][f"{NAME}.tflite"]
    for change in (
        lambda: (copy / f"{NAME}.json").write_text(json.dumps(info)),
        (copy / f"{NAME}.json").unlink,
    ):
        change()
        with pytest.raises(UserError, match=f"{NAME}.tflite is listed in no .*--trust"):
            EmotionClassifier(copy)
    monkeypatch.setenv(TRUST_VARIABLE, "1")
    assert EmotionClassifier(copy).classes == EMOTIONS
    assert f"{NAME}.tflite is listed in no" in capsys.readouterr().err


def test_a_damaged_lite_file_is_refused_even_if_it_is_trusted(copy, tmp_path, monkeypatch):
    monkeypatch.setenv(TRUST_VARIABLE, "1")
    content = bytearray((copy / f"{NAME}.tflite").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "a.tflite").write_bytes(content)
    with pytest.raises(UserError, match="a.tflite .*sha256 of the network differs"):
        EmotionClassifier(tmp_path / "a.tflite")


def test_trust_is_asked_for_by_a_flag(copy):
    (copy / f"{NAME}.json").unlink()
    arguments = "--source", DATA / "astronaut.jpg", "--no-display", "--model", copy
    assert "add --trust" in user_error(run("main.py", *arguments))
    done = run("main.py", *arguments, "--trust")
    assert done.returncode == 0 and "because of --trust" in done.stderr


def test_the_shipped_files_are_those_that_the_code_knows():
    """CONTRIBUTING.md has the command that writes the list anew."""
    known = {name: digest for digest, name in shipped().items()}
    assert known == {name: hashlib.sha256((ROOT / name).read_bytes()).hexdigest() for name in known}
    listed = {
        f"models/{name}" for name in load_info(MODELS)["sha256"] if not name.endswith(("_int8.tflite", "x"))
    }
    assert {"models/emotion_mlp.json", *listed} <= set(known)


def test_a_shipped_file_alone_is_known(tmp_path):
    shutil.copy(MODELS / f"{NAME}.tflite", tmp_path / "mine.tflite")
    assert EmotionClassifier(tmp_path / "mine.tflite").classes == EMOTIONS


@pytest.mark.parametrize("content", [b"", b"{", b"{}"])
def test_a_damaged_json_is_named(copy, content):
    (copy / f"{NAME}.json").write_bytes(content)
    with pytest.raises(UserError, match=f"{NAME}.json is damaged"):
        EmotionClassifier(copy)


def test_foreign_and_missing_models_are_named(tmp_path):
    (tmp_path / "foreign.tflite").write_bytes(b"TFL3 not ours")
    for path, what in (
        (tmp_path / "foreign.tflite", "foreign.tflite"),
        (tmp_path / "none.tflite", "none.tflite"),
        (tmp_path, "no model at .*train_model.py --images"),
        ("bobb", "no model named bobb; .*train it: .* --subject bobb"),
    ):
        with pytest.raises(UserError, match=what):
            EmotionClassifier(path)


@pytest.mark.parametrize("recipe, epochs", [("default", 20), ("published", 2)])
def test_exports_predict_as_keras_does_on_real_faces(recipe, epochs, landmark_file, tmp_path, monkeypatch):
    flags = "--data", landmark_file, "--output", tmp_path, "--epochs", epochs, "--recipe", recipe
    done = run_here("train_model.py", *flags)
    assert done.returncode == 0, done.stderr
    formats = (
        ["tflite", "int8", "onnx"] if recipe == "default" else ["tflite", "onnx"]
    )  # hardly trained, int8 may flip a face
    monkeypatch.setattr(export_model, "MODELS", tmp_path)
    done = run_here("export_model.py", "--model", tmp_path, "--data", landmark_file, "--formats", *formats)
    assert done.returncode == 0, done.stderr
    assert f"{NAME}.json lists the new files, so `git status` shows it" in done.stdout
    assert "parity with Keras checked" in done.stdout
    parts, info = load_bundle(tmp_path)
    network, scaler = parts["landmarks"]
    faces = load_face_set(landmark_file)
    features = compute_features(faces.landmarks, faces.blendshapes, info["features"])
    expected = network.predict(scaler.transform(features).astype(np.float32), verbose=0)
    for form in formats:
        path, tolerance = tmp_path / f"{NAME}{FORMATS[form]}", 0.05 if form == "int8" else 1e-5
        np.testing.assert_allclose(open_exported(path)(features), expected, atol=tolerance, err_msg=path.name)
        assert path.name in info["sha256"]
        if path.suffix == ".tflite":
            assert read_metadata(path)["classes"] == list(EMOTIONS)

    import onnx

    model = onnx.load(tmp_path / f"{NAME}.onnx")
    tensors = [*model.graph.input, *model.graph.output]
    assert [tensor.name for tensor in tensors] == ["features", "probabilities"]
    assert all(tensor.doc_string for tensor in tensors)
    properties = {item.key: item.value for item in model.metadata_props}
    assert json.loads(properties["emotion.json"])["features"] == info["features"]


def test_published_recipe_is_the_readme_s(landmark_file, tmp_path):
    done = run_here(
        "train_model.py",
        "--data",
        landmark_file,
        "--output",
        tmp_path,
        "--epochs",
        1,
        "--recipe",
        "published",
    )
    assert done.returncode == 0, done.stderr
    parts, info = load_bundle(tmp_path)
    network, scaler = parts["landmarks"]
    layers = [
        (type(layer).__name__, getattr(layer, "units", getattr(layer, "rate", None)))
        for layer in network.layers
    ]
    block = [
        ("Dense", 1024),
        ("BatchNormalization", None),
        ("Dropout", 0.5),
        ("Dense", 512),
        ("BatchNormalization", None),
        ("Dropout", 0.5),
        ("Dense", 256),
        ("BatchNormalization", None),
        ("Dropout", 0.4),
        ("Dense", 128),
        ("Dropout", 0.3),
        ("Dense", 4),
    ]
    assert layers == block
    assert (
        info["features"] == {"kind": "raw", "points": 468, "blendshapes": False}
        and info["training"]["landmarks"]["learning_rate"] == 1e-5
    )
    assert len(scaler.mean_) == 1404


def test_training_reads_txt_and_several_files(landmark_file, tmp_path):
    run("balance_dataset.py", "--data", landmark_file, "--output", tmp_path / "set")
    done = run_here(
        "train_model.py",
        "--data",
        tmp_path / "set.txt",
        landmark_file,
        "--output",
        tmp_path / "model",
        "--epochs",
        1,
    )
    assert done.returncode == 0, done.stderr
    info = json.loads((tmp_path / "model" / f"{NAME}.json").read_text())
    assert len(info["data"]["files"]) == 2 and not info["features"]["blendshapes"], (
        "a .txt has no blendshapes"
    )


def test_training_without_a_class_says_which(landmark_file, tmp_path):
    from utils.data.face_set import save_face_set

    data = load_face_set(landmark_file)
    save_face_set(tmp_path / "three.faces", data.select(data.label != "fear"))
    assert "no fear in" in user_error(
        run_here(
            *("train_model.py", "--data", tmp_path / "three.faces", "--output", tmp_path),
            *("--classes", "fear", "happy", "sad"),
        )
    )
    assert "no set of faces" in user_error(
        run_here("train_model.py", "--data", tmp_path / "none.faces", "--output", tmp_path)
    )


def test_evaluate_reads_as_main_does_and_counts_missed_faces_as_wrong(bundle, pictures, tmp_path):
    root = shutil.copytree(pictures, tmp_path / "pictures")
    for number in range(4):
        shutil.copy(DATA / "landscape.jpg", root / "Train" / "Sad" / f"landscape{number}.jpg")
    table = tmp_path / "main.csv"
    done = run("main.py", "--source", root, "--model", bundle, "--no-display", "--output", table)
    assert done.returncode == 0, done.stderr
    arguments = "--images", root, "--output", tmp_path / "report"
    done = run("evaluate.py", *arguments, "--compare", bundle, "landmarks", "--predictions", table)
    assert done.returncode == 0, done.stderr
    reports = {
        path.parent.name: json.loads(path.read_text()) for path in tmp_path.glob("report/*/*/report.json")
    }
    assert set(reports) == {"main.csv", bundle.name, "landmarks"}, "a folder for each"
    report = reports[bundle.name]["all"]
    assert report == reports["main.csv"]["all"], "what main.py writes is what evaluate.py reads"
    assert report != reports["landmarks"]["all"]
    total = len(list(root.rglob("*.*")))
    assert report["faces"] + report["missed"] == total == sum(map(sum, report["confusion_matrix"]))
    sad_row = report["confusion_matrix"][EMOTIONS.index("sad")]
    assert sad_row[-1] >= 4, "the landscapes are missed faces"
    recall, low, high = report["recall"]["sad"]
    assert recall == pytest.approx(sad_row[EMOTIONS.index("sad")] / sum(sad_row)) and low <= recall <= high
    (folder,) = (tmp_path / "report").iterdir()
    assert folder.name.startswith("pictures 20"), "a folder for each set and date"
    assert (folder / bundle.name / "confusion_matrix.png").stat().st_size > 10_000
    assert "no face found (counted as wrong)" in (folder / "landmarks" / "report.txt").read_text()
    made_by = reports["landmarks"]["run"]["models"]["landmarks"]
    assert made_by == {f"{NAME}.tflite": load_info(MODELS)["sha256"][f"{NAME}.tflite"]}
    assert "landmarks against main.csv: balanced accuracy" in done.stdout or "than main.csv" in done.stdout


def test_evaluate_reads_the_test_part_of_a_split_set(bundle, landmark_file, tmp_path):
    done = run("evaluate.py", "--data", landmark_file, "--model", bundle, "--output", tmp_path)
    assert done.returncode == 0, done.stderr
    data = load_face_set(landmark_file)
    (path,) = tmp_path.glob(f"*/{bundle.name}/report.json")
    report = json.loads(path.read_text())
    assert (
        report["run"]["pictures"]["part"] == "test" and report["all"]["faces"] == (data.split == "test").sum()
    )
    assert "\nshipped " in done.stdout and f"\n{bundle.name} " in done.stdout, "the shipped model beside it"
    again = run("evaluate.py", "--data", landmark_file, "--reread", "--output", tmp_path)
    assert "are not here" in user_error(again), "the pictures of this set lie elsewhere"


def test_one_picture_is_predicted_not_averaged(tmp_path):
    (tmp_path / "happy").mkdir()
    shutil.copy(DATA / "astronaut.jpg", tmp_path / "happy")
    done = run("evaluate.py", "--images", tmp_path, "--output", tmp_path / "report")
    assert done.returncode == 0, done.stderr
    assert "one picture of happy: happy" in done.stdout and "right" in done.stdout
    assert "balanced accuracy" not in done.stdout


def test_metrics_by_hand():
    label, predicted = np.array([0, 0, 0, 0, 1, 1, 3]), np.array([0, 0, 0, MISSED, 1, 0, 3])
    report = evaluate_predictions(label, predicted, EMOTIONS)
    assert report["missed"] == 1 and report["accuracy"] == pytest.approx(5 / 7)
    assert report["balanced_accuracy"] == pytest.approx((3 / 4 + 1 / 2 + 1) / 3)
    assert report["macro_f1"] == pytest.approx((6 / 8 + 2 / 3 + 1) / 3)
    assert report["confusion_matrix"][0] == [3, 0, 0, 0, 1] and "neutral" not in report["recall"]
    low, high = evaluate_predictions(np.arange(4).repeat(3), np.arange(4).repeat(3), EMOTIONS)[
        "balanced_accuracy_interval"
    ]
    assert 0.6 < low < 0.85 and high == pytest.approx(1), "twelve right predictions are no certainty"
    assert wilson_interval(8, 10) == pytest.approx((0.490, 0.943), abs=1e-3)
    sure = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]])
    assert expected_calibration_error(np.array([0, 0, 0, 1]), sure) == pytest.approx(0.1)


@pytest.mark.parametrize(
    "script, arguments",
    [
        ("evaluate.py", ["--images", "nowhere"]),
        ("evaluate.py", ["--data", "nowhere.faces"]),
        ("balance_dataset.py", ["--data", "nowhere.faces"]),
        ("export_model.py", ["--model", "nowhere"]),
        ("main.py", ["--model", "nobody"]),
        ("train_personal.py", ["--subject", "nobody_at_all"]),
        ("evaluate.py", ["--data", "x.faces", "--model", "nowhere.tflite"]),
    ],
)
def test_missing_files_are_one_line(script, arguments, tmp_path):
    said = user_error(run_here(script, *arguments, cwd=tmp_path))
    assert "nowhere.faces" not in said or "extract_landmarks.py --images FOLDER" in said


def test_the_shipped_model_is_not_replaced_by_a_forgotten_flag(landmark_file):
    arguments = ("--data", landmark_file, "--output", "models", "--epochs", 1)
    assert "--overwrite" in user_error(run_here("train_model.py", *arguments))


def test_a_face_is_told_mostly_from_the_classes_that_occur_where_it_comes_from():
    from utils.data.face_set import FaceSet
    from utils.training.networks import ELSEWHERE, IN_SOURCE, class_prior

    classes = ["anger", "happy", "sad"]
    labels = {"ffhq_": ["happy"] * 40 + ["sad"], "image": ["sad"] * 40, "other_": classes * 2}
    label = np.concatenate(list(labels.values()))
    path = [f"{name}{number}.jpg" for name, some in labels.items() for number in range(len(some))]
    data = FaceSet(
        np.zeros((len(label), 478, 3), np.float32),
        label,
        source=np.array(["web"] * 81 + ["studio"] * 6),
        path=np.array(path),
    )
    prior = class_prior(data, data.class_index(classes), 3)
    np.testing.assert_array_equal(prior[0], [ELSEWHERE, 1, IN_SOURCE])
    np.testing.assert_array_equal(prior[40], [ELSEWHERE, 1, 1])  # rare in its group: told from the source's
    np.testing.assert_array_equal(prior[50], [ELSEWHERE, IN_SOURCE, 1])
    np.testing.assert_array_equal(prior[81:], 1)
    only = data.select(data.label == "happy")
    np.testing.assert_array_equal(class_prior(only, only.class_index(classes), 3), 1)
