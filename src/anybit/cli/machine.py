"""What this machine is: read from the operating system, nothing measured here."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

SIMD = {
    "x86_64": (
        "avx2",
        "fma",
        "f16c",
        "avx512f",
        "avx512bw",
        "avx512vl",
        "avx512_vnni",
        "avx512_vbmi",
        "avx512_bf16",
        "avx_vnni",
        "amx_int8",
    ),
    "aarch64": ("asimd", "asimddp", "i8mm", "bf16", "sve"),
}
"""The features that kernels care about, as the kernel of the operating system names them."""


@dataclass(frozen=True)
class Machine:
    """Facts. Memory in bytes; `huge_pages` is the mode of transparent huge pages (`always`, `madvise`, `never`, or `unknown`)."""

    system: str
    architecture: str
    processor: str
    cores: int
    simd: tuple[str, ...]
    memory: int
    memory_available: int
    last_level_cache: int
    huge_pages: str


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def simd_features(cpuinfo: str, architecture: str) -> tuple[str, ...]:
    """The features of `SIMD` that a /proc/cpuinfo lists, in the order of that table."""
    match = re.search(r"^(?:flags|Features)\s*:\s*(.*)$", cpuinfo, re.MULTILINE)
    found = set(match[1].split()) if match else set()
    return tuple(feature for feature in SIMD.get(architecture, ()) if feature in found)


def processor_name(cpuinfo: str) -> str:
    """The processor's name in a /proc/cpuinfo, or what Python knows."""
    match = re.search(r"^model name\s*:\s*(.*)$", cpuinfo, re.MULTILINE)
    return match[1].strip() if match else platform.processor() or "unknown"


def chosen_mode(line: str) -> str:
    """The word in brackets, which is how the kernel marks the mode in force: `always [madvise] never`."""
    match = re.search(r"\[(\w+)\]", line)
    return match[1] if match else "unknown"


def size_in_bytes(text: str) -> int:
    """A cache size as the kernel writes it, such as 32768K."""
    match = re.fullmatch(r"(\d+)([KMG]?)", text.strip())
    return int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[match[2]] if match else 0


def read(path: str) -> str:
    """The text of a file of the operating system, empty where it does not exist or may not be read."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def last_level_cache() -> int:
    """Bytes of the largest cache of core 0; 32 MiB where the system does not tell."""
    sizes = [
        size_in_bytes(read(str(entry))) for entry in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")
    ]
    return max(sizes, default=0) or 32 << 20


def machine() -> Machine:
    """The machine this runs on."""
    import psutil

    cpuinfo = read("/proc/cpuinfo")
    memory = psutil.virtual_memory()
    return Machine(
        system=f"{platform.system()} {platform.release()}",
        architecture=platform.machine(),
        processor=processor_name(cpuinfo),
        cores=cores(),
        simd=simd_features(cpuinfo, platform.machine()),
        memory=memory.total,
        memory_available=memory.available,
        last_level_cache=last_level_cache(),
        huge_pages=chosen_mode(read("/sys/kernel/mm/transparent_hugepage/enabled")),
    )
