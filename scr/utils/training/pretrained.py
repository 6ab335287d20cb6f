"""A bundle as a pretrained model: what its last layer sees of faces, and the way back to a bundle."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..cli import number
from ..config import ROOT, SEED, UserError, note, note_once, relative
from ..data.classes import list_names
from ..data.face_set import FaceSet, concatenate, load_face_set
from ..data.splits import assign_split
from ..faces.features import compute_features
from ..model import bundle
from ..model.classifier import LiteNetwork
from ..model.schema import choose_vocabulary
from . import export, landmark_network
from .crop_network import CHUNK
from .fine_tuning import PULL, Examples, LastLayer, Reference, Result, fine_tune
from .networks import import_keras

MOST_REFERENCE = 1500
"""Faces of a reference set that a hybrid reads, evenly picked: each costs the crop network some ms."""


def add_forgetting_options(parser, default: float, when: str = "") -> None:
    """Add the options that bound what fine-tuning forgets to a parser of command lines."""
    general = f"{when}set of other people's faces (default: the base model's own test set)"
    parser.add_argument("--general", type=Path, metavar="FILE", help=general)
    bound = f"{when}balanced accuracy that may be lost on these (default: {default:g}; 1: no bound)"
    parser.add_argument("--max-forgetting", type=number(0, 1), metavar="SHARE", help=bound)


@dataclass(frozen=True)
class Pretrained:
    """A bundle's network without its last layer, that layer, and what it takes to feed and to save it.

    Of a hybrid the last layer sees the landmark network's hidden layer and the crop network's embedding side
    by side, the latter divided by its root mean square: a mixture of log-probabilities is one of logits, so
    it gives exactly what the hybrid does.
    """

    body: object
    """Keras model: standardised features, and embedding of a hybrid (n, d) -> hidden (n, h)"""
    layer: LastLayer
    scaler: object
    info: dict
    files: tuple[Path, ...] = ()
    """of the crop network, which a fine-tuned hybrid needs beside its own"""
    threshold: float = 0.0
    classes: tuple[str, ...] = ()
    """those of the last layer"""

    @property
    def needs_embedding(self) -> bool:
        """Tell whether its last layer also sees the embedding of a crop network."""
        return "embedding" in self.info["features"]

    def hidden(self, faces, embedding: np.ndarray | None = None) -> np.ndarray:
        """Return what the last layer sees, (n, h) float32, of faces, an object with landmarks and
        blendshapes, and of their embedding (n, e); a set with crops needs no embedding."""
        x = compute_features(faces.landmarks, faces.blendshapes, self.info["features"])
        if self.needs_embedding:
            if embedding is None:
                embedding = LiteNetwork(self.files[0]).predict_crops(faces.crop).embedding
            x = np.concatenate([x, embedding], axis=1)
        return self.body.predict(landmark_network.standardise(self.scaler, x), batch_size=4096, verbose=0)

    def save(
        self, folder: Path, result: Result, about: dict, seed: int = SEED, private: bool = False
    ) -> list[str]:
        """Write the fine-tuned model as a bundle and return the names of its files; about: further entries of
        its JSON."""
        keras, layer = import_keras(), result.tuned.layer
        last = keras.layers.Dense(len(result.classes), activation="softmax", name="probabilities")
        network = keras.Model(self.body.inputs[0], last(self.body.outputs[0]), name=bundle.NAME)
        last.set_weights([layer.kernel, layer.bias])
        threshold = self.threshold if result.tuned.threshold is None else result.tuned.threshold
        threshold = round(threshold, 3)
        # The crop network is the base's, with all its classes; how it was mixed is in the last layer.
        parts = self.info.get("parts", {}).items()
        parts = {name: {"classes": self.info["classes"]} | part for name, part in parts}
        info = self.info | {
            "classes": list(result.classes),
            "threshold": threshold,
            "parts": parts | {"landmarks": {"threshold": threshold}},
            "recipe": "fine-tuned: last layer",
            "base": self.info["sha256"][f"{bundle.NAME}.keras"],
            "training": {"seed": seed, "pull": PULL, "alpha": result.tuned.alpha},
            "metrics": result.metrics(),
        }
        for name in ("weights", "temperature", "vocabularies"):
            info.pop(name, None)
        parts = {"landmarks": (network, self.scaler)}
        return export.save_bundle(folder, parts, info | about, self.files, private)


def fine_tune_model(
    base: Pretrained,
    faces: FaceSet,
    embedding: np.ndarray | None,
    classes: Sequence[str],
    group: np.ndarray,
    general: Path | None,
    max_forgetting: float | None,
    default_forgetting: float,
    test: np.ndarray | None = None,
    seed: int = SEED,
) -> Result:
    """Fine-tune a pretrained model's last layer on faces of some classes, or a new one if it lacks a class.

    embedding (n, e) of the faces; group (n,), general: as `Examples` and `open_reference` take them; the rest
    as of `fine_tune`. Raises UserError if the user bounds what is forgotten where nothing can be.
    """
    bound = default_forgetting if max_forgetting is None else max_forgetting
    start, reference = None, None
    if set(classes) <= set(base.classes):
        classes, start = base.classes, base.layer
        reference, problem = open_reference(general, base)
        if problem:
            limit = "all of" if bound >= 1 else "at most half of"
            note_once(
                f"what is forgotten of other faces can't be measured, since {problem}: {limit} the change is "
                "kept (--general names a set to measure it on; --max-forgetting 1 keeps all)"
            )
    elif general or max_forgetting is not None:
        raise UserError(
            "--general and --max-forgetting do nothing for classes that the base model lacks "
            f"(it reads {list_names(base.info['classes'])}); leave them out"
        )
    else:
        note(f"the base model reads {list_names(base.info['classes'])}: these classes get a new last layer")
    note("fine-tuning the last layer, with parts held out in turn ...")
    examples = Examples(base.hidden(faces, embedding), faces.class_index(classes), faces.source, group)
    return fine_tune(start, examples, classes, reference, bound, test, seed)


def needed_vocabulary(info: dict, labels: Collection[str]) -> dict:
    """Return what a base model is read out by to learn faces of some labels: its default vocabulary, unless
    it knows more of the labels than that; then these."""
    default = choose_vocabulary(info)
    more = set(labels) <= set(info["classes"]) and not set(labels) <= set(default["classes"])
    return choose_vocabulary(info, sorted(labels)) if more else default


def open_pretrained(
    folder: Path, embedding: np.ndarray | None, labels: Collection[str] = (), alone: bool = False
) -> Pretrained:
    """Return the pretrained model in a folder, its last layer narrowed to the classes that labels need, or,
    alone, to the labels.

    embedding (n, e): of the faces to learn from; None where there is none, so that of a hybrid the landmark
    network alone is fine-tuned. Raises UserError for a bundle without a landmark network.
    """
    base = _open_whole(folder, embedding)
    needed = choose_vocabulary(base.info, labels) if alone else needed_vocabulary(base.info, labels)
    columns = [base.info["classes"].index(name) for name in needed["classes"]]
    scale = base.info.get("temperature", 1.0) / needed["temperature"]
    layer = LastLayer(base.layer.kernel[:, columns] * scale, base.layer.bias[columns] * scale)
    return replace(base, layer=layer, threshold=needed["threshold"], classes=tuple(needed["classes"]))


def _open_whole(folder: Path, embedding: np.ndarray | None) -> Pretrained:
    """Return the model with its last layer of all classes, calibrated for these."""
    parts, info = export.load_bundle(folder)
    if "landmarks" not in parts:
        raise UserError(
            f"{relative(folder)} is a crop network alone; --base takes a hybrid or a landmark model"
        )
    keras = import_keras()
    network, scaler = parts["landmarks"]
    body = keras.Model(network.inputs[0], network.layers[-1].input)
    layer = LastLayer(*network.layers[-1].get_weights())
    if "crop" not in parts:
        return Pretrained(body, layer, scaler, info)
    files = tuple(folder / name for name in (bundle.TFLITE["crop"], f"{bundle.CROP_NAME}.keras"))
    if "embedding" in info["features"]:  # a fine-tuned hybrid
        return Pretrained(body, layer, scaler, info, files)
    if embedding is None:
        part = info["parts"]["landmarks"]
        alone = info | {"network": "landmarks", "parts": {"landmarks": part}, "temperature": 1.0} | part
        return Pretrained(body, layer, scaler, alone)
    kernel, bias = parts["crop"][0].get_layer("probabilities").get_weights()
    scale = float(np.sqrt(np.square(embedding).mean())) or 1.0
    of_landmarks, of_crop = (info["weights"][name] / info["temperature"] for name in ("landmarks", "crop"))
    features = network.input_shape[1]
    inputs = keras.Input((features + len(kernel),))
    joint = keras.layers.Concatenate()([body(inputs[:, :features]), inputs[:, features:]])
    layer = LastLayer(
        np.concatenate([of_landmarks * layer.kernel, of_crop * scale * kernel]),
        of_landmarks * layer.bias + of_crop * bias,
    )
    info = info | {"features": info["features"] | {"embedding": len(kernel)}}
    mean = np.append(scaler.mean_, np.zeros(len(kernel)))
    scales = np.append(scaler.scale_, np.full(len(kernel), scale))
    scaler = export.restore_scaler({"mean": mean, "scale": scales, "faces": scaler.n_samples_seen_})
    return Pretrained(keras.Model(inputs, joint), layer, scaler, info, files)


def embed_set(data: FaceSet, folder: Path) -> np.ndarray | None:
    """Return embeddings (n, e) of a set's crops by a bundle's crop network, or None if either is missing."""
    file = folder / bundle.TFLITE["crop"]
    if data.crop is None or bundle.load_info(folder)["sha256"].get(file.name) is None:
        return None
    from tqdm import tqdm

    network, starts = LiteNetwork(file), tqdm(range(0, len(data), CHUNK), desc="embeddings of the crops")
    return np.concatenate(
        [network.predict_crops(data.crop[start : start + CHUNK]).embedding for start in starts]
    )


def open_reference(path: Path | None, pretrained: Pretrained) -> tuple[Reference | None, str]:
    """Return a reference set, by default the pretrained model's own test set, or None and why there is none.

    Raises UserError if the set in a file that was named holds no face of the model's classes.
    """
    if path:
        data = load_face_set(path).of_classes(pretrained.classes)
        data = data.part("test") if (data.split == "test").any() else data
        if not len(data):
            raise UserError(f"{relative(path)} holds no {list_names(pretrained.classes)}; see --general")
    else:
        data, problem = _own_test_set(pretrained.info)
        if problem:
            return None, problem
        data = data.of_classes(pretrained.classes)
    if pretrained.needs_embedding:
        if data.crop is None:
            return None, "the reference set has no crops (extract it again)"
        data = data.select(slice(None, None, -(-len(data) // MOST_REFERENCE)))
    name = relative(path) if path else "the base model's own test set"
    return Reference(name, pretrained.hidden(data), data.class_index(pretrained.classes)), ""


def _own_test_set(info: dict) -> tuple[FaceSet | None, str]:
    names = info["data"].get("files", ())
    if not names:
        return None, "the base model does not say on which faces it was tested"
    if absent := [name for name in names if not (ROOT / name).is_file()]:
        return None, f"{list_names(absent, 1)}, which the base model was tested on, is not there"
    data = concatenate([load_face_set(ROOT / name) for name in names]).of_classes(info["classes"])
    if not set(data.split.tolist()) >= {"train", "val", "test"}:
        data = assign_split(data, info["training"]["seed"])  # as train_model.py did
    data, tested = data.part("test"), info["metrics"]["test"]["faces"]
    if len(data) != tested:
        return None, f"{list_names(names)} holds {len(data)} test faces, the base was tested on {tested}"
    return data, ""
