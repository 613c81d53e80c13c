"""The roofline cost of a plan: each operator takes the longer of its bytes over bandwidth and its operations over peak.

Williams, Waterman, Patterson, "Roofline", CACM 52(4), 2009.  The result is a floor, not a forecast: no launch cost, no cache misses
beyond first reads, perfect overlap.  `anybit bench model` prints the share of it that was reached.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from anybit.models.plan import Op, Plan


@dataclass(frozen=True)
class Energy:
    """Picojoules: per byte read from memory, per integer 8-bit multiply-add, per float32 multiply-add."""

    byte: float
    mac_int8: float
    mac_fp32: float


ENERGY_45NM = Energy(byte=640 / 4, mac_int8=0.2 + 0.03, mac_fp32=3.7 + 0.9)
"""Horowitz, "Computing's energy problem", ISSCC 2014, fig. 1.1.9 (45 nm, 0.9 V): 32-bit DRAM read 640 pJ; 8-bit multiply 0.2, add 0.03;
float32 multiply 3.7, add 0.9."""


@dataclass(frozen=True)
class Machine:
    """Ceilings of a machine: bandwidth in bytes/s; peaks in operations/s, a multiply-add counting as two."""

    name: str
    bandwidth: float
    int8_peak: float
    fp32_peak: float
    energy: Energy = ENERGY_45NM

    def __post_init__(self) -> None:
        for what in ("bandwidth", "int8_peak", "fp32_peak"):
            if not getattr(self, what) > 0:
                raise ValueError(f"{what} of the machine {self.name!r} must be positive; got {getattr(self, what)}")


@dataclass(frozen=True)
class OpCost:
    """One operator: bytes moved, operations, the seconds they need at least, and which of the two binds."""

    kind: str
    weight: str | None
    bytes: float
    operations: float
    seconds: float
    bound: str


@dataclass(frozen=True)
class Cost:
    """A whole step: totals over `ops`; energy in joules."""

    seconds: float
    bytes: float
    operations: float
    energy: float
    ops: tuple[OpCost, ...]


def roofline(
    plan: Plan,
    weight_bytes: Mapping[str, float],
    machine: Machine,
    tokens: int = 1,
    position: int = 0,
    integer: bool = True,
    cache_bytes_per_value: float = 2.0,
    all_logits: bool = False,
) -> Cost:
    """Floor of one forward step of `tokens` tokens behind `position` cached ones.

    weight_bytes: checkpoint name -> stored bytes of the whole tensor (a row slice counts its share; an embedding reads `tokens` rows).
    integer: linear layers multiply in 8-bit integers (else float32). Buffers are taken to stay in cache; weights and the KV
    cache come from memory. Raises ValueError for a weight without an entry or tokens < 1.
    """
    if tokens < 1 or position < 0:
        raise ValueError(
            f"a step needs at least one token behind a position of at least 0; got {tokens} behind {position}"
        )
    missing = [n for n in plan.weight_names() if n not in weight_bytes]
    if missing:
        raise ValueError(f"no byte count for the weight {missing[0]!r}")
    rows = _rows(plan)
    live, energy = tokens, 0.0
    costs = []
    for op in plan.ops:
        if op.kind == "last" and not all_logits:
            live = 1
        moved, operations = _work(op, plan, weight_bytes, rows, live, position, cache_bytes_per_value)
        on_integers = integer and op.kind == "linear"
        peak = machine.int8_peak if on_integers else machine.fp32_peak
        by_bytes, by_operations = moved / machine.bandwidth, operations / peak
        name = op.weights[0].name if op.weights else None
        bound = "bandwidth" if by_bytes >= by_operations else "operations"
        costs.append(OpCost(op.kind, name, moved, operations, max(by_bytes, by_operations), bound))
        mac = machine.energy.mac_int8 if on_integers else machine.energy.mac_fp32
        energy += 1e-12 * (moved * machine.energy.byte + operations / 2 * mac)
    return Cost(
        seconds=sum(c.seconds for c in costs),
        bytes=sum(c.bytes for c in costs),
        operations=sum(c.operations for c in costs),
        energy=energy,
        ops=tuple(costs),
    )


def _rows(plan: Plan) -> dict[str, int]:
    """Rows of every weight: the widest slice used, or the width of the output (the vocabulary of an embedding)."""
    rows: dict[str, int] = {}
    for op in plan.ops:
        for i, ref in enumerate(op.weights):
            if op.kind == "embedding":
                n = plan.vocab_size
            else:
                n = ref.rows[1] if ref.rows else plan.buffers[op.output] if i == 0 else 1
            rows[ref.name] = max(n, rows.get(ref.name, 0))
    return rows


def _work(
    op: Op,
    plan: Plan,
    weight_bytes: Mapping[str, float],
    rows: Mapping[str, int],
    tokens: int,
    position: int,
    cache: float,
) -> tuple[float, float]:
    """(bytes from memory, operations) of one operator."""
    width = plan.buffers[op.output]
    if op.kind == "embedding":
        return tokens * weight_bytes[op.weights[0].name] / plan.vocab_size, tokens * width
    if op.kind == "linear":
        moved = 0.0
        for ref in op.weights:
            share = (ref.rows[1] - ref.rows[0]) / rows[ref.name] if ref.rows else 1.0
            moved += share * weight_bytes[ref.name]
        return moved, 2.0 * tokens * width * plan.buffers[op.inputs[0]]
    if op.kind == "attention":
        window = int(op.attrs.get("window", 0)) or position + tokens
        keys = min(window, position + tokens)
        # a causal step sees on average half of its own tokens
        pairs = tokens * (min(keys, position + (tokens + 1) / 2))
        return 2 * keys * plan.kv_heads * plan.head_dim * cache, 4.0 * pairs * int(op.attrs["heads"]) * plan.head_dim
    return 0.0, 4.0 * tokens * width
