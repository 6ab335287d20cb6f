"""Damaged and forged files for every loader: none may end in a traceback, a crash, a hang or a NaN.

    python tests/measure/fuzz.py --cases 10000 --seed 1

Each case damages a good file (bits, cuts, repeated blocks) or forges one (a column, a field, a number that no
recording holds) and loads it. Allowed: what was loaded has no NaN and no infinity, or a UserError of one
line. A worker process does the work, so a crash or a hang costs its case and is counted.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scr"))

from utils.cli import make_parser, positive_int, run_script, seed

import base64
import contextlib
import csv
import io
import json
import os
import shutil
import sqlite3  # noqa: E402
import tempfile
import traceback
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from utils.config import MODELS, TRUST_VARIABLE, UserError
from utils.faces.pool import DIED, work_through

ODD_NUMBERS = (
    float("nan"),
    float("inf"),
    float("-inf"),
    -1,
    0,
    0.5,
    1e30,
    1e308,
    2**31,
    2**63,
    2**64,
    -(2**63),
)
ODD_VALUES = (None, True, "", "x" * 3000, "nan", "../../etc", [], {}, [[]], [None], {"a": 1}, *ODD_NUMBERS)


@dataclass(frozen=True)
class Kind:
    """A kind of file: its name in the folder, a good one, how to forge one, and how it is loaded.

    `load` gets the folder and returns the arrays and numbers that it got out of the file, to be looked at.
    """

    name: str
    good: Callable[[], bytes]
    forge: Callable[[bytes, np.random.Generator], bytes]
    load: Callable[[Path], list]


def damage(data: bytes, generator: np.random.Generator) -> bytes:
    """Return bytes with bits turned over, blocks cut out, doubled, zeroed or moved, or the end missing."""
    damaged = bytearray(data)
    for _ in range(generator.integers(1, 4)):
        size = len(damaged)
        if size < 2:
            return bytes(damaged)
        a, b = np.sort(generator.integers(0, size, 2))
        b = min(int(b), int(a) + int(generator.choice([1, 8, 200, 5000])))
        a, how = int(a), generator.integers(7)
        if how == 0:
            damaged[a] ^= 1 << int(generator.integers(8))
        elif how == 1:
            del damaged[a:]
        elif how == 2:
            del damaged[a:b]
        elif how == 3:
            damaged[a:a] = damaged[a:b]
        elif how == 4:
            damaged[a:b] = bytes(b - a)
        elif how == 5:
            damaged[a:b] = generator.bytes(b - a)
        else:
            damaged[a:b] = b"\xff" * (b - a)
    return bytes(damaged)


def forge_json(data: bytes, generator: np.random.Generator) -> bytes:
    """Return JSON with one value at a random place exchanged for an odd one, or gone."""
    content = json.loads(data)
    place, key = None, None
    node = content
    while isinstance(node, dict | list) and node and (place is None or generator.random() < 0.8):
        keys = list(node) if isinstance(node, dict) else range(len(node))
        place, key = node, keys[int(generator.integers(len(keys)))]
        node = node[key]
    if generator.random() < 0.2:
        del place[key]
    else:
        place[key] = ODD_VALUES[generator.integers(len(ODD_VALUES))]
    if generator.random() < 0.02:
        return b"[" * 100_000
    return json.dumps(content).encode()


def forge_text(data: bytes, generator: np.random.Generator) -> bytes:
    """Return a table with some of its words exchanged, doubled or gone."""
    words = data.replace(b",", b" , ").replace(b"\n", b" \n ").split(b" ")
    odd = [
        b"nan",
        b"inf",
        b"-1",
        b"1e999",
        b"999999999999999999999",
        b"",
        b"#",
        b"\n",
        b"\xe9",
        b"\x00",
        b"4",
        b'"',
    ]
    for _ in range(generator.integers(1, 4)):
        words[generator.integers(len(words))] = odd[generator.integers(len(odd))]
    return b" ".join(words).replace(b" , ", b",").replace(b" \n ", b"\n")


def forge_recordings(data: bytes, generator: np.random.Generator) -> bytes:
    """Return a database of recordings with an odd value in one of its columns."""
    odd = [
        None,
        b"",
        "x",
        b"\xff" * 5736,
        bytes(5736),
        bytes(208),
        np.full(52, np.nan, "<f4").tobytes(),
        "\n",
    ]
    column = ("label", "time", "landmarks", "blendshapes", "embedding", "session")[generator.integers(6)]
    value = (*odd, *ODD_NUMBERS[:8])[generator.integers(15)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.sqlite"
        path.write_bytes(data)
        with contextlib.closing(sqlite3.connect(path)) as database, database:
            database.execute(f"UPDATE samples SET {column} = ? WHERE rowid = 1", (value,))
            if generator.random() < 0.2:
                database.execute("UPDATE facts SET value = ?", (value,))
        return path.read_bytes()


def forge_session(data: bytes, generator: np.random.Generator) -> bytes:
    """Return a session of an earlier version whose first line was forged with a right checksum."""
    first, *others = data.split(b"\n")
    body = json.loads(first.partition(b" ")[2])
    if generator.random() < 0.5:
        values = np.frombuffer(base64.b64decode(body["landmarks"]), "<f4").copy()
        with np.errstate(over="ignore"):
            values[generator.integers(len(values))] = ODD_NUMBERS[generator.integers(8)]
        body["landmarks"] = base64.b64encode(values.tobytes()).decode()
        text = json.dumps(body).encode()
    else:
        text = forge_json(json.dumps(body).encode(), generator)
    return b"\n".join([b"%08x %s" % (zlib.crc32(text), text), *others])


def forge_set(data: bytes, generator: np.random.Generator) -> bytes:
    """Return a set of faces in which a column of one picture was forged."""
    odd = None, "x", b"", b"x" * 208, -1, 2**62, 1e300, np.full(52, np.nan, np.float32).tobytes()
    with contextlib.closing(sqlite3.connect(":memory:")) as file:
        file.deserialize(data)
        table = ("picture", "landmarks", "crop")[generator.integers(3)]
        names = [row[1] for row in file.execute(f"PRAGMA table_info({table})")]
        name = names[generator.integers(1, len(names))]
        row = int(generator.integers(1, 6))
        file.execute(f"UPDATE {table} SET {name} = ? WHERE id = ?", (odd[generator.integers(len(odd))], row))
        file.commit()
        return file.serialize()


def forge_member(data: bytes, generator: np.random.Generator, name: str) -> bytes:
    """Return a zip archive in which one file, JSON, was forged."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(file, "w") as new:
        for member in old.namelist():
            content = old.read(member)
            new.writestr(member, forge_json(content, generator) if member == name else content)
    return file.getvalue()


