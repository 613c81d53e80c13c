"""Facts are parsed from texts whose content is known, and agree with the operating system where it can be asked."""

from __future__ import annotations

import os

from anybit.cli import machine

X86 = "processor\t: 0\nmodel name\t: Some CPU @ 3GHz\nflags\t\t: fpu avx2 fma f16c avx512f avx512_vnni sse\n\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd asimddp crc32\n"


def test_features_of_the_table_only_and_in_its_order():
    assert machine.simd_features(X86, "x86_64") == ("avx2", "fma", "f16c", "avx512f", "avx512_vnni")
    assert machine.simd_features(ARM, "aarch64") == ("asimd", "asimddp")
    assert machine.simd_features("", "x86_64") == ()
    assert machine.simd_features(X86, "riscv64") == ()


def test_processor_name():
    assert machine.processor_name(X86) == "Some CPU @ 3GHz"


def test_mode_in_brackets():
    assert machine.chosen_mode("always [madvise] never\n") == "madvise"
    assert machine.chosen_mode("") == "unknown"


def test_cache_sizes():
    assert machine.size_in_bytes("32768K\n") == 32 << 20
    assert machine.size_in_bytes("1M") == 1 << 20
    assert machine.size_in_bytes("?") == 0


def test_missing_file_reads_empty(tmp_path):
    assert machine.read(str(tmp_path / "none")) == ""


def test_this_machine():
    found = machine.machine()
    assert found.cores == len(os.sched_getaffinity(0))
    assert found.memory >= found.memory_available > 0
    assert found.last_level_cache >= 1 << 16
