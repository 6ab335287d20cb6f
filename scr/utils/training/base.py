"""The model that a personal one starts from, as one network on what a person's recordings keep."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..config import ROOT, UserError, relative
from ..data.classes import list_names
from ..data.face_set import FaceSet, assign_split, concatenate, load_face_set
from ..faces.features import compute_features
from ..model import bundle
from ..model.classifier import LiteNetwork
from . import export, landmark_network, networks

MOST_GENERAL = 1500
"""Faces of other people that a hybrid is asked about, evenly picked: each costs the crop network some ms."""


@dataclass(frozen=True)
class Base:
    """One network that answers as a bundle does, with what it takes to feed and to save it.

    Of a hybrid it takes features and embedding side by side, the latter divided by `scaler.scale_`, so that a
    new last layer sees the landmark network's hidden layer and the crop network's.
    """

    network: object
    scaler: object
    info: dict
    files: tuple[Path, ...] = ()
    """of the crop network, which a personal model needs beside its own"""

    @property
    def is_joint(self) -> bool:
        """Tell whether the network also takes the embedding of the crop network."""
        return "embedding" in self.info["features"]

    def seen(self, faces, embedding: np.ndarray | None = None) -> np.ndarray:
        """Return what the network sees, (n, d) float32, of faces, an object with landmarks and blendshapes,
        and embedding (n, e); a set with crops needs no embedding."""
        features = self.info["features"]
        x = compute_features(faces.landmarks, faces.blendshapes, features)
        if self.is_joint:
            if embedding is None:
                embedding = LiteNetwork(self.files[0]).read_crops(faces.crop)[1]
            x = np.concatenate([x, embedding], axis=1)
        return landmark_network.standardise(self.scaler, x)

    @property
    def neutral(self) -> np.ndarray | None:
        """The mean neutral face as the network sees its features, (d,), or None if the recipe knows none."""
        features, d = self.info["features"], len(self.info["features"].get("neutral", ()))
        if not d:
            return None
        neutral = np.array(features["neutral"])
        return ((neutral - self.scaler.mean_[:d]) / self.scaler.scale_[:d]).astype(np.float32)


def open_base(folder: Path, embedding: np.ndarray | None) -> tuple[Base, str]:
    """Return the base of a bundle, and why it is less than all of it, or "".

    embedding (n, e) of the person's samples; None where there are none, so that of a hybrid the landmark
    network alone can be fine-tuned. Raises UserError for a bundle without a landmark network.
    """
    parts, info = export.load_bundle(folder)
    if "landmarks" not in parts:
        raise UserError(
            f"{relative(folder)} is a crop network alone, and recordings hold no pictures; "
            "name a hybrid or landmark model with --base"
        )
    network, scaler = parts["landmarks"]
    files = tuple(folder / name for name in (bundle.TFLITE["crop"], f"{bundle.CROP_NAME}.keras"))
    if "crop" not in parts:
        return Base(network, scaler, info), ""
    joint_already = "embedding" in info["features"]  # a personal model of a hybrid
    if embedding is None:
        if joint_already:
            raise UserError(
                f"{relative(folder)} looks at crops, of which these recordings keep nothing: record again"
            )
        part = info["parts"]["landmarks"]
        only = info | {"network": "landmarks", "parts": {"landmarks": part}} | part
        return Base(network, scaler, only), "its landmark network alone is fine-tuned"
    if joint_already:
        return Base(network, scaler, info, files), ""
    kernel, bias = parts["crop"][0].get_layer("probabilities").get_weights()
    scale = float(np.sqrt(np.square(embedding).mean())) or 1.0
    weights = tuple(info["weights"][name] / info["temperature"] for name in ("landmarks", "crop"))
    joint = networks.join(network, kernel, bias, weights, scale)
    info = info | {
        "features": info["features"] | {"embedding": len(kernel)},
        "parts": info["parts"] | {"landmarks": {"threshold": info["threshold"]}},
    }
    return Base(joint, landmark_network.extend_scaler(scaler, len(kernel), scale), info, files), ""


def recorded_embedding(samples: list, folder: Path) -> tuple[np.ndarray | None, str]:
    """Return the embeddings (n, e) of recorded samples for the crop network of a bundle, or None and why.

    They belong to one crop network: if it has changed since, they say nothing any more.
    """
    network = bundle.load_info(folder)["sha256"].get(bundle.TFLITE["crop"])
    if network is None:
        return None, ""
    if any(sample.embedding is None for sample in samples):
        return None, "some samples were recorded without what the crop network made of them"
    if any(sample.crop_network != network for sample in samples):
        return None, "some samples were recorded with another crop network"
    return np.stack([sample.embedding for sample in samples]), ""


def embed_set(data: FaceSet, folder: Path) -> np.ndarray | None:
    """Return embeddings (n, e) of a set's crops by a bundle's crop network, or None if either is missing."""
    file = folder / bundle.TFLITE["crop"]
    if data.crop is None or bundle.load_info(folder)["sha256"].get(file.name) is None:
        return None
    return LiteNetwork(file).read_crops(data.crop)[1]


def find_general(path: Path | None, base: Base) -> tuple[FaceSet | None, str]:
    """Return faces of other people, of a hybrid at most `MOST_GENERAL`, or None and why.

    They are those of a file or, by default, the base model's own test set.
    """
    data, problem = _general_set(path, base.info)
    if not problem and base.is_joint:
        if data.crop is None:
            return None, "the faces of other people have no crops (extract them again)"
        step = -(-len(data) // MOST_GENERAL)
        data = data.select(slice(None, None, step), slice(None, None, step))
    return data, problem


def _general_set(path: Path | None, info: dict) -> tuple[FaceSet | None, str]:
    if path:
        data = load_face_set(path).of_classes(info["classes"])
        if not len(data):
            raise UserError(
                f"{relative(path)} has no face labelled {', '.join(info['classes'])}; "
                "name another with --general"
            )
        return (data.part("test") if (data.split == "test").any() else data), ""
    names = info["data"].get("files")
    if not names:
        return None, "the base model does not say on which faces it was tested"
    if absent := [name for name in names if not (ROOT / name).is_file()]:
        return None, f"the general test set {list_names(absent, 1)} is not here (--general names another)"
    parts = [load_face_set(ROOT / name) for name in names]
    data = (concatenate(parts) if len(parts) > 1 else parts[0]).of_classes(info["classes"])
    if not set(data.split.tolist()) >= {"train", "val", "test"}:
        data = assign_split(data, info["training"]["seed"])  # as train_model.py did
    data = data.part("test")
    tested = info["metrics"]["test"]["faces"]
    if len(data) != tested:
        return None, f"{', '.join(names)} holds {len(data)} test faces, the base model was tested on {tested}"
    return data, ""
