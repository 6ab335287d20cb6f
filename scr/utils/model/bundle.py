"""What a model's folder holds and how it is checked.

A model is a bundle, a folder with `emotion_mlp.json` and the files whose sha256 it lists. Whatever loads
a file checks it first. A `.tflite` also carries its classes and feature recipe, as a file in a zip
archive behind the flat buffer (as TFLite Metadata packs its associated files), so it works alone.
"""

import functools
import hashlib
import io
import json
import os
import re
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..config import MODELS, PERSONAL_MODELS, TRUST_VARIABLE, UserError, note_once, relative
from ..data.checks import parse_json, read_json
from ..data.classes import list_names
from .contract import PARTS, check_info, check_metadata
from .no_model import stand_in
from .swap import CROP_NAME, JSON, NAME, settle

TFLITE = {"landmarks": f"{NAME}.tflite", "crop": f"{CROP_NAME}.tflite"}
"""The file of each part that runs live."""
HOW_TO_TRAIN = 'train one as README.md says under "Train on your pictures"'
"""What to do where a model is missing: no single command makes one."""
METADATA_FILE = "emotion.json"
"""Name of the metadata inside a `.tflite`, and key of it in an `.onnx`."""
METADATA_KEYS = ("name", "classes", "features", "threshold")
SHIPPED_FILE = Path(__file__).with_name("shipped.sha256")
"""The sha256 of the shipped models' files, as `sha256sum` writes them; CONTRIBUTING.md has the command."""


@dataclass(frozen=True)
class Model:
    """A model on disk: its folder or file, the bundle's JSON (empty for a file alone), and the content of the
    `.tflite` of each part of its network, checked."""

    path: Path
    info: dict
    parts: dict[Path, bytes]


def find_model(path: Path | str) -> Model:
    """Return the model that `path` means: a file, a folder, a name in models/personal or models (`seven`), or
    a network of the shipped model (`landmarks`, `crop`, `hybrid`).

    Raises UserError if there is none, or a file is damaged, or neither listed nor trusted (`read_checked`).
    """
    place, wanted = _find_place(path)

    def read(info: dict) -> Model:
        if place.is_file():
            return Model(place, {}, {place: read_checked(place, info)})
        return Model(place, info, _read_parts(place, wanted, info))

    folder = place.parent if place.is_file() else place
    return unless_replaced(folder, read) if has_info(folder) else read({})


def _find_place(path: Path | str, asked: tuple[Path, ...] = ()) -> tuple[Path, str | None]:
    """Return the `.tflite` file or bundle folder that `path` means, and the network of it if one is named.

    asked: folders without a model that led here; none is asked twice.
    """
    given = Path(path)
    if str(path) in PARTS and not given.exists():
        return MODELS, str(path)
    candidates = [given, PERSONAL_MODELS / given, MODELS / given] if not given.is_absolute() else [given]
    for candidate in candidates:
        if candidate.is_dir():
            if has_info(candidate) or (candidate / TFLITE["landmarks"]).is_file():
                return candidate, None
        if candidate.is_file():
            if candidate.suffix != ".tflite":
                raise UserError(
                    f"{relative(candidate)} is not a .tflite model; run: python scr/export_model.py"
                )
            return candidate, None
    folders = [folder for folder in candidates if folder.resolve() not in asked]
    if instead := stand_in(folders):
        return _find_place(instead, (*asked, *(folder.resolve() for folder in folders)))
    if re.fullmatch(r"[\w-]+", str(path)) and not given.exists():
        others = f"there are: {list_names(names)}; or " if (names := _names_of_models()) else ""
        raise UserError(
            f"no model named {path}; {others}train it: python scr/train_personal.py --subject {path}"
        )
    missing = given / TFLITE["landmarks"] if given.is_dir() or given == MODELS else given
    raise UserError(f"no model at {relative(missing)}; {HOW_TO_TRAIN}")


def _names_of_models() -> list[str]:
    """Return the names by which the personal models and those beside the shipped one are meant."""
    return sorted(
        {path.parent.name for path in (*PERSONAL_MODELS.glob(f"*/{JSON}"), *MODELS.glob(f"*/{JSON}"))}
    )


def _read_parts(folder: Path, wanted: str | None, info: dict) -> dict[Path, bytes]:
    """Return the `.tflite` of each part of a bundle's network, or of the one wanted of it; info: its JSON."""
    network = wanted or network_of(info)
    parts = {}
    for name in PARTS[network]:
        path = folder / TFLITE[name]
        if not path.is_file():
            raise UserError(f"no {relative(path)}, which the network '{network}' needs; {HOW_TO_TRAIN}")
        parts[path] = read_checked(path, info)
    return parts


