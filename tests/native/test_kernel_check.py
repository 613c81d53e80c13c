"""Every instruction set's kernels equal the scalar twin bit by bit, and plain double arithmetic within a derived bound.

kernel_check.cc (matrix products) and cast_check.cc (casts) are built here for instruction sets this machine may lack: NEON runs under
qemu-user, AVX-512 and AMX (products only) with every instruction emulated (SIMDe, emulated_*.hpp), and vpdpbusd at 256 bits as the AVX2
instructions that it stands for.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NATIVE = ROOT / "native"
COMMON = [
    NATIVE / "generic" / f"{name}.cc" for name in ("arena", "dispatch", "matmul", "pack", "planes", "thread_pool")
]
FLAGS = ["-std=c++20", "-fno-math-errno", "-ffp-contract=off", f"-I{NATIVE}", f"-I{ROOT / 'tests' / 'native'}"]


def build(compiler: str, isa: str, out: Path, *flags: str, casts: bool = False) -> Path:
    """kernel_check.cc, or cast_check.cc, with what `isa` has and the scalar twin."""
    part, twin = "cast.cc" if casts else "matmul.cc", NATIVE / "scalar" / "matmul.cc"
    if casts:
        # The twin takes whatever the compiler targets by default, which on ARM is NEON: without the macro it is plain loops.
        twin = out.with_suffix(".o")
        plain = [compiler, *FLAGS, "-O1", "-U__ARM_NEON", "-c", str(NATIVE / "scalar" / part), "-o", str(twin)]
        done = subprocess.run(plain, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
    sources = [
        *([NATIVE / "generic" / "thresholds.cc"] if casts else COMMON),
        NATIVE / isa / part,
        *(sorted((NATIVE / isa).glob("vnni_*.cc")) if "-DANYBIT_HAVE_VNNI=1" in flags else ()),
        *([NATIVE / isa / "i8mm.cc"] if "-DANYBIT_HAVE_I8MM=1" in flags else ()),
        *([NATIVE / isa / "amd.cc"] if isa == "avx512" else ()),
        *([NATIVE / "amx" / part] if "-DANYBIT_HAVE_AMX=1" in flags else ()),
        twin,
        ROOT / "tests" / "native" / ("cast_check.cc" if casts else "kernel_check.cc"),
    ]
    command = [
        compiler,
        *FLAGS,
        f"-DANYBIT_HAVE_{isa.upper()}=1",
        *flags,
        *map(str, sources),
        "-lpthread",
        "-o",
        str(out),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return out


def check(command: list[str], isa: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-1000:]
    assert f"{isa}: equal" in done.stdout
    assert "scalar: equal" in done.stdout
    return done.stdout


def compiler_of_avx2() -> str:
    compiler, known = shutil.which("g++"), Path("/proc/cpuinfo")
    if platform.machine() != "x86_64" or compiler is None or not known.exists() or " avx2 " not in known.read_text():
        pytest.skip("needs g++ on x86-64 with AVX2")
    return compiler


@pytest.mark.timeout(1800)
@pytest.mark.aarch64
@pytest.mark.parametrize("casts", [False, True], ids=["products", "casts"])
def test_neon_equals_the_scalar_twin(tmp_path: Path, casts: bool) -> None:
    compiler = shutil.which("aarch64-linux-gnu-g++")
    emulator = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
    if platform.machine() == "aarch64":
        compiler, emulator = shutil.which("g++"), None
        if compiler is None:
            pytest.skip("no g++")
    elif compiler is None or emulator is None:
        pytest.skip("needs aarch64-linux-gnu-g++ and qemu-aarch64 (Debian: g++-aarch64-linux-gnu, qemu-user-static)")
    pairs = () if casts else ("-DANYBIT_HAVE_I8MM=1",)
    target = "-march=armv8.2-a+dotprod+fp16" + ("" if casts else "+i8mm")
    flags = ("-O1", "-DANYBIT_PLAIN_CALLS", "-static", target, *pairs)
    program = build(compiler, "neon", tmp_path / "check", *flags, casts=casts)
    said = check([emulator, str(program), "brief"] if emulator else [str(program)], "neon")
    if not casts and (emulator or " i8mm" in Path("/proc/cpuinfo").read_text()):
        assert "i8mm: equal" in said


@pytest.mark.timeout(900)
def test_casts_of_avx2_equal_the_scalar_twin(tmp_path: Path) -> None:
    program = build(
        compiler_of_avx2(), "avx2", tmp_path / "check", "-O1", "-mavx2", "-mfma", "-mf16c", "-mbmi2", casts=True
    )
    check([str(program)], "avx2")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_products_of_avx2_and_vnni_equal_the_scalar_twin(tmp_path: Path) -> None:
    compiler = compiler_of_avx2()
    vnni = ("-DANYBIT_HAVE_VNNI=1", "-DANYBIT_EMULATED_VNNI")
    program = build(compiler, "avx2", tmp_path / "check", "-O1", "-mavx2", "-mfma", "-mf16c", "-mbmi2", *vnni)
    said = check([str(program)], "avx2")
    assert "avx512vnni: equal" in said and "avxvnni: equal" in said


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_avx512_and_amx_emulated_equal_the_scalar_twin(tmp_path: Path) -> None:
    compiler = shutil.which("g++")
    if platform.machine() != "x86_64" or compiler is None:
        pytest.skip("needs g++ on x86-64")
    probe = subprocess.run(
        [compiler, "-E", "-x", "c++", "-"], input="#include <simde/x86/avx512.h>\n", capture_output=True, text=True
    )
    if probe.returncode != 0:
        pytest.skip("SIMDe is not installed (Debian: libsimde-dev)")
    emulated = ("-DANYBIT_SIMDE", "-DANYBIT_HAVE_AMX=1")
    # -O1 takes minutes longer to compile
    program = build(compiler, "avx512", tmp_path / "check", "-O0", *emulated)
    said = check([str(program), "brief"], "avx512")
    assert "avx512bf16: equal" in said and "amx: equal" in said