def forge_keras(data: bytes, generator: np.random.Generator) -> bytes:
    """Return a Keras network whose configuration was forged."""
    return forge_member(data, generator, "config.json")


def forge_tflite(data: bytes, generator: np.random.Generator) -> bytes:
    """Return a LiteRT model whose metadata was forged."""
    from utils.model.bundle import METADATA_FILE

    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        metadata, start = archive.read(METADATA_FILE), archive.infolist()[0].header_offset
    file = io.BytesIO(data[:start])
    file.seek(0, io.SEEK_END)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr(METADATA_FILE, forge_json(metadata, generator))
    return file.getvalue()


def faces(count: int = 6):
    """Return a good set of faces, as recordings and extraction make them."""
    from utils.data.face_set import FaceSet, missed_pictures

    generator = np.random.default_rng(0)
    text = np.array([f"x{index}.png" for index in range(count)])
    return FaceSet(
        landmarks=generator.random((count, 478, 3), np.float32),
        label=np.array(["fear", "happy", "neutral", "sad", "happy", "sad"])[:count],
        blendshapes=generator.random((count, 52), np.float32),
        **{name: text for name in ("source", "path", "sha256", "subject", "session")},
        split=np.array(["train", "val", "test", "train", "", "val"])[:count],
        missed=missed_pictures(*(np.array([text]) for text in ("sad", "x", "y.png", "", "no face"))),
    )


