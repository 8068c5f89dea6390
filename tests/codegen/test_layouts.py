"""Layouts: each build system's own file says what is compiled, and that compiles and links."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from codegen.choose import Optimise
from codegen.generate import GeneratedModel, generate
from codegen.layouts import Layout
from codegen.render import marked_files
from codegen.target import load_target
from conformance.toolchain import build_firmware, elf_symbols
from conformance.verify.folder import read_folder
from tests.codegen.graphs import hybrid_graph

TARGET = load_target("stm32f746")
# Zephyr's functions, as far as its documentation defines what they do with a library.
ZEPHYR = """
cmake_minimum_required(VERSION 3.13)
set(CMAKE_TRY_COMPILE_TARGET_TYPE STATIC_LIBRARY)
project(app C)
add_library(zephyr_interface INTERFACE)
macro(zephyr_library_named name)
  set(ZEPHYR_CURRENT_LIBRARY ${name})
  add_library(${name} STATIC)
  target_link_libraries(${name} PUBLIC zephyr_interface)
endmacro()
function(zephyr_library_sources)
  target_sources(${ZEPHYR_CURRENT_LIBRARY} PRIVATE ${ARGN})
endfunction()
function(zephyr_library_include_directories)
  target_include_directories(${ZEPHYR_CURRENT_LIBRARY} PRIVATE ${ARGN})
endfunction()
function(zephyr_library_compile_definitions)
  target_compile_definitions(${ZEPHYR_CURRENT_LIBRARY} PRIVATE ${ARGN})
endfunction()
function(zephyr_include_directories)
  target_include_directories(zephyr_interface INTERFACE ${ARGN})
