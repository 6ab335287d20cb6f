"""What a model's folder holds and how it is checked.

A model is a bundle, a folder with `emotion_mlp.json` and the files whose sha256 it lists. Whatever loads
a file checks it first. A `.tflite` also carries its classes and feature recipe, as a file in a zip
archive behind the flat buffer (as TFLite Metadata packs its associated files), so it works alone.
"""

import hashlib
import json
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path

from utils.config import MODELS, PERSONAL_MODELS, UserError, relative, write_json
from utils.learning.no_model import stand_in

NAME = "emotion_mlp"
CROP_NAME = "emotion_crop"
PARTS = {"landmarks": ("landmarks",), "crop": ("crop",), "hybrid": ("landmarks", "crop")}
"""The networks that there are, and the parts that each is made of."""
TFLITE = {"landmarks": f"{NAME}.tflite", "crop": f"{CROP_NAME}.tflite"}
"""The file of each part that runs live."""
METADATA_FILE = "emotion.json"
"""Name of the metadata inside a `.tflite`, and key of it in an `.onnx`."""
METADATA_KEYS = ("name", "classes", "features", "threshold")


def find_model(path: Path | str) -> tuple[Path, str | None]:
    """Return the `.tflite` file or bundle folder that `path` means, and the network of it, if one is named.

    `path` is a file, a folder, a name in models/personal or models (`seven`), or a network of the shipped
    model (`landmarks`, `crop`, `hybrid`).
    """
    given = Path(path)
    if str(path) in PARTS and not given.exists():
        return MODELS, str(path)
    candidates = [given, PERSONAL_MODELS / given, MODELS / given] if not given.is_absolute() else [given]
    for candidate in candidates:
        if candidate.is_dir() and any(
            (candidate / name).is_file() for name in (f"{NAME}.json", TFLITE["landmarks"])
        ):
            return candidate, None
        if candidate.is_file():
            if candidate.suffix != ".tflite":
                raise UserError(
                    f"{relative(candidate)} is not a .tflite model; run: python scr/export_model.py"
                )
            return candidate, None
    if instead := stand_in(candidates):
        return find_model(instead)
    if re.fullmatch(r"[\w-]+", str(path)) and not given.exists():
        raise UserError(f"no model named {path}; run: python scr/train_personal.py --subject {path}")
    missing = given / TFLITE["landmarks"] if given.is_dir() or given == MODELS else given
    raise UserError(f"no model at {relative(missing)}; run: python scr/train_model.py")


def network_of(info: dict) -> str:
    """Return the network of a bundle; those made before there were several are of landmarks."""
    return info.get("network", "landmarks")


def find_parts(folder: Path, wanted: str | None) -> tuple[dict[str, Path], dict]:
    """Return a bundle's JSON and the `.tflite` file of each part of its network, or of the one wanted of it.

    The JSON is empty for a folder that holds a `.tflite` alone. Raises UserError if the bundle lacks a part.
    """
    info = load_info(folder) if (folder / f"{NAME}.json").is_file() else {}
    network = wanted or network_of(info)
    parts = {name: folder / TFLITE[name] for name in PARTS[network]}
    for path in parts.values():
        if not path.is_file():
            raise UserError(
                f"no {relative(path)}, which the network '{network}' needs; run: python scr/train_model.py"
            )
    return parts, info


def read_metadata(path: Path) -> dict:
    """Return the classes, feature recipe, name and threshold packed in a `.tflite`; raises UserError if
    there are none."""
    try:
        with zipfile.ZipFile(path) as archive:
            metadata = json.loads(archive.read(METADATA_FILE))
        return {key: metadata[key] for key in METADATA_KEYS}
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise UserError(
            f"{relative(path)} has no emotion classes in it (damaged, or not exported by this project); "
            "run: python scr/export_model.py"
        ) from error


def metadata_json(info: dict) -> str:
    """Return what a deployed model carries about itself, as JSON."""
    return json.dumps({key: info[key] for key in METADATA_KEYS})


def check_file(path: Path) -> None:
    """Compare a file with the bundle's JSON beside it; raises UserError that names the file if it differs."""
    bundle = path.with_name(f"{NAME}.json")
    if not bundle.is_file():
        return
    expected = load_info(path.parent)["sha256"].get(path.name)
    if expected and expected != hashlib.sha256(path.read_bytes()).hexdigest():
        raise UserError(
            f"{relative(path)} is not the file that {bundle.name} beside it describes (sha256 differs); "
            "train again or restore both"
        )


def load_info(folder: Path) -> dict:
    """Return a bundle's JSON; raises UserError if it is missing or damaged."""
    path = folder / f"{NAME}.json"
    if not path.is_file():
        raise UserError(f"no model at {relative(path)}; run: python scr/train_model.py")
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
        if missing := {*METADATA_KEYS, "sha256"} - set(info):
            raise ValueError(f"it lacks {', '.join(sorted(missing))}")
    except ValueError as error:
        raise UserError(f"{relative(path)} is damaged ({error}); train again or restore it") from error
    return info


def add_to_bundle(folder: Path, paths: Sequence[Path]) -> None:
    """Enter the sha256 of further files (exports) into a bundle's JSON."""
    info = load_info(folder)
    info["sha256"] |= {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
    write_json(folder / f"{NAME}.json", info)
