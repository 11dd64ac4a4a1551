"""What the last bits of a result depend on beside its settings.

A run that goes on repeats no finished step: were it to go on under other conditions, its report
would mix results that no single command gives. What must be the same, and why:

* the package's sources and its version: they say what is computed;
* Python's minor version: ``sum`` rounds floats differently from 3.12 on;
* the libraries that compute, tokenise or store numbers (not those that only draw: pictures are
  drawn from kept numbers, by the last process alone);
* the number of threads of torch and of the BLAS: sums are split among them, and rounding with
  them;
* the device: a GPU's model, or the instruction set that torch uses on the CPU;
* the precision of float32 products, and the environment variables that choose kernels.

The processor's model, the machine and the operating system are noted, not required: with the same
instruction set they mostly give the same bits, and who moves a run to another node of a cluster
wants it to go on. The report says so.
"""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import ntk_propulsion

LIBRARIES = (
    *("torch", "transformers", "tokenizers", "numpy", "scipy", "scikit-learn", "safetensors"),
    *("peft", "datasets"),
)
SWITCHES = (
    *("ATEN_CPU_CAPABILITY", "DNNL_MAX_CPU_ISA", "ONEDNN_MAX_CPU_ISA", "MKL_CBWR"),
    *("MKL_ENABLE_INSTRUCTIONS", "OPENBLAS_CORETYPE", "NVIDIA_TF32_OVERRIDE"),
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
)
"""Environment variables by which the libraries choose how they compute."""
NOTED = ("processor", "machine")
"""Conditions that may differ where a run goes on; the report says that they did."""
UNKNOWN = "its code and libraries, which the version that began it did not record"


@dataclass(frozen=True)
class Conditions:
    """What a process computes with.

    Attributes:
        version: Of ntk_propulsion.
        sources: Hash of the Python files of the package (and of ``analysis``, for a study).
        python: Its major and minor version.
        libraries: Versions by name, of those that are installed.
        threads: How many torch uses.
        blas_threads: How many numpy's linear algebra uses.
        device: What computes: the GPU's name, or ``cpu``.
        instructions: The CPU's instruction set that torch uses.
        precision: Of float32 products: ``highest`` unless somebody asked for less.
        switches: Environment variables that choose how libraries compute, of those that are set.
        processor: The CPU's name.
        machine: Operating system and machine.
    """

    version: str
    sources: str
    python: str
    libraries: dict[str, str]
    threads: int
    blas_threads: int
    device: str
    instructions: str
    precision: str
    switches: dict[str, str]
    processor: str
    machine: str


def conditions(packages: Sequence[str] = ("ntk_propulsion",), device: str = "cpu") -> Conditions:
    """Return what this process computes with.

    Args:
        packages: Whose sources count.
        device: Where it computes, as the settings name it.
    """
    import torch  # here: --help needs no torch
    from threadpoolctl import threadpool_info

    pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    numpys = [pool for pool in pools if "numpy" in pool["filepath"]] or pools  # always loaded
    return Conditions(
        version=ntk_propulsion.__version__,
        sources=sources(packages),
        python=".".join(platform.python_version_tuple()[:2]),
        libraries={name: found for name in LIBRARIES if (found := _version(name))},
        threads=torch.get_num_threads(),
        blas_threads=max((pool["num_threads"] for pool in numpys), default=0),
        device=_device(device),
        instructions=torch.backends.cpu.get_cpu_capability(),
        precision=torch.get_float32_matmul_precision(),
        switches={name: os.environ[name] for name in SWITCHES if name in os.environ},
        processor=processor(),
        machine=f"{platform.system()} {platform.machine()}",
    )


def sources(packages: Sequence[str]) -> str:
    """Return a hash of all Python files of packages: their places and contents."""
    digest = hashlib.sha256()
    for package in packages:
        spec = find_spec(package)
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            for path in sorted(Path(folder).rglob("*.py")):
                content = hashlib.sha256(path.read_bytes()).hexdigest()
                digest.update(f"{package}/{path.relative_to(folder).as_posix()} {content}".encode())
    return digest.hexdigest()[:16]


def processor() -> str:
    """Return the processor's name, as far as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), "")


def differences(before: Conditions | None, now: Conditions) -> tuple[list[str], list[str]]:
    """Return what must be the same and is not, and what else differs, a few words each.

    Args:
        before: Of the process that began; None where nothing recorded it.
        now: Of this process.

    Examples:
        >>> here = conditions()
        >>> differences(here, here)
        ([], [])
    """
    if before is None:
        return [UNKNOWN], []
    refused: list[str] = []
    noted: list[str] = []
    for field in fields(Conditions):
        was, now_is = getattr(before, field.name), getattr(now, field.name)
        told = noted if field.name in NOTED else refused
        told += _changes(field.name, was, now_is)
    return refused, noted


def _changes(name: str, was: object, now: object) -> Iterator[str]:
    if isinstance(was, dict) and isinstance(now, dict):
        for key in sorted(was.keys() | now.keys()):
            yield from _changes(key, was.get(key, "not there"), now.get(key, "not there"))
    elif was != now:
        yield f"{name} was {short(was)}, is {short(now)}"


def short(value: object) -> str:
    """Return a value in plain characters, cut at 40."""
    text = ascii(value) if not isinstance(value, str) else ascii(value)[1:-1]
    return text if len(text) <= 40 else f"{text[:37]}..."


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _device(device: str) -> str:
    """Return what computes there; the name that was given where it is not there."""
    import torch

    if not device.startswith("cuda"):
        return device
    try:
        return torch.cuda.get_device_name(device)
    except (AssertionError, RuntimeError, ValueError):
        return device
