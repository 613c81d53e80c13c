"""The roofline against hand-counted bytes and operations of a one-layer plan."""

import pytest

from anybit.hardware import Machine, roofline
from anybit.models.plan import Op, Plan, WeightRef

MACHINE = Machine("toy", bandwidth=1e9, int8_peak=1e12, fp32_peak=1e11)


def plan() -> Plan:
    ops = (
        Op("embedding", ("ids",), "h", (WeightRef("table"),)),
        Op("linear", ("h",), "q", (WeightRef("qkv", (0, 8)),)),
        Op("linear", ("h",), "k", (WeightRef("qkv", (8, 12)),)),
        Op("linear", ("h",), "v", (WeightRef("qkv", (12, 16)),)),
        Op(
            "attention",
            ("q", "k", "v"),
            "a",
            (),
            {"layer": 0, "heads": 2, "kv_heads": 1, "scale": 0.5, "window": 0, "softcap": 0.0},
        ),
        Op("linear", ("a",), "h", (WeightRef("o"),), {"accumulate": 1}),
        Op("last", ("h",), "h"),
        Op("linear", ("h",), "logits", (WeightRef("table"),)),
    )
    widths = {"h": 8, "q": 8, "k": 4, "v": 4, "a": 8, "logits": 100}
    return Plan(ops, ((1, 6),), widths, {}, vocab_size=100, layers=1, kv_heads=1, head_dim=4, max_positions=64)


BYTES = {"table": 800.0, "qkv": 64.0, "o": 32.0}


def test_decode_reads_every_weight_once_and_one_row_of_the_table():
    cost = roofline(plan(), BYTES, MACHINE, tokens=1, position=9)
    kv = 2 * 10 * 4 * 2
    assert cost.bytes == pytest.approx(8 + 64 + 32 + 800 + kv)
    linear = [c for c in cost.ops if c.kind == "linear"]
    assert sum(c.operations for c in linear) == 2 * (8 * 8 + 4 * 8 + 4 * 8 + 8 * 8 + 100 * 8)
    assert all(c.bound == "bandwidth" for c in linear)
    assert cost.seconds == pytest.approx(sum(c.bytes for c in linear) / 1e9, rel=0.5)


def test_prefill_multiplies_operations_but_not_weight_bytes():
    one, many = (roofline(plan(), BYTES, MACHINE, tokens=t) for t in (1, 64))
    qkv = [(a, b) for a, b in zip(one.ops, many.ops, strict=True) if b.weight == "qkv"]
    assert all(b.operations == 64 * a.operations and b.bytes == a.bytes for a, b in qkv)
    assert many.ops[-1].operations == one.ops[-1].operations, "only the last logits are computed"
    assert (
        roofline(plan(), BYTES, MACHINE, tokens=64, all_logits=True).ops[-1].operations == 64 * one.ops[-1].operations
    )


def test_fewer_bits_cost_less_time_and_energy():
    half = {k: v / 2 for k, v in BYTES.items()}
    a, b = roofline(plan(), BYTES, MACHINE), roofline(plan(), half, MACHINE)
    assert b.seconds < a.seconds
    assert b.energy < a.energy


def test_refuses_what_it_cannot_cost():
    with pytest.raises(ValueError, match="no byte count for the weight 'o'"):
        roofline(plan(), {"table": 1, "qkv": 1}, MACHINE)
    with pytest.raises(ValueError, match="at least one token"):
        roofline(plan(), BYTES, MACHINE, tokens=0)
    with pytest.raises(ValueError, match="bandwidth of the machine"):
        Machine("broken", 0, 1, 1)
