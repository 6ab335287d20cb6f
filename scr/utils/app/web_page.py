"""A model -> a folder that any web server can serve: a page that reads faces in the browser, nothing sent.

The page's own files lie in `utils/page`. Added are the model (`model.json` and networks), the constants of
the modules that its scripts mirror (`constants.js`), and LiteRT.js, which runs networks in browsers.
"""

import base64
import contextlib
import functools
import hashlib
import io
import json
import shutil
import subprocess
import tarfile
import threading
import webbrowser
import zipfile
from collections.abc import Iterator, Sequence
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np

from ..config import DATA, PERSONAL_MODELS, UserError, note, relative
from ..faces import crops, detection, features, images, mesh, tracking
from ..files import read_verified, scratch_folder
from ..model.bundle import Model, find_model, read_metadata
from ..model.schema import choose_vocabulary, vocabularies
from . import pipeline, smoothing
from .results import table
from .windows import canvas, live_view

SOURCES = Path(__file__).resolve().parents[1] / "page"
PAGES = DATA / "pages"
DOWNLOADS = DATA / "cache"
FILE_LIST = "files.json"
"""sha256 of each file of a page. A folder that holds it is a page, and may be replaced."""
PORT = 8765
"""Where a page is served, if it is free: browsers keep a camera's permission by address and port."""
VERSION = "2.5.3"
PACKAGES = {
    "core": "PlGmbMOq9WitX7FO0jhbdJw9GthatsyuCQXjTt/wJZo0FLaw48q4tz8IwqgqCIkviYGr9OFDL1kCnN4nzWoyJQ==",
    "wasm-utils": "4fJiw6tBQnIs+0jH/OQ16nYOiSl8/+zZnn5h2ul8aTKHi05sVqZW580Tmk78pC2kT39A9OYBVdFawteZ/sI1kQ==",
}
"""LiteRT.js, two packages under @litertjs on npm: version, and the sha512 of each."""
RUNTIME_FILES = {
    "litert.js": ("core", "dist/index.js"),
    "wasm-utils.js": ("wasm-utils", "dist/index.js"),
    "litert_wasm.js": ("core", "wasm/litert_wasm_compat_internal.js"),
    "litert_wasm_compat_internal.wasm": ("core", "wasm/litert_wasm_compat_internal.wasm"),
}
"""What the page needs of them: of four runtimes, the one that works in every browser."""
MEDIAPIPE_NETWORKS = "face_detector", "face_landmarks_detector", "face_blendshapes"
MIRRORED = images, crops, detection, features, mesh, tracking, pipeline, smoothing, table, canvas, live_view
"""The modules that the page's scripts mirror, and whose public constants they use."""


def write_page(model: Path | str, folder: Path | None = None, classes: Sequence[str] | None = None) -> Path:
    """Write the page of a model and return its folder; a page that is there is replaced as a whole.

    folder: by default one in `PAGES`. classes: those to tell apart, as `choose_vocabulary` takes them. Raises
    UserError if there is no such model, LiteRT.js can't be had, or the folder holds something else.
    """
    found = find_model(model)
    folder = folder or PAGES / found.path.stem
    if folder.exists() and not (folder / FILE_LIST).is_file():
        raise UserError(f"{relative(folder)} exists and is no page; choose another --output")
    info, networks = describe_model(found, classes)
    files = dict(page_files(info, networks))
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    files[FILE_LIST] = json.dumps(digests, indent=1).encode()
    note(f"writing {relative(folder)}: {sum(map(len, files.values())) / 1e6:.1f} MB")
    if info["personal"]:
        note("this model was trained on somebody's face: who has the folder, or its address, has the model")
    with scratch_folder(folder.parent) as scratch:
        for name, content in files.items():
            path = scratch / "page" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        if folder.exists():
            folder.replace(scratch / "before")
        (scratch / "page").replace(folder)
    return folder


def page_files(info: dict, networks: dict[str, bytes]) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of each file of a page but `FILE_LIST`, given what `describe_model` returns."""
    yield from runtime_files()
    for path in SOURCES.iterdir():
        yield path.name, path.read_bytes()
    yield "constants.js", constants_script().encode()
    yield "model.json", json.dumps(info).encode()
    task = read_verified(mesh.TASK_FILE, mesh.TASK_SHA256, detection.NETWORK_ADVICE)
    with zipfile.ZipFile(io.BytesIO(task)) as archive:
        faces = {name: rewrite_network(archive.read(f"{name}.tflite")) for name in MEDIAPIPE_NETWORKS}
    for name, network in (networks | faces).items():
        yield f"networks/{name}.tflite", network


def describe_model(model: Model, classes: Sequence[str] | None = None) -> tuple[dict, dict[str, bytes]]:
    """Return a model's JSON for the page, its vocabularies with the chosen one first, and its networks,
    rewritten, by kind."""
    parts, networks, about = {}, {}, {}
    for path, content in model.parts.items():
        metadata = read_metadata(path, content)
        name = "crop" if metadata["features"]["kind"] == "crop" else "landmarks"
        networks[name] = rewrite_network(content)
        recipe = {key: value for key, value in metadata["features"].items() if key != "neutral"}
        parts[name] = {"features": recipe, "sha256": hashlib.sha256(networks[name]).hexdigest()}
        about = about or metadata  # the crop network of a personal model feeds its landmark network
    if len(parts) > 1 and "embedding" not in about["features"]:
        about = model.info
    chosen = choose_vocabulary(about, classes)
    info = {key: about[key] for key in ("name", "classes", "weights") if key in about} | {"parts": parts}
    info["vocabularies"] = [
        chosen,
        *(one for one in vocabularies(about) if one["classes"] != chosen["classes"]),
    ]
    info["personal"] = model.path.resolve().is_relative_to(PERSONAL_MODELS)
    return info | {"colours": canvas.class_colours(info["classes"])}, networks


def constants_script() -> str:
    """Return a script that exports the public constants of each mirrored module, under the module's name."""
    exports = {"referenceFace": np.loadtxt(crops.REFERENCE_FILE, delimiter=",")}
    for module in MIRRORED:
        exports[module.__name__.split(".")[-1]] = {
            name: value
            for name, value in vars(module).items()
            if name.isupper() and isinstance(value, int | float | str | tuple | np.ndarray)
        }
    lines = (f"export const {name} = {json.dumps(value, default=_plain)}" for name, value in exports.items())
    return "\n".join(lines)