def made_by(write: Callable[[Path], object], name: str) -> bytes:
    """Return the bytes of a file that a function writes into a folder."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        return (Path(folder) / name).read_bytes()


def good_set() -> bytes:
    """Return a set with crops of faces."""
    from utils.data.face_set import save_face_set
    from utils.faces.crops import CROP_PX

    crops = np.random.default_rng(0).integers(0, 256, (6, CROP_PX, CROP_PX), np.uint8)
    return made_by(lambda folder: save_face_set(folder / "a.faces", replace(faces(), crop=crops)), "a.faces")


def good_txt() -> bytes:
    from utils.data.face_set import save_txt

    return made_by(lambda folder: save_txt(folder / "a.txt", faces(3)), "a.txt")


def good_recordings() -> bytes:
    from utils.data.recordings import open_recordings

    def write(folder: Path) -> None:
        with open_recordings("ann", folder) as recordings:
            recordings.keep_classes(["cat", "dog", "happy"])
            for one in range(2):
                recordings.append("1", faces().landmarks[one], faces().blendshapes[one], "happy")

    return made_by(write, "ann/recordings.sqlite")


def good_session() -> bytes:
    """Return a session as versions before SQLite kept it."""
    lines = []
    for one in range(2):
        arrays = {"landmarks": faces().landmarks[one], "blendshapes": faces().blendshapes[one]}
        row = {name: base64.b64encode(values.tobytes()).decode() for name, values in arrays.items()}
        text = json.dumps(row | {"label": "happy", "time": "2026-10-24T12:00:00.000+00:00"}).encode()
        lines.append(b"%08x %s\n" % (zlib.crc32(text), text))
    return b"".join(lines)


def good_ferplus() -> bytes:
    from utils.data.image_folder import FERPLUS_COLUMNS

    names = [f"fer{index:07}.png" for index in range(4)]
    rows = [
        f"Training,{name},{','.join(map(str, [index, 7, *[0] * 7, 1]))}" for index, name in enumerate(names)
    ]
    return "\n".join(["Usage,Image name," + ",".join(FERPLUS_COLUMNS), *rows, ""]).encode()


def good_tflite() -> bytes:
    """Return a shipped network, its metadata packed anew: files from before had no checksum of it."""
    from utils.model.bundle import METADATA_FILE, pack_metadata, read_metadata

    def write(folder: Path) -> None:
        path, content = folder / "a.tflite", (MODELS / "emotion_mlp.tflite").read_bytes()
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            path.write_bytes(content[: archive.getinfo(METADATA_FILE).header_offset])
        pack_metadata(path, read_metadata(MODELS / "emotion_mlp.tflite"))

    return made_by(write, "a.tflite")


def good_table() -> bytes:
    rows = [f"x/x{index}.png,0,1,1,50,60,happy,.{index}" for index in range(6)]
    return "\n".join(["source,frame,face,x,width,height,emotion,confidence", *rows, ""]).encode()


def good_json_lines() -> bytes:
    rows = csv.DictReader(io.StringIO(good_table().decode("utf-8-sig")))
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def forge_json_line(data: bytes, generator: np.random.Generator) -> bytes:
    """Return JSON lines of which one was forged."""
    lines = data.splitlines(keepends=True)
    number = int(generator.integers(len(lines)))
    lines[number] = forge_json(lines[number], generator) + b"\n"
    return b"".join(lines)


def values_of(data) -> list:
    """Return the numbers of a set of faces, and what the network would get of them."""
    from utils.faces.features import compute_features

    recipe = json.loads((MODELS / "emotion_mlp.json").read_bytes())["features"]
    columns = [data.landmarks, data.blendshapes, data.width, data.height, data.votes]
    if data.crop is not None:
        columns.append(data.crop[:])
    return [*columns, compute_features(data.landmarks, data.blendshapes, recipe)] if len(data) else columns


def load_set(folder: Path, name: str) -> list:
    from utils.data.face_set import load_face_set
    from utils.data.splits import assign_split

    data = load_face_set(folder / name)
    with contextlib.suppress(UserError):  # too few faces for some class
        assign_split(data)
    return values_of(data)


def load_recordings(folder: Path) -> list:
    from utils.data.recordings import open_recordings

    with open_recordings("ann", folder, to_read=True) as recordings:
        assert recordings.classes != ()
        samples = recordings.samples()
    return [values for sample in samples for values in (sample.landmarks, sample.blendshapes)]


def load_old_classes(folder: Path) -> list:
    from utils.data.recordings import open_recordings

    with open_recordings("ann", folder) as recordings:
        assert recordings.classes != ()
    return []


def load_ferplus(folder: Path) -> list:
    from utils.data.image_folder import read_ferplus

    for index in range(4):
        (folder / f"fer{index:07}.png").touch()
    return [np.array([image.votes for image in read_ferplus(folder, folder / "votes.csv")[0]])]


def load_info(folder: Path) -> list:
    from utils.model.bundle import load_info as load

    for name in ("emotion_mlp.tflite", "emotion_crop.tflite"):
        shutil.copy(MODELS / name, folder)
    info = load(folder)
    if info.get("scaler"):
        from utils.training.export import restore_scaler

        restore_scaler(info["scaler"])
    return [*predict(folder), np.asarray(info["threshold"])]


def load_tflite(folder: Path) -> list:
    return predict(folder / "a.tflite")


def load_keras(folder: Path) -> list:
    """Return what a network that its bundle lists predicts; by the loader that training and export use."""
    from utils.model.bundle import digests
    from utils.training.export import load_bundle
    from utils.training.networks import predict_network

    info = json.loads((MODELS / "emotion_mlp.json").read_bytes()) | {"network": "landmarks", "parts": {}}
    (folder / "emotion_mlp.json").write_text(json.dumps(info | {"sha256": digests(folder)}))
    network, scaler = load_bundle(folder)[0]["landmarks"]
    return [predict_network(network, np.zeros((1, len(scaler.mean_)), np.float32))]


def predict(path: Path) -> list:
    """Return what a model predicts for some faces, with their crops and, if it can, without."""
    from utils.model.classifier import EmotionClassifier

    classifier = EmotionClassifier(path)
    seen = faces().landmarks, faces().blendshapes
    found = [classifier.predict(*seen, np.zeros((6, 120, 120), np.uint8)).probabilities]
    with contextlib.suppress(ValueError):  # it looks at crops, and says so
        found.append(classifier.predict(*seen).probabilities)
    return found


def load_table(path: Path) -> list:
    from utils.evaluation.predictions import Pictures, read_predictions

    found = read_predictions(path, Pictures.of_set(faces()))
    return [found.label, found.predicted]  # no confidence is NaN


def load_calibration(folder: Path) -> list:
    from train_model import read_calibration

    return list(read_calibration(folder / "report.json").values())


def load_picture(folder: Path) -> list:
    from utils.faces.images import PictureError
    from utils.faces.images import load_picture as load

    try:
        return [load(folder / "a.jpg").image]
    except PictureError as error:
        raise UserError(str(error)) from error


KINDS = {
    "set of faces": Kind("a.faces", good_set, forge_set, lambda folder: load_set(folder, "a.faces")),
    "set of faces, .txt": Kind("a.txt", good_txt, forge_text, lambda folder: load_set(folder, "a.txt")),
    "recordings": Kind("ann/recordings.sqlite", good_recordings, forge_recordings, load_recordings),
    "session of an earlier version": Kind("ann/1.jsonl", good_session, forge_session, load_recordings),
    "FER+ table": Kind("votes.csv", good_ferplus, forge_text, load_ferplus),
    "model's JSON": Kind(
        "emotion_mlp.json", lambda: (MODELS / "emotion_mlp.json").read_bytes(), forge_json, load_info
    ),
    "model, .tflite": Kind("a.tflite", good_tflite, forge_tflite, load_tflite),
    "model, .keras": Kind(
        "emotion_mlp.keras", lambda: (MODELS / "emotion_mlp.keras").read_bytes(), forge_keras, load_keras
    ),
    "table of predictions": Kind(
        "a.csv", good_table, forge_text, lambda folder: load_table(folder / "a.csv")
    ),
    "table of predictions, .jsonl": Kind(
        "a.jsonl", good_json_lines, forge_json_line, lambda folder: load_table(folder / "a.jsonl")
    ),
    "classes of an earlier version": Kind(
        "ann/classes.json", lambda: b'{"classes": ["cat", "dog"]}', forge_json, load_old_classes
    ),
    "calibration": Kind(
        "report.json",
        lambda: b'{"calibration": {"temperature": 1.5, "threshold": 0.5}, "table": []}',
        forge_json,
        load_calibration,
    ),
    "picture": Kind(
        "a.jpg", lambda: (ROOT / "tests" / "assets" / "astronaut.jpg").read_bytes(), damage, load_picture
    ),
}
_good: dict[str, bytes] = {}


def try_case(case: tuple[str, int]) -> str:
    """Return what is wrong with how a case (kind of file, seed of what is done to it) ended, or ""."""
    kind, number = KINDS[case[0]], case[1]
    generator = np.random.default_rng(number)
    if case[0] not in _good:
        _good[case[0]] = kind.good()
    change = kind.forge if generator.random() < 0.6 else damage
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / kind.name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(change(_good[case[0]], generator))
        try:
            sane = all(np.isfinite(value).all() for value in kind.load(Path(folder)))
        except UserError as error:
            return "" if "\n" not in str(error) else f"several lines: {error}"
        except BaseException:
            return traceback.format_exc(limit=-3)
    return "" if sane else "let NaN or infinity through"


@contextlib.contextmanager
def open_tester():
    """Open what `work_through` calls for each case; models are trusted, or nothing of them would be read."""
    os.environ[TRUST_VARIABLE] = "1"
    with open(os.devnull, "w") as silence, contextlib.redirect_stderr(silence):
        yield try_case


def list_cases(count: int, first: int) -> list[tuple[str, int]]:
    """Return the cases of a seed: each kind of file in turn."""
    return [(list(KINDS)[index % len(KINDS)], first + index) for index in range(count)]


def build_parser():
    parser = make_parser(__doc__)
    parser.add_argument("--cases", type=positive_int, default=10_000, help="number of files")
    parser.add_argument("--seed", type=seed, default=1, help="seed of the first")
    parser.add_argument("--jobs", type=positive_int, default=2, help="worker processes")
    return parser


def main(args):
    cases = list_cases(args.cases, args.seed)
    faults, tried = Counter(), Counter()
    for case, fault in zip(cases, work_through(open_tester, cases, args.jobs, patience_s=60)):
        tried[case[0]] += 1
        if fault:
            faults[case[0]] += 1
            if faults[case[0]] <= 5:
                what = "crashed, or took more than a minute" if fault == DIED else fault
                print(f"{case[0]}, seed {case[1]}: {what}")
    for kind, count in tried.items():
        print(f"{kind:<20}{count:>7} files, {faults[kind]} faults")
    if faults:
        raise UserError(f"{sum(faults.values())} faults in {len(cases)} files")


if __name__ == "__main__":
    run_script(main, build_parser())
