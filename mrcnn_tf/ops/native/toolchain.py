"""The compilers on this machine."""

import dataclasses
import functools
import os
import pathlib
import re
import shutil
import subprocess


@dataclasses.dataclass(frozen=True)
class Compiler:
    """Of C++: its path, and a text that is another one wherever its programs could differ."""

    path: str
    identity: str


@dataclasses.dataclass(frozen=True)
class Nvcc:
    """Of CUDA: its path, version such as "12.5" and the toolkit's folder."""

    path: str
    version: str
    folder: pathlib.Path


@functools.cache
def find_compiler():
    """The `Compiler` that $CXX names, else g++, else c++; None where there is none that works."""
    for name in (os.environ.get("CXX"), "g++", "c++"):
        path = name and shutil.which(name)
        version = path and _output([path, "--version"])
        # What "native" means is part of the identity: home folders are shared by machines with other processors.
        target = path and _output([path, "-march=native", "-dM", "-E", "-x", "c++", os.devnull])
        if version and target:
            return Compiler(path, version + target)
    return None


@functools.cache
def find_nvcc():
    """`Nvcc` from PATH, $CUDA_HOME or /usr/local/cuda; None where there is none that works."""
    folders = [os.path.join(root, "bin") for root in (os.environ.get("CUDA_HOME"), "/usr/local/cuda") if root]
    path = shutil.which("nvcc") or shutil.which("nvcc", path=os.pathsep.join(folders))
    version = path and re.search(r"release (\d+\.\d+)", _output([path, "--version"]) or "")
    # nvcc may be a link or a script: it alone knows where the toolkit lies.
    plan = version and subprocess.run([path, "--dryrun", "-x", "cu", os.devnull], capture_output=True, text=True).stderr
    top = plan and re.search(r"^#\$ TOP=(.*)$", plan, re.MULTILINE)
    return Nvcc(path, version[1], pathlib.Path(top[1].strip())) if top else None


def _output(command):
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