def _plain(value: np.ndarray | slice) -> list:
    return [value.start, value.stop] if isinstance(value, slice) else value.tolist()


def rewrite_network(content: bytes) -> bytes:
    """Return a `.tflite` for one face at a time, as LiteRT.js wants it: no part of a shape is left open.

    With a batch left open it refuses a network, and where a RESHAPE takes a shape that the network packs it
    computes something else, without an error: here that shape is a constant. What follows the network goes.
    """
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(content)
    (graph,) = model.subgraphs
    for tensor in graph.tensors:
        tensor.shapeSignature = None
    codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]
    packs = [one for one in graph.operators if codes[one.opcodeIndex] == schema.BuiltinOperator.PACK]
    packed = {one.outputs[0] for one in packs}
    for operator in graph.operators:
        if operator.inputs[-1] in packed:
            shape = schema.BufferT()
            shape.data = np.frombuffer(graph.tensors[operator.outputs[0]].shape.astype("<i4"), np.uint8)
            graph.tensors[operator.inputs[-1]].buffer = len(model.buffers)
            model.buffers.append(shape)
    needed, operators = set(graph.outputs), []
    for operator in reversed(graph.operators):
        if needed.intersection(operator.outputs) and operator not in packs:
            operators.insert(0, operator)
            needed.update(operator.inputs)
    graph.operators = operators
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def runtime_files() -> Iterator[tuple[str, bytes]]:
    """Yield name and content of each file of LiteRT.js, which npm fetches once; its sha512 is checked."""
    archives = {name: DOWNLOADS / f"litertjs-{name}-{VERSION}.tgz" for name in PACKAGES}
    if not all(path.is_file() for path in archives.values()):
        fetch(archives)
    for name, path in archives.items():
        if base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode() != PACKAGES[name]:
            raise UserError(f"{relative(path)} is damaged, or another package (sha512 differs); delete it")
    for name, (package, member) in RUNTIME_FILES.items():
        with tarfile.open(archives[package]) as files:
            content = files.extractfile(f"package/{member}").read()
        if name == "litert.js":
            # A bare name would need an import map, which the page's policy forbids; no GPU need wake.
            content = content.replace(b'"@litertjs/wasm-utils"', b'"./wasm-utils.js"')
            content = content.replace(b"await createDefaultWebGpuDevice()", b"null")
        yield f"runtime/{name}", content


def fetch(archives: dict[str, Path]) -> None:
    """Fetch the archives of LiteRT.js by npm; raises UserError, with what to put where, if that fails."""
    packages = [f"@litertjs/{name}@{VERSION}" for name in archives]
    names = " and ".join(path.name for path in archives.values())
    note("fetching LiteRT.js (15 MB) with npm, once")
    with scratch_folder(DOWNLOADS) as scratch:
        command = [shutil.which("npm") or "npm", "pack", *packages, "--pack-destination", str(scratch)]
        try:
            subprocess.run(command, capture_output=True, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise UserError(
                f"npm can't fetch LiteRT.js: install Node.js and connect to the Internet, or put {names} "
                f"(npm: {' and '.join(packages)}) into {relative(DOWNLOADS)}"
            ) from error
        for path in archives.values():
            (scratch / path.name).replace(path)


class _Handler(SimpleHTTPRequestHandler):
    # Windows may know scripts as plain text, which browsers refuse.
    extensions_map = {".js": "text/javascript", ".wasm": "application/wasm"}

    def log_message(self, *_) -> None:
        pass


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Serve a folder to this machine alone, at `PORT` or else any that is free; yield the address."""
    handler = functools.partial(_Handler, directory=folder)
    try:
        server = ThreadingHTTPServer(("127.0.0.1", PORT), handler)
    except OSError:
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    with server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def show_page(model: Path | str, classes: Sequence[str] | None = None) -> None:
    """Write a model's page, serve it, and open it in the browser, until Ctrl-C."""
    with serving(write_page(model, classes=classes)) as address:
        note(f"{address} until Ctrl-C; for another machine: ssh -L PORT:127.0.0.1:PORT HOST")
        webbrowser.open(address)
        threading.Event().wait()
