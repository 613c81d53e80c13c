"""Products with columns apart (LLM.int8()): what a plan says in five steps, the engine computes in one.

A plan (`models.online`) picks the columns out of a value, takes them off it, multiplies the rest with rounded activations and adds the
product of the columns. Kernels do all of it while they round and write (`ops.keep_columns`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from anybit.models.plan import Op, WeightRef

Joined = tuple[str, WeightRef]


def joined(ops: Sequence[Op]) -> tuple[list[Op], dict[WeightRef, Joined]]:
    """The steps with products put together, and for these: weight -> (table of its columns, the matrix of the columns).

    Steps stay as they are where something else reads the columns or the rest, or what they come from is written meanwhile; and all of
    them where a weight of theirs is used in another way too.
    """
    written = {op.output: op for op in ops if op.kind in ("gather", "scatter", "add")}
    products: dict[int, tuple[int, str, str]] = {}
    gone: set[int] = set()
    for at, op in enumerate(ops):
        if op.kind != "add" or op.inputs[1] not in written:
            continue
        taken, source = written[op.inputs[1]], op.inputs[0]
        picked = written.get(taken.inputs[0])
        if picked is None or not _takes_off(picked, taken, source):
            continue
        readers = {
            name: [i for i, other in enumerate(ops) if name in other.inputs] for name in (op.output, picked.output)
        }
        first = readers[op.output]
        second = [i for i in readers[picked.output] if ops[i] is not taken]
        if not second or [i + 1 for i in first] != second or not all(_pair(ops[i], ops[i + 1]) for i in first):
            continue
        if [i for i, other in enumerate(ops) if taken.output in other.inputs] != [at]:
            continue
        begin = ops.index(picked)
        between = (other for other in ops[begin + 1 : second[-1]] if other is not op)
        if any(other.output in (source, picked.output, op.output) for other in between):
            continue
        gone |= {at, ops.index(taken), begin, *second}
        products |= {i: (i + 1, source, str(picked.attrs["table"])) for i in first}
    uses = [ref for i, op in enumerate(ops) if i not in gone for ref in op.weights[:1]]
    if any(uses.count(ops[i].weights[0]) > 1 for i in products):
        return list(ops), {}
    kept = {ops[i].weights[0]: (table, ops[own].weights[0]) for i, (own, _, table) in products.items()}
    left = [replace(op, inputs=(products[i][1],)) if i in products else op for i, op in enumerate(ops) if i not in gone]
    return left, kept


def _takes_off(picked: Op, taken: Op, source: str) -> bool:
    """Whether one step picks columns out of `source` and the other makes what takes them off it."""
    same = picked.kind == "gather" and taken.kind == "scatter" and picked.inputs == (source,)
    return same and taken.attrs.get("factor") == -1.0 and picked.attrs["table"] == taken.attrs["table"]


def _pair(rest: Op, columns: Op) -> bool:
    """Whether the second product is added to the first."""
    linear = rest.kind == columns.kind == "linear" and rest.output == columns.output
    plain = linear and len(columns.weights) == 1 and not rest.attrs.get("accumulate")
    return plain and bool(columns.attrs.get("accumulate"))
