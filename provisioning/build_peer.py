"""Builds llama.cpp's own server, against which `appliance bench serve` measures. Standard library only.

It comes from the source distribution that llama-cpp-python is built from, with the same flags, so both serve with one
llama.cpp. Only the bench uses it; the product neither ships nor starts it. What is built is kept beside the wheels.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from appliance.core.errors import HostError
from provisioning.build_llama import CMAKE_ARGS, LOCK, PIP, cache_folder, follow

SERVER, BATCHED, EXAMPLE = "llama-server", "llama-batched-bench", "example_server.py"
# llama-cpp-python's own build is a release build of shared libraries. No web page in the server (it would be
# downloaded), no TLS: the bench speaks to it over a Unix socket.
PEER_ARGS = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DBUILD_SHARED_LIBS=ON",
    "-DCMAKE_INSTALL_RPATH=$ORIGIN",
    "-DCMAKE_BUILD_WITH_INSTALL_RPATH=ON",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_UI=OFF",
    "-DLLAMA_USE_PREBUILT_UI=OFF",
    "-DLLAMA_OPENSSL=OFF",
)


def find_or_build() -> Path:
    """Return the folder with `llama-server` and `llama-batched-bench`; build them if they were not built here before.

    Raises:
        HostError: If a tool or the source is missing, or the build fails.
    """
    folder = peer_folder(locked_version())
    if not (folder / SERVER).exists():
        _verify_tools()
        print(
            "bench: building llama-server for this processor (about 12 minutes on 2 cores, once)",
            file=sys.stderr,
        )
        with tempfile.TemporaryDirectory() as scratch:
            binaries = _build(_unpack(_source(Path(scratch)), Path(scratch)), Path(scratch) / "build")
            _keep(binaries, folder)
    return folder


def find_example(folder: Path) -> Path:
    """Return the batching server among llama-cpp-python's examples; fetch its source if it is not in this folder yet.

    Raises:
        HostError: If the source cannot be had.
    """
    place = folder / EXAMPLE
    if not place.exists():
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            archive = _source(Path(scratch))
            root = archive.name.removesuffix(".tar.gz")
            with tarfile.open(archive) as tar:
                tar.extract(f"{root}/examples/server/server.py", scratch, filter="data")
            (Path(scratch) / root / "examples/server/server.py").replace(place)
    return place


def locked_version() -> str:
    """Return the version of llama-cpp-python that this product is built with.

    Raises:
        HostError: If the lock names none.
    """
    version = re.search(r"^llama-cpp-python==(\S+)", LOCK.read_text("utf-8"), re.MULTILINE)
    if version is None:
        raise HostError(f"no llama-cpp-python in {LOCK}", hint="provisioning/lock.sh writes it")
    return version[1]


def peer_folder(version: str) -> Path:
    """Return where the binaries for this version, processor and these flags are kept."""
    wheel = cache_folder(version)
    key = hashlib.sha256(" ".join((wheel.name, *PEER_ARGS)).encode()).hexdigest()[:16]
    return wheel.parent.parent / "peer" / key


def _verify_tools() -> None:
    missing = [tool for tool in ("cmake", "ninja", "c++") if shutil.which(tool) is None]
    if missing:
        raise HostError(
            f"llama-server cannot be built without {', '.join(missing)}",
            hint="sudo apt-get install --yes cmake ninja-build g++",
        )


def _source(folder: Path) -> Path:
    """Download the locked source distribution; pip checks its hash, or takes it from its own cache."""
    command = [*PIP, "download", "--quiet", "--no-deps", "--no-binary", ":all:", "--require-hashes"]
    done = subprocess.run([*command, "-d", str(folder), "-r", str(LOCK)], stdout=sys.stderr, check=False)
    archives = list(folder.glob("llama_cpp_python-*.tar.gz"))
    if done.returncode or not archives:
        raise HostError(
            "the source of llama.cpp cannot be had",
            hint="connect to the package index once, or set PIP_FIND_LINKS to a folder that holds the archive",
        )
    return archives[0]


def _unpack(archive: Path, folder: Path) -> Path:
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return folder / archive.name.removesuffix(".tar.gz") / "vendor" / "llama.cpp"


def _build(source: Path, build: Path) -> Path:
    """Configure and build; return the folder with binaries and libraries."""
    configure = ["cmake", "-S", str(source), "-B", str(build), "-G", "Ninja", *CMAKE_ARGS.split(), *PEER_ARGS]
    configured = subprocess.run(configure, capture_output=True, text=True, errors="replace", check=False)
    if configured.returncode:
        raise HostError("cmake does not configure llama.cpp:\n" + configured.stderr[-2000:])
    process = subprocess.Popen(
        ["cmake", "--build", str(build), "--target", SERVER, BATCHED],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    with contextlib.redirect_stdout(sys.stderr):
        lines = follow(process)
    if process.wait():
        raise HostError("llama-server does not build:\n" + "".join(lines[-30:]))
    return build / "bin"


def _keep(binaries: Path, folder: Path) -> None:
    """Move what was built to its place in one step, so that a half-built one is never found."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(dir=folder.parent))
    beside.chmod(0o755)
    shutil.copytree(binaries, beside, symlinks=True, dirs_exist_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    beside.replace(folder)


if __name__ == "__main__":
    print(find_or_build())