def network_of(info: dict) -> str:
    """Return the network of a bundle; those made before there were several are of landmarks."""
    return info.get("network", "landmarks")


def has_info(folder: Path) -> bool:
    """Tell whether a folder holds a bundle's JSON."""
    settle(folder)
    return (folder / JSON).is_file()


def earlier_model(folder: Path) -> str:
    """Return what to add where a run wrote no model to a folder that still holds an earlier one, or ""."""
    return f"; {relative(folder)} still holds an earlier model" if has_info(folder) else ""


def load_info(folder: Path) -> dict:
    """Return a bundle's JSON; raises UserError if it is missing or damaged."""
    path = folder / JSON
    if not has_info(folder):
        raise UserError(f"no model at {relative(path)}; {HOW_TO_TRAIN}")
    try:
        info = read_json(path)
        check_info(info)
    except (OSError, ValueError) as error:
        raise UserError(f"{relative(path)} is damaged ({error}); train again or restore it") from error
    return info


def unless_replaced(folder: Path, read: Callable):
    """Return what `read` makes of a bundle's JSON; again if another run replaced the bundle meanwhile."""
    info = load_info(folder)
    while True:
        try:
            return read(info)
        except UserError:
            before, info = info, load_info(folder)
            if info == before:
                raise


def read_checked(path: Path, info: dict | None = None) -> bytes:
    """Return the bytes of a model's file, compared with what the bundle's JSON says of it.

    info: that JSON; if None, the one beside the file is read, if there is one. Raises UserError that names
    the file if it differs, and if it is not listed, unless it is a shipped one or the user gave `--trust`.
    """
    if info is None:
        info = load_info(path.parent) if has_info(path.parent) else {}
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"can't read {relative(path)}: {error.strerror}; restore it") from error
    expected, found = info.get("sha256", {}).get(path.name), hashlib.sha256(content).hexdigest()
    if expected is None:
        if found not in shipped():
            _need_trust(path)
    elif expected != found:
        raise UserError(
            f"{relative(path)} is not the file that {JSON} beside it describes (sha256 differs); "
            "train again or restore both"
        )
    elif path.parent == MODELS and found not in shipped():
        note_once(
            f"{relative(path)} is not the file that came with this version: the model was made anew here"
        )
    return content


@functools.cache
def shipped() -> dict[str, str]:
    """Return the sha256 of the shipped models' files, and their names from the repository's root."""
    return dict(line.split() for line in SHIPPED_FILE.read_text(encoding="utf-8").splitlines())


def _need_trust(path: Path) -> None:
    """Raise UserError about a file that no JSON lists, or say so if the user trusts it."""
    what = f"{relative(path)} is listed in no {JSON} beside it"
    if not os.environ.get(TRUST_VARIABLE):
        raise UserError(
            f"{what}, so nothing tells whether it is whole, or whose it is; if you trust it, add --trust"
        )
    note_once(f"{what}; it is used because of --trust")


def read_metadata(path: Path, content: bytes | None = None) -> dict:
    """Return the classes, feature recipe, name and threshold packed in a `.tflite`.

    content: the file's bytes, if they are at hand. Raises UserError if nothing, or not what a model says, is
    packed in them, or if the network before it is not the one that it was packed with.
    """
    content = path.read_bytes() if content is None else content
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            metadata = parse_json(archive.read(METADATA_FILE))
            network = content[: archive.infolist()[0].header_offset]
        check_metadata(metadata)
        if metadata.get("sha256") not in (None, hashlib.sha256(network).hexdigest()):
            raise ValueError("sha256 of the network differs")
    except (
        zipfile.BadZipFile,
        zlib.error,
        KeyError,
        ValueError,
        EOFError,
        NotImplementedError,
        RuntimeError,
    ) as error:
        raise UserError(
            f"{relative(path)} has no emotion classes in it (damaged, or not exported by this project: "
            f"{error}); run: python scr/export_model.py"
        ) from error
    return metadata


def metadata_json(info: dict) -> str:
    """Return what a deployed model carries about itself, as JSON."""
    return json.dumps({key: info[key] for key in METADATA_KEYS})


def pack_metadata(path: Path, info: dict) -> None:
    """Pack what a `.tflite` says about itself behind its network, with the network's sha256."""
    about = json.loads(metadata_json(info)) | {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(zipfile.ZipInfo(METADATA_FILE), json.dumps(about))


def digests(folder: Path) -> dict[str, str]:
    """Return the sha256 of each file in a folder, by its name."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}
