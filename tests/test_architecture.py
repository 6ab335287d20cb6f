"""The layout of DESIGN: one-way imports, one owner for each heavy package, `--help` at once and from anywhere."""

import ast
import re
import sys
from pathlib import Path

import pytest
from conftest import ROOT, run

SCR = ROOT / "scr"
SCRIPTS = sorted(path.name for path in SCR.glob("*.py"))
LAYER = {"config": 0, "features": 1, "images": 1, "metrics": 1, "training": 3, "reader": 3, "personal": 4}  # all other modules of utils: 2
OWNERS = {"mediapipe": {"landmarks"}, "keras": {"classifier"}, "tensorflow": {"classifier"}, "ai_edge_litert": {"classifier"},
          "onnx": {"classifier"}, "onnxruntime": {"classifier"}, "matplotlib": {"plots"}, "cv2": {"images"}}


def imports(path: Path) -> set[str]:
    """Return every module that a file imports, anywhere in it; `from utils import x` counts as utils.x."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"utils.{alias.name}" for alias in node.names} if node.module == "utils" else {node.module}
    return found


def layer(module: str) -> int:
    return LAYER.get(module, 2)


@pytest.mark.parametrize("path", sorted((SCR / "utils").glob("*.py")), ids=lambda path: path.stem)
def test_modules_import_downwards_only(path):
    for name in imports(path):
        if name.startswith("utils."):
            assert layer(name.removeprefix("utils.")) < layer(path.stem), f"{path.stem} imports {name}"


@pytest.mark.parametrize("path", sorted(SCR.glob("*.py")), ids=lambda path: path.stem)
def test_no_script_imports_a_script(path):
    assert not imports(path) & {Path(name).stem for name in SCRIPTS}


def test_heavy_packages_have_one_owner():
    for path in [*SCR.glob("*.py"), *(SCR / "utils").glob("*.py")]:
        for name in imports(path):
            owners = OWNERS.get(name.split(".")[0])
            assert owners is None or path.stem in owners | {"doctor"}, f"{path.name} imports {name}"


def test_config_needs_the_standard_library_only():
    assert {name.split(".")[0] for name in imports(SCR / "utils" / "config.py")} <= sys.stdlib_module_names


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


def test_requirements_are_pinned():
    lines = [line.split("#")[0].strip() for line in (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][\w.]*", line) for line in lines if line)
