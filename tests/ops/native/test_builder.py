"""Building and caching the library: what its name depends on, who builds it, what happens where nothing can be built.

The real library is built by the tests of RoIAlign; here a script stands in for the compiler where that is enough.
"""

import os
import pathlib
import stat
import subprocess
import sys

import pytest
import tensorflow as tf

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.ops.native import builder
from mrcnn_tf.ops.native.builder import Library, build, built_libraries, library_folder, parse_architectures

FAKE_COMPILER = """#!/bin/sh
case "$*" in
  *--version*) echo "fake 1.0"; exit ;;
  *-dM*) echo "#define FAKE"; exit ;;
esac
echo "$*" >> "$(dirname "$0")/calls"
sleep 0.2
while [ $# -gt 1 ]; do [ "$1" = -o ] && echo compiled > "$2"; shift; done
"""


@pytest.fixture
def fake_compiler(tmp_path, monkeypatch):
    """The path of a compiler that notes its calls in the file `calls` beside it, the cache being empty."""
    path = tmp_path / "fake-cxx"
    path.write_text(FAKE_COMPILER)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("CXX", str(path))
    monkeypatch.setenv("MRCNN_TF_CACHE", str(tmp_path / "cache"))
    builder.find_compiler.cache_clear()
    yield path
    builder.find_compiler.cache_clear()


def calls(compiler):
    file = compiler.with_name("calls")
    return file.read_text().splitlines() if file.exists() else []


def test_it_is_built_once(fake_compiler):
    assert built_libraries() == []
    library = build()
    assert library.path.read_text() == "compiled\n" and library.architectures == ()
    assert len(calls(fake_compiler)) == 5  # four sources and the link
    assert build() == library == built_libraries()[0]
    assert len(calls(fake_compiler)) == 5


def test_another_tensorflow_has_another_library(fake_compiler, monkeypatch):
    build()
    monkeypatch.setattr(tf.version, "VERSION", "2.99.0")
    assert built_libraries() == []
    assert "2.99.0" in str(library_folder())


def test_the_same_version_from_another_build_of_tensorflow_has_another_library(fake_compiler, monkeypatch):
    build()
    monkeypatch.setattr(tf.version, "GIT_VERSION", "nightly")
    assert built_libraries() == []


def test_other_sources_have_another_library(fake_compiler, monkeypatch, tmp_path):
    build()
    sources = tmp_path / "sources"
    sources.mkdir()
    for file in builder.source_folder().iterdir():
        if file.is_file():
            (sources / file.name).write_bytes(file.read_bytes())
    monkeypatch.setattr(builder, "SOURCE_FOLDERS", (sources,))
    assert len(built_libraries()) == 1
    with open(sources / "roi_align.h", "a") as header:
        header.write("// changed\n")
    assert built_libraries() == []


def test_another_compiler_or_processor_has_another_library(fake_compiler):
    build()
    fake_compiler.write_text(FAKE_COMPILER.replace("define FAKE", "define __AVX512F__"))
    builder.find_compiler.cache_clear()
    assert built_libraries() == []


def test_processes_that_build_at_once_compile_once(fake_compiler):
    program = "from mrcnn_tf.ops.native.builder import build; print(build().path)"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", program]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(2)]
    paths = {process.communicate()[0].strip().splitlines()[-1] for process in running}
    assert len(paths) == 1 and pathlib.Path(paths.pop()).read_text() == "compiled\n"
    assert len(calls(fake_compiler)) == 5


def test_a_failing_compiler_leaves_nothing_and_says_where_its_errors_are(fake_compiler, tmp_path):
    fake_compiler.write_text(FAKE_COMPILER.replace("sleep 0.2", "echo 'no such header'; exit 1"))
    builder.find_compiler.cache_clear()
    with pytest.raises(UserError, match=r"don't compile with .*failed_build\.txt\.$"):
        build()
    assert built_libraries() == []
    assert [file.name for file in library_folder().iterdir()] == ["lock"]
    log = (tmp_path / "cache" / "custom_ops" / "failed_build.txt").read_text()
    assert "no such header" in log and str(fake_compiler) in log


def test_a_half_written_library_is_not_taken(fake_compiler):
    folder = library_folder()
    folder.mkdir(parents=True)
    (folder / ".mrcnn_tf_ops.123.so").write_text("killed while linking")
    assert built_libraries() == []


def test_a_cache_that_cannot_be_written_is_named(fake_compiler, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MRCNN_TF_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"MRCNN_TF_CACHE"):
        build()


def test_without_a_compiler_there_is_nothing_to_find(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    builder.find_compiler.cache_clear()
    try:
        assert library_folder() is None and built_libraries() == []
        with pytest.raises(UserError, match="install g"):
            build()
    finally:
        builder.find_compiler.cache_clear()


def test_cuda_without_nvcc_is_an_error(fake_compiler, monkeypatch):
    monkeypatch.setattr(builder, "find_nvcc", lambda: None)
    with pytest.raises(UserError, match="nvcc"):
        build((90,))
    assert parse_architectures(None) == ()


@pytest.mark.parametrize(
    ("architectures", "capability", "runs"),
    [
        ((), 90, False),
        ((80, 90), 80, True),
        ((80, 90), 86, True),  # code of its generation
        ((80, 90), 75, False),
        ((80, 90), 120, True),  # PTX of 90
        ((90,), 89, False),
        ((75,), 80, True),
        ((86,), 80, False),  # newer than the device
    ],
)
def test_which_devices_a_library_runs_on(architectures, capability, runs):
    assert Library(pathlib.Path("x.so"), architectures).runs_on(capability) is runs


def test_architectures_are_read_and_found_again(fake_compiler):
    assert parse_architectures("90, sm_80,80") == (80, 90)
    assert parse_architectures("none") == ()
    with pytest.raises(UserError, match="'turing'"):
        parse_architectures("turing")
    library_folder().mkdir(parents=True)
    (library_folder() / "mrcnn_tf_ops-sm80-sm90.so").write_text("")
    assert built_libraries()[0].architectures == (80, 90)
