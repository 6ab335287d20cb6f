"""The layout: one-way imports, one owner for each heavy package, `--help` at once and from anywhere."""

import ast
import graphlib
import re
import sys
from collections import Counter
from pathlib import Path

import pytest
from conftest import ROOT, run

SCR = ROOT / "scr"
SCRIPTS = sorted(path.name for path in SCR.glob("*.py"))
UTILS = SCR / "utils"
MAY_IMPORT = {
    "faces": set(),
    "data": {"faces"},
    "model": {"faces", "data"},
    "evaluation": {"faces", "data", "model"},
    "training": {"faces", "data", "model", "evaluation"},
    "video": {"faces"},
    "app": {"faces", "data", "model", "evaluation", "video"},
}
"""Each floor, and the floors that its modules may import from beside their own and the ground."""
MODULES = {
    ".".join(path.relative_to(SCR).with_suffix("").parts): path
    for path in sorted(UTILS.rglob("*.py"))
    if path.name != "__init__.py"
}
"""Each module of utils by its dotted name."""
OWNERS = {
    "keras": {"networks"},
    "tensorflow": {"networks", "export"},
    "ai_edge_litert": {"classifier", "mesh", "web_page"},
    "onnx": {"export"},
    "onnxruntime": {"export"},
    "matplotlib": {"plots"},
    "cv2": {"images"},
    "PIL": {"images"},
    "filelock": {"files"},
    "pydantic": {"schema"},
    "distributed": {"extraction"},
    "av": {"video_reader"},
    "pebble": {"pool"},
}


def imports(path: Path) -> set[str]:
    """Return every module that a file imports, anywhere in it, relative ones by their full names.

    `from utils.faces import images` counts as utils.faces.images.
    """
    package = path.relative_to(SCR).parts[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*above, *([node.module] if node.module else [])))
            found |= {f"{module}.{alias.name}" for alias in node.names} & set(MODULES) or {module}
    return found


def floor(module: str) -> str:
    """Return the floor of a module of utils; the ground's is empty."""
    parts = module.split(".")
    return parts[1] if len(parts) > 2 else ""


@pytest.mark.parametrize("module", MODULES)
def test_modules_import_downwards_only(module):
    here = floor(module)
    allowed = {"", here, *MAY_IMPORT[here]} if here else {""}
    for name in imports(MODULES[module]):
        if name.startswith("utils."):
            assert floor(name) in allowed, f"{module} imports {name}"


def test_modules_of_the_package_import_each_other_relatively():
    """So that the package can be installed under another name."""
    for path in MODULES.values():
        tree = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        absolute = [node.module for node in tree if isinstance(node, ast.ImportFrom) and not node.level]
        assert not any(name.split(".")[0] == "utils" for name in absolute), path.name


def test_floors_hold_three_to_nine_rooms():
    rooms = Counter(module.rpartition(".")[0] for module in MODULES)
    assert all(3 <= count <= 9 for count in rooms.values()), rooms


def test_no_modules_import_each_other_in_a_circle():
    graphlib.TopologicalSorter(
        {module: imports(path) & set(MODULES) for module, path in MODULES.items()}
    ).prepare()


@pytest.mark.parametrize("path", sorted(SCR.glob("*.py")), ids=lambda path: path.stem)
def test_no_script_imports_a_script(path):
    assert not imports(path) & {Path(name).stem for name in SCRIPTS}


def test_heavy_packages_have_one_owner():
    for path in SCR.rglob("*.py"):
        for name in imports(path):
            owners = OWNERS.get(name.split(".")[0])
            assert owners is None or path.stem in owners | {"doctor"}, f"{path.name} imports {name}"


def test_no_pickle_is_opened():
    """joblib writes `scaler.pkl`; what it and numpy would open is not asked of them."""
    for path in SCR.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert not imports(path) & {"pickle", "cPickle", "dill", "cloudpickle", "shelve"}, path.name
        assert not re.search(r"joblib\.load|allow_pickle\s*=\s*True|read_pickle|torch\.load", text), path.name


def test_config_needs_the_standard_library_only():
    assert {name.split(".")[0] for name in imports(UTILS / "config.py")} <= sys.stdlib_module_names


def test_sys_path_is_never_edited():
    assert not any("sys.path" in path.read_text(encoding="utf-8") for path in SCR.rglob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_works_from_another_directory(script, tmp_path):
    done = run(script, "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"python scr/{script}" in done.stdout
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("script", SCRIPTS)
def test_unknown_arguments_are_refused(script):
    done = run(script, "--no-such-flag")
    assert done.returncode == 2
    assert "usage:" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-live.txt", "requirements-cluster.txt"])
def test_requirements_are_pinned(name):
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    assert (lines[0] == "-r requirements-live.txt") == (name == "requirements.txt")
    packages = [line for line in lines if line[0] not in "#-"]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][\w.]*", line) for line in packages)
