"""The machine against chunks timed by hand, conservation of bytes and operations, and its own closed form."""

from __future__ import annotations

from dataclasses import replace

import pytest

from anybit.errors import AnybitError
from anybit.hardware.targets.ascend910 import (
    ASCEND_910B,
    Decoupled,
    Gemm,
    best_splits,
    bound,
    estimate,
    native,
    staged,
    whole,
)

# Rates of one, so that seconds are bytes and operations.
TOY = Decoupled(
    "toy",
    cores=1,
    cube=1.0,
    vector=1.0,
    hbm=1.0,
    l2=1.0,
    port=1.0,
    l2_bytes=1 << 20,
    tile_n=4,
    tile_k=8,
    dequantize=3.0,
)


def test_one_chunk_by_hand() -> None:
    """32 weights of 4 bits and 4 groups: 32 bytes packed, 64 as fp16; x of 256 bytes; 512 multiply-adds; 128 bytes of result."""
    gemm = Gemm(16, 4, 8, group=8)
    assert gemm.packed_bytes == 32
    timeline = staged(TOY, gemm, 1)
    ends = {task.kind: end for task, end in zip(timeline.tasks, timeline.end, strict=True)}
    assert ends["packed weights"] == 32 + 32 and ends["unpack"] == 64 + 96
    assert ends["fp16 to workspace, port"] == 160 + 64 and ends["fp16 to workspace"] == 224 + 64
    # x came through its port by 256, but L2 is taken by the unpacked weights until 288.
    assert ends["inputs"] == 288 + 256
    assert ends["fp16 weights, port"] == 288 + 64 and ends["fp16 weights"] == 544 + 64
    assert ends["multiply"] == 608 + 512 and ends["partial sums"] == 1120 + 128 + 128 == timeline.makespan
    # Weights first through the port, then x through port and L2.
    assert native(TOY, gemm, 1).makespan == 64 + 256 + 256 + 512 + 2 * 128
    assert ends["unpack"] - staged(TOY, gemm, 1, free={"dequantize"}).end[2] == 96


def test_work_is_conserved() -> None:
    gemm = Gemm(20, 1000, 1024)
    for splits in (1, 3):
        timeline = staged(ASCEND_910B, gemm, splits)
        work: dict[str, float] = {}
        for task in timeline.tasks:
            work[task.kind] = work.get(task.kind, 0.0) + task.work
        assert work["multiply"] == 32 * 1000 * 1024
        assert work["packed weights"] == pytest.approx(gemm.packed_bytes) and work["unpack"] == 3 * 1000 * 1024
        assert work["fp16 to workspace"] == work["fp16 weights"] == 2 * 1000 * 1024
        assert work["inputs"] == 2 * 32 * 1024 * 4
        assert work["partial sums"] == (2 if splits == 1 else 4 * splits) * 32 * 1000
        assert ("reduction" in work) == (splits > 1)
        assert work["fp16 weights"] == pytest.approx(work["fp16 weights, port"])


def test_all_weights_are_there_before_the_product_begins() -> None:
    timeline = whole(ASCEND_910B, Gemm(16, 1024, 2048))
    last = max(end for task, end in zip(timeline.tasks, timeline.end, strict=True) if task.kind == "fp16 to workspace")
    first = min(
        start for task, start in zip(timeline.tasks, timeline.start, strict=True) if task.kind == "fp16 weights"
    )
    assert first >= last
    small = replace(ASCEND_910B, l2_bytes=4 << 20)
    assert whole(small, Gemm(16, 2048, 2048)).busy["hbm"] > whole(ASCEND_910B, Gemm(16, 2048, 2048)).busy["hbm"]


def test_the_round_trip_binds_and_the_unpacking_does_not() -> None:
    gemm = Gemm(16, 4096, 4096)
    full = staged(ASCEND_910B, gemm).makespan
    assert staged(ASCEND_910B, gemm, free={"dequantize"}).makespan > 0.95 * full
    assert staged(ASCEND_910B, gemm, free={"round trip"}).makespan < 0.7 * full


def test_faster_memories_and_units_never_cost_time() -> None:
    gemm = Gemm(16, 1024, 2048)
    base = staged(ASCEND_910B, gemm, 2).makespan
    for what in ("cube", "vector", "hbm", "l2", "port"):
        faster = replace(ASCEND_910B, **{what: 2 * getattr(ASCEND_910B, what)})
        assert staged(faster, gemm, 2).makespan <= base * 1.01  # first come, first served, is not always best


@pytest.mark.parametrize(("n", "k"), [(1024, 8192), (2048, 8192), (4096, 4096), (1536, 8960)])
def test_the_closed_form_is_near_the_simulation(n: int, k: int) -> None:
    gemm = Gemm(16, n, k)
    for splits in (1, best_splits(ASCEND_910B, gemm)):
        assert estimate(ASCEND_910B, gemm, splits) == pytest.approx(
            staged(ASCEND_910B, gemm, splits).makespan, rel=0.25
        )


def test_few_tiles_are_split() -> None:
    assert best_splits(ASCEND_910B, Gemm(16, 8192, 4096)) == 1 and best_splits(ASCEND_910B, Gemm(16, 512, 16384)) > 2
    narrow = Gemm(16, 512, 8192)
    assert staged(ASCEND_910B, narrow).makespan < 0.5 * staged(ASCEND_910B, narrow, 1).makespan


def test_the_bound_of_bytes() -> None:
    """0.44 where the workspace is as slow as the memory, 1.48 at 4.7 times its bandwidth, 4 where it costs nothing."""
    assert bound(1) == pytest.approx(0.444, abs=1e-3) and bound(4.7) == pytest.approx(1.48, abs=0.01)
    assert bound(1e9) == pytest.approx(4, abs=1e-6)


def test_impossible_products_are_refused() -> None:
    with pytest.raises(AnybitError, match="whole groups of 128; got 200"):
        Gemm(1, 8, 200)
    with pytest.raises(AnybitError, match="k must be even"):
        Gemm(1, 8, 9, group=9)
    with pytest.raises(AnybitError, match="sizes of a product are at least 1"):
        Gemm(0, 8, 128)
    with pytest.raises(AnybitError, match="cannot be split 9 times"):
        staged(ASCEND_910B, Gemm(1, 256, 1024), 9)
    with pytest.raises(AnybitError, match="more than the 1048576 of L2"):
        staged(replace(ASCEND_910B, l2_bytes=1 << 20), Gemm(1, 256, 1024))