endfunction()
add_subdirectory("@MODULE@" module)
add_library(app STATIC main.c)
target_link_libraries(app PRIVATE tinyformer_model zephyr_interface)
"""
PLAIN = """
cmake_minimum_required(VERSION 3.13)
project(app C)
add_subdirectory("@MODULE@" module)
add_library(app STATIC main.c)
target_link_libraries(app PRIVATE tinyformer_model)
"""
MAIN = """
#include "model.h"
static int8_t arena[MODEL_ARENA_BYTES] __attribute__((aligned(MODEL_ARENA_ALIGNMENT)));
int main(void) { model_run(arena); return *model_output_0(arena) == 127; }
"""
needs_cmake = pytest.mark.skipif(
    not (shutil.which("cmake") and shutil.which("ninja") and shutil.which("ar")),
    reason="cmake, ninja or ar is not installed",
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> GeneratedModel:
    """With steps that have a copy of their kernel, so that every folder is there."""
    return generate(hybrid_graph(), TARGET, tmp_path_factory.mktemp("layouts") / "out", optimise=Optimise.SPEED)


@pytest.fixture(scope="module")
def arduino(tmp_path_factory: pytest.TempPathFactory) -> GeneratedModel:
    out = tmp_path_factory.mktemp("arduino") / "out"
    return generate(hybrid_graph(), TARGET, out, optimise=Optimise.SPEED, layout=Layout.ARDUINO)


def check_links(sources: list[Path], include_dirs: list[Path], defines: dict[str, int | str], folder: Path) -> None:
    """Compile for the chip as a build system would, together with a caller that sees the header."""
    (folder / "main.c").write_text(MAIN.replace("int main(void)", "int caller(void);\nint caller(void)"))
    elf = build_firmware(
        [*sources, folder / "main.c"],
        TARGET,
        ["caller"],
        include_dirs=include_dirs,
        defines=defines,
        extra_flags=["-Wall", "-Wextra", "-Werror"],
    )
    assert "model_run" in elf_symbols(elf)


def run_cmake(project: str, folder: Path, module: Path) -> list[dict[str, Any]]:
    """Configure and compile an application with zig, without linking a C library; the compile commands."""
    folder.mkdir()
    (folder / "CMakeLists.txt").write_text(project.replace("@MODULE@", module.as_posix()))
    (folder / "main.c").write_text(MAIN)
    environment = os.environ | {"CC": f"{sys.executable} -m ziglang cc"}
    for command in (
        ["-G", "Ninja", "-S", str(folder), "-B", str(folder / "b"), "-DCMAKE_EXPORT_COMPILE_COMMANDS=ON"],
        ["--build", str(folder / "b"), "-j", "1"],
    ):
        done = subprocess.run(["cmake", *command], capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    assert list((folder / "b").glob("*app.a"))
    commands: list[dict[str, Any]] = json.loads((folder / "b" / "compile_commands.json").read_text())
    return commands


@needs_cmake
def test_cmake_builds_it_within_an_application(model: GeneratedModel, tmp_path: Path) -> None:
    commands = run_cmake(PLAIN, tmp_path / "app", model.folder)
    compiled = {Path(c["file"]).resolve() for c in commands if "TNF_DUAL_ISSUE" in c["command"]}
    assert compiled == {path.resolve() for path in model.sources}


def test_platformio_manifest(model: GeneratedModel, tmp_path: Path) -> None:
    manifest = json.loads((model.folder / "library.json").read_text())
    assert re.fullmatch(r"[a-z0-9-]{1,50}", manifest["name"])
    assert re.fullmatch(r"\d+\.\d+\.\d+", manifest["version"])
    assert (model.folder / manifest["headers"]).is_file()
    build = manifest["build"]
    # As PlatformIO reads it: each rule in turn adds or removes files below srcDir.
    root = model.folder / build["srcDir"]
    sources: set[Path] = set()
    for rule in build["srcFilter"]:
        sign, pattern = re.fullmatch(r"([+-])<(.*)>", rule).groups()
        found = set(root.rglob("*") if pattern == "*" else root.glob(pattern))
        assert found, rule
        sources = sources | found if sign == "+" else sources - found
    assert sources == set(model.sources)
    flags = [flag.split(" ", 1) for flag in build["flags"]]
    include_dirs = [
        model.folder / build["includeDir"],
        *(model.folder / value for name, value in flags if name == "-I"),
    ]
    check_links(sorted(sources), include_dirs, {value: 1 for name, value in flags if name == "-D"}, tmp_path)


def test_zephyr_module(model: GeneratedModel) -> None:
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed; it comes with the extra dev")
    module = yaml.safe_load((model.folder / "zephyr" / "module.yml").read_text())
    assert module == {"name": "tinyformer_model", "build": {"cmake": "zephyr"}}
    assert (model.folder / module["build"]["cmake"] / "CMakeLists.txt").is_file()


def test_zephyr_sources_compile(model: GeneratedModel, tmp_path: Path) -> None:
    text = (model.folder / "zephyr" / "CMakeLists.txt").read_text()
    text = text.replace("${CMAKE_CURRENT_LIST_DIR}", str(model.folder / "zephyr"))
    calls = {name: given.split() for name, given in re.findall(r"^(\w+)\(([^)]*)\)", text, re.MULTILINE)}
    sources = [Path(name).resolve() for name in calls["zephyr_library_sources"]]
    assert sorted(sources) == sorted(path.resolve() for path in model.sources)
    folders = [*calls["zephyr_library_include_directories"], *calls["zephyr_include_directories"]]
    defines: dict[str, int | str] = dict.fromkeys(calls["zephyr_library_compile_definitions"], 1)
    check_links(sources, [Path(folder) for folder in folders], defines, tmp_path)


@needs_cmake
def test_zephyr_cmake_runs(model: GeneratedModel, tmp_path: Path) -> None:
    commands = run_cmake(ZEPHYR, tmp_path / "app", model.folder / "zephyr")
    compiled = {Path(c["file"]).resolve() for c in commands if "TNF_DUAL_ISSUE" in c["command"]}
    assert compiled == {path.resolve() for path in model.sources}


def test_an_ide_compiles_every_c_file_of_the_folder(model: GeneratedModel, tmp_path: Path) -> None:
    """STM32CubeIDE: whatever lies in a source location is compiled."""
    sources = sorted(model.folder.rglob("*.c"))
    assert sources == sorted(model.sources)
    check_links(sources, [model.folder, model.folder / "kernels"], {}, tmp_path)


def test_arduino_library(arduino: GeneratedModel, tmp_path: Path) -> None:
    root = arduino.folder.parent
    lines = (root / "library.properties").read_text().splitlines()
    properties = dict(line.split("=", 1) for line in lines)
    assert {"name", "version", "author", "maintainer", "sentence", "paragraph", "category", "url", "architectures"} <= (
        properties.keys()
    )
    assert re.fullmatch(r"\d+\.\d+\.\d+", properties["version"])
    # Arduino compiles what lies below src, however deep, and src is the library's one include folder.
    assert (root / "src" / properties["includes"]).is_file()
    sources = sorted((root / "src").rglob("*.c"))
    assert sources == sorted(arduino.sources)
    assert sources == sorted(root.rglob("*.c"))
    check_links(sources, [root / "src"], {}, tmp_path)
    for folder in (root, root / "src"):
        assert sorted(read_folder(folder, hybrid_graph(), TARGET).sources) == sources


def test_layouts_replace_each_other(tmp_path: Path) -> None:
    for layout in (Layout.STANDARD, Layout.ARDUINO, Layout.STANDARD):
        generate(hybrid_graph(), TARGET, tmp_path / "out", layout=layout)
        present = sorted(
            p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*") if not p.is_dir()
        )
        readme = (tmp_path / "out" / "README.md").read_text()
        assert marked_files(readme) == tuple(present)
        assert ("CMake:" in readme) == (layout is Layout.STANDARD)
