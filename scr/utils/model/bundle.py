"""A model's folder: found by a name, checked when it is read, replaced as a whole.

A model is a bundle, a folder with `emotion_mlp.json` and the files whose sha256 it lists. Whatever loads
a file checks it first. A `.tflite` also carries its classes and feature recipe, as a file in a zip
archive behind the flat buffer (as TFLite Metadata packs its associated files), so it works alone.
"""

import contextlib
import functools
import hashlib
import io
import json
import os
import re
import shutil
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from ..config import MODELS, PERSONAL_MODELS, TRUST_VARIABLE, UserError, note_once, relative
from ..data.classes import list_names
from ..files import sha256_of, writing
from .schema import PARTS, Bundle, Metadata, parse

NAME = "emotion_mlp"
CROP_NAME = "emotion_crop"
JSON = f"{NAME}.json"
TFLITE = {"landmarks": f"{NAME}.tflite", "crop": f"{CROP_NAME}.tflite"}
"""The file of each part that runs live."""
SUFFIXES = (".keras", ".tflite", "_int8.tflite", ".onnx")
"""Of a network's files: trained, live, live with 8 bit integers, ONNX."""
OWN = frozenset({"scaler.pkl", *(stem + suffix for stem in (NAME, CROP_NAME) for suffix in SUFFIXES)})
"""Files that a bundle may have beside its JSON; those that a new one lacks go when it takes its place."""
NEXT = f".{NAME}.next"
"""Folder in a bundle's, with the files of a new bundle until they are moved into place."""
PATIENCE_S = 300.0
"""Another run that is writing needs seconds, on a busy machine a minute."""
HOW_TO_TRAIN = "train one: python scr/train_model.py --images FOLDER"
"""What to do where a model is missing."""
METADATA_FILE = "emotion.json"
"""Name of the metadata inside a `.tflite`, and key of it in an `.onnx`."""
BAD_ZIP = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)
"""What `zipfile` raises for damaged archives."""
METADATA_KEYS = ("name", "classes", "features", "threshold", "vocabularies")
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
    """Return the model that `path` means.

    That is a bundle's folder or a `.tflite` file; the name of one in models/personal or models (`ann`,
    `mine`); or a network of the shipped model (`landmarks`, `crop`, `hybrid`). `FOLDER:NETWORK` is a network
    of any bundle. Raises UserError if there is none, if a name means several, or if a file is damaged, or
    neither listed nor trusted (`read_checked`).
    """
    place, network = _find_place(path)

    def read(info: dict) -> Model:
        if place.is_file():
            return Model(place, {}, {place: read_checked(place, info)})
        files = [place / TFLITE[name] for name in PARTS[network or network_of(info)]]
        return Model(place, info, {file: read_checked(file, info) for file in files})

    folder = place.parent if place.is_file() else place
    return unless_replaced(folder, read) if has_info(folder) else read({})


def _find_place(path: Path | str) -> tuple[Path, str | None]:
    """Return the `.tflite` file or bundle folder that `path` means, and the network of it if one is named."""
    folder, colon, network = str(path).rpartition(":")
    if colon and network in PARTS and not Path(path).exists():
        return _find_place(MODELS if folder == MODELS.name else folder)[0], network
    if Path(path).is_file() and Path(path).suffix != ".tflite":
        raise UserError(f"{relative(Path(path))} is not a .tflite model; run: python scr/export_model.py")
    found = _models_of(path)
    if len(found) > 1:
        ways = [way if set(way) & set("/\\:") else f"./{way}" for way in found]
        raise UserError(f"{path} means several models; write --model {' or --model '.join(ways)}")
    if found:
        return next(iter(found.values()))
    if str(path) == "seven":
        raise UserError(
            "the model of seven is part of the shipped one; for all seven, write --classes all instead"
        )
    if re.fullmatch(r"[\w-]+", str(path)) and not Path(path).exists():
        there = [*PERSONAL_MODELS.glob(f"*/{JSON}"), *MODELS.glob(f"*/{JSON}")]
        names = sorted({one.parent.name for one in there})
        meant = "".join(f"did you mean {name}? " for name in get_close_matches(str(path), names, 1))
        others = f"{meant}there are: {list_names(names)}; or " if names else ""
        raise UserError(
            f"no model named {path}; {others}train it: python scr/train_personal.py --subject {path}"
        )
    missing = Path(path)
    if missing.is_dir() or missing == MODELS:
        missing = missing / TFLITE["landmarks"]
    raise UserError(f"no model at {relative(missing)}; {HOW_TO_TRAIN}")


def _models_of(path: Path | str) -> dict[str, tuple[Path, str | None]]:
    """Return the models that `path` may mean, as `_find_place` does, each by what means it alone."""
    given = Path(path)
    places = [given] if len(given.parts) != 1 else [given, PERSONAL_MODELS / given, MODELS / given]
    found = {
        relative(place): (place, None)
        for place in places
        if place.is_file() or has_info(place) or (place / TFLITE["landmarks"]).is_file()
    }
    return found | ({f"{MODELS.name}:{path}": (MODELS, str(path))} if str(path) in PARTS else {})


