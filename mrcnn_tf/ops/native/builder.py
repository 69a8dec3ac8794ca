"""Compiles `custom_ops/` into a library for the TensorFlow that is installed, once for each machine and version."""

import contextlib
import dataclasses
import functools
import hashlib
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import tempfile

import tensorflow as tf

from mrcnn_tf.common.errors import UserError
from mrcnn_tf.common.files import atomic_write, cache_folder

PACKAGE = pathlib.Path(__file__).parents[2]
SOURCE_FOLDERS = (
    PACKAGE / "custom_ops",  # installed
    PACKAGE.parent / "custom_ops",  # a checkout
)
# Turing (Colab's T4), Ampere, Ada and Hopper. Others run the nearest older one of their generation, or compile the PTX
# that is added for the newest.
CUDA_ARCHITECTURES = (75, 80, 89, 90)
LIBRARY = "mrcnn_tf_ops"
OPERATIONS = ("roi_align_op", "conv3x3_op")  # source files that need TensorFlow's headers
KERNELS = ("roi_align_cpu", "winograd")  # and those that don't


@dataclasses.dataclass(frozen=True)
class Compiler:
    """A C++ compiler: its path, and a text that differs wherever its programs could differ."""

    path: str
    identity: str


@dataclasses.dataclass(frozen=True)
class Nvcc:
    """The CUDA compiler: its path, version such as "12.5" and the toolkit's folder."""

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


@dataclasses.dataclass(frozen=True)
class Library:
    """A compiled library: its path and the CUDA architectures in it, such as (80, 90); none: for the CPU alone."""

    path: pathlib.Path
    architectures: tuple[int, ...]

    def runs_on(self, capability):
        """Whether a GPU of this compute capability, such as 86, can run it: by code of its generation, or by PTX."""
        same = any(built <= capability and built // 10 == capability // 10 for built in self.architectures)
        return same or (bool(self.architectures) and max(self.architectures) <= capability)


def source_folder():
    """Where `custom_ops/` lies."""
    return next((folder for folder in SOURCE_FOLDERS if (folder / "roi_align.h").exists()), SOURCE_FOLDERS[0])


def library_folder():
    """The cache folder of libraries of these sources for this TensorFlow, compiler and processor; None without one."""
    compiler = find_compiler()
    if compiler is None:
        return None
    digest = hashlib.sha256(compiler.identity.encode())
    digest.update(f"{tf.version.VERSION} {tf.version.GIT_VERSION} {tf.version.COMPILER_VERSION}".encode())
    digest.update(pathlib.Path(__file__).read_bytes())  # its flags
    for source in sorted(source_folder().iterdir()):
        if source.suffix in (".cc", ".cu", ".cuh", ".h"):
            digest.update(source.name.encode() + b"\0" + source.read_bytes())
    return pathlib.Path(cache_folder()) / "custom_ops" / f"tensorflow-{tf.version.VERSION}-{digest.hexdigest()[:16]}"


def built_libraries():
    """The `Library`s in the cache that fit this machine's TensorFlow and compiler, the latest first."""
    folder = library_folder()
    files = [] if folder is None else sorted(folder.glob(f"{LIBRARY}*.so"), key=lambda file: -file.stat().st_mtime)
    return [Library(file, tuple(int(number) for number in re.findall(r"sm(\d+)", file.stem))) for file in files]


def build(architectures=()):
    """Compiles the library, unless it is in the cache; several processes may call this at once.

    Args:
        architectures: of CUDA, such as (80, 90); none builds for the CPU alone.

    Returns:
        A `Library`.

    Raises:
        UserError: there is no compiler, or it fails.
    """
    compiler, nvcc = find_compiler(), find_nvcc()
    if compiler is None:
        raise UserError("There is no C++ compiler to build the custom ops with: install g++, or name one in $CXX.")
    if architectures and nvcc is None:
        raise UserError("There is no nvcc to build the CUDA code with: install the CUDA toolkit, or set $CUDA_HOME.")
    suffix = "".join(f"-sm{number}" for number in architectures)
    library = Library(library_folder() / f"{LIBRARY}{suffix}.so", tuple(architectures))
    try:
        with _lock(library.path.parent):
            if library.path.exists():
                library.path.touch()  # the latest asked for is the one that is loaded
            else:
                with tempfile.TemporaryDirectory() as objects, atomic_write(library.path) as temporary:
                    _compile(compiler, nvcc, architectures, pathlib.Path(objects), temporary)
    except OSError as error:
        folder = library.path.parent
        raise UserError(
            f"{folder} can't be written: {error.strerror}; set $MRCNN_TF_CACHE to a folder that can."
        ) from error
    return library


def parse_architectures(text):
    """The CUDA architectures that a user asks for: "80,90", "none", or None for all usual ones where nvcc is.

    Raises:
        UserError: something else.
    """
    if text is None:
        return CUDA_ARCHITECTURES if find_nvcc() else ()
    if text == "none":
        return ()
    numbers = [number.strip().removeprefix("sm_") for number in text.split(",")]
    if not all(number.isdecimal() for number in numbers):
        raise UserError(f"--cuda takes numbers such as 80,90, or none, not '{text}'.")
    return tuple(sorted({int(number) for number in numbers}))


@contextlib.contextmanager
def _lock(folder):
    """One builder at a time; the others find its library when they get here. The lock ends with its process."""
    import fcntl  # not on Windows, where nothing is built

    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _compile(compiler, nvcc, architectures, objects, library):
    sources = source_folder()
    common = [compiler.path, "-std=c++17", "-fPIC", "-fvisibility=hidden", "-Wno-psabi", "-march=native"]
    headers = ["-isystem" + flag[2:] if flag.startswith("-I") else flag for flag in tf.sysconfig.get_compile_flags()]
    if architectures:
        headers += [f"-isystem{nvcc.folder / 'include'}", "-DMRCNN_TF_CUDA"]
    # Most of the time goes into reading TensorFlow's headers; what must be fast is in files without them.
    flags = dict.fromkeys(OPERATIONS, ["-O1", *headers]) | dict.fromkeys(KERNELS, ["-O3"])
    links = [str(objects / f"{name}.o") for name in flags]
    commands = [
        [*common, *own, "-c", str(sources / f"{name}.cc"), "-o", output]
        for (name, own), output in zip(flags.items(), links, strict=True)
    ]
    if architectures:
        commands.append(cuda_command(nvcc, compiler, architectures, objects / "cuda.o"))
        links += [str(objects / "cuda.o"), f"-L{nvcc.folder / 'lib64'}", "-lcudart_static", "-ldl", "-lrt", "-lpthread"]
    _run(commands)
    _run([[compiler.path, "-shared", *links, *tf.sysconfig.get_link_flags(), "-o", str(library)]])


def cuda_command(nvcc, compiler, architectures, output):
    """The command that compiles the CUDA kernels, which need no TensorFlow: code for each architecture, and PTX."""
    targets = [f"-gencode=arch=compute_{number},code=sm_{number}" for number in architectures]
    newest = max(architectures)
    targets.append(f"-gencode=arch=compute_{newest},code=compute_{newest}")
    flags = ["-O3", "-std=c++17", "-ccbin", compiler.path, "-Xcompiler", "-fPIC,-fvisibility=hidden"]
    return [nvcc.path, *flags, *targets, "-c", str(source_folder() / "roi_align_cuda.cu"), "-o", str(output)]


def _run(commands):
    """Runs the commands side by side."""
    running = [subprocess.Popen(c, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for c in commands]
    outputs = [process.communicate()[0] for process in running]
    for command, process, output in zip(commands, running, outputs, strict=True):
        if process.returncode:
            log = pathlib.Path(cache_folder()) / "custom_ops" / "failed_build.txt"
            with atomic_write(log) as temporary:
                temporary.write_text(f"{shlex.join(command)}\n\n{output}", encoding="utf-8")
            raise UserError(f"The custom ops don't compile with {command[0]}: the command and its errors are in {log}.")