def argument_of(folder: Path) -> str:
    """Return what to write after `--model` for a bundle's folder: its name, or its path if the name means
    another model, or several."""
    return folder.name if list(_models_of(folder.name)) == [relative(folder)] else relative(folder)


def network_of(info: dict) -> str:
    """Return the network of a bundle; those made before there were several are of landmarks."""
    return info.get("network", "landmarks")


def has_info(folder: Path) -> bool:
    """Tell whether a folder holds a bundle's JSON."""
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
        return parse(path.read_bytes(), Bundle)
    except (OSError, ValueError) as error:
        raise UserError(f"{relative(path)} is damaged ({error}); train again or restore it") from error


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
    the file if it is missing or differs, and if it is not listed, unless it is a shipped one or the user gave
    `--trust`.
    """
    if info is None:
        info = load_info(path.parent) if has_info(path.parent) else {}
    expected, content = info.get("sha256", {}).get(path.name), None
    # A new bundle's files may still wait in NEXT; in the middle of these looks they may have been moved.
    for place in (path, path.parent / NEXT / path.name, path):
        try:
            content = place.read_bytes()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise UserError(f"can't read {relative(path)}: {error.strerror}; restore it") from error
        found = hashlib.sha256(content).hexdigest()
        if expected in (None, found):
            break
    if content is None:
        raise UserError(f"no {relative(path)}; {HOW_TO_TRAIN}")
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


@contextlib.contextmanager
def replacing(folder: Path, private: bool = False) -> Iterator[Path]:
    """Yield an empty folder for the files of a new bundle; they take the place of the old one together.

    The moment comes when the block ends and has written the JSON into it: the JSON is moved first, and from
    then on files are looked for in both folders, by their sha256 (`read_checked`). Whenever a run is killed,
    the old model or the new one loads; what is left to move, the next run that writes does. Files of the old
    bundle that the new JSON does not list go; nothing else in the folder is touched. A private folder is for
    its owner alone. Raises UserError if the disk refuses, or another run goes on writing.
    """
    if private:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
    with writing(folder / JSON, "wait for it, or choose another folder", PATIENCE_S):
        staging = folder / NEXT
        try:
            _patiently(lambda: _move_into_place(folder))
            staging.mkdir(mode=0o700 if private else 0o777)
            yield staging
            if private:
                for path in staging.iterdir():
                    path.chmod(0o600)
            if has_info(staging):
                _patiently(lambda: (staging / JSON).replace(folder / JSON))
        except OSError as error:
            raise UserError(
                f"can't write {relative(folder)}: {error.strerror or error}; "
                "free space or choose another place"
            ) from error
        finally:
            with contextlib.suppress(OSError):  # a file in use on Windows: the new one is read from here
                _move_into_place(folder)


def _patiently(act: Callable[[], object]) -> None:
    """Do what Windows refuses for the moment in which another program reads a file."""
    for _ in range(100):
        with contextlib.suppress(PermissionError):
            act()
            return
        time.sleep(0.02)
    act()


def _move_into_place(folder: Path) -> None:
    """Move the files of a new bundle whose JSON is in place, and remove all others that wait."""
    staging = folder / NEXT
    if not staging.is_dir():
        return
    try:
        listed = load_info(folder)["sha256"]
    except UserError:  # no model yet, or a damaged one
        listed = {}
    waiting = [path for path in staging.iterdir() if listed.get(path.name) == sha256_of(path)]
    if waiting:
        for name in OWN.difference(listed):
            (folder / name).unlink(missing_ok=True)
    for path in waiting:
        path.replace(folder / path.name)
    shutil.rmtree(staging)


def read_metadata(path: Path, content: bytes | None = None) -> dict:
    """Return the metadata packed in a `.tflite`: a dictionary as `schema.Metadata` describes it.

    content: the file's bytes, if they are at hand. Raises UserError if nothing, or not what a model says, is
    packed in them, or if the network before it is not the one that it was packed with.
    """
    content = path.read_bytes() if content is None else content
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            metadata = parse(archive.read(METADATA_FILE), Metadata)
            network = content[: archive.infolist()[0].header_offset]
        if metadata.get("sha256") not in (None, hashlib.sha256(network).hexdigest()):
            raise ValueError("sha256 of the network differs")
    except (*BAD_ZIP, KeyError, ValueError) as error:
        raise UserError(
            f"{relative(path)} has no emotion classes in it (damaged, or not exported by this project: "
            f"{error}); run: python scr/export_model.py"
        ) from error
    return metadata


def metadata_json(info: dict) -> str:
    """Return what a deployed model carries about itself, as JSON."""
    return json.dumps({key: info[key] for key in METADATA_KEYS if key in info})


def pack_metadata(path: Path, info: dict) -> None:
    """Pack what a `.tflite` says about itself behind its network, with the network's sha256."""
    about = json.loads(metadata_json(info)) | {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(zipfile.ZipInfo(METADATA_FILE), json.dumps(about))


def digests(folder: Path) -> dict[str, str]:
    """Return the sha256 of each file in a folder, by its name."""
    return {path.name: sha256_of(path) for path in sorted(folder.iterdir())}
