"""Tables with verdicts from documents of `anybit bench matmul --json`: `python matmul_table.py A.json B.json … > results/DATE.md`.

The bars are those the project set itself: of the limits by width and number of rows, and against the best peer with no more bits.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LEVEL = 0.97
"""A ratio that counts as level with a peer."""


@dataclass(frozen=True)
class Bar:
    """What is asked for: shares of the read floor and of the peak of vector instructions, and how many times as fast as the best peer."""

    read: float | None = None
    peak: float | None = None
    peer: float | None = None


def width(name: str) -> int:
    """Bits of a format's element; codebooks and floats of four bits count as four, ternary as two."""
    element = name.split("/")[0]
    return {"ternary": 2, "e2m1": 4, "nf4": 4}.get(element) or int("".join(filter(str.isdigit, element)))


def bar(m: int, bits: int) -> Bar:
    """The bar of a number of rows and a width."""
    if m == 1:
        read = 0.60 if bits == 1 else 0.80 if bits == 2 else 0.85 if bits == 3 else 0.92
        return Bar(read=read, peer={1: 1.4, 2: 1.3, 3: 2.0, 4: LEVEL, 8: LEVEL}.get(bits))
    if m == 4:
        return Bar(read=0.70, peer=1.5) if bits == 4 else Bar()
    if m == 16:
        return Bar(peak=0.65, peer=1.4 if bits <= 4 else LEVEL if bits == 8 else None)
    if m == 64:
        return Bar(peak=0.75)
    return Bar(peak=0.85, peer=1.5 if bits <= 4 else LEVEL if bits == 8 else None)


def nearest(row: dict[str, Any], rows: list[dict[str, Any]]) -> tuple[str, float] | None:
    """The fastest other engine with weights of the same class of bits on the same product, and how many times as fast the row is."""
    same = [
        one for one in rows
        if one["engine"] != "anybit" and all(one[key] == row[key] for key in ("m", "n", "k", "threads", "class"))
    ]  # fmt: skip
    best = min(same, key=lambda one: one["us"], default=None)
    return None if best is None else (f"{best['format']} {best['us']:.0f}", best["us"] / row["us"])


def verdict(row: dict[str, Any], peer: tuple[str, float] | None) -> str:
    """ "met", or what is missed. peer: the best of the class."""
    wanted = bar(row["m"], width(row["format"]))
    missed = []
    if wanted.read and row["share_of_read_bandwidth"] < wanted.read:
        missed.append(f"floor {100 * wanted.read:.0f} %")
    if wanted.peak and row["share_of_peak"] < wanted.peak:
        missed.append(f"peak {100 * wanted.peak:.0f} %")
    if wanted.peer and peer and peer[1] < wanted.peer:
        missed.append(f"peer {'level' if wanted.peer == LEVEL else f'{wanted.peer:g} ×'}")
    if wanted == Bar():
        return "no bar"
    return "met" if not missed else "missed: " + ", ".join(missed)


def line(row: dict[str, Any], peer: tuple[str, float] | None) -> str:
    """One row of a table."""
    fewer = f"{row['best_peer']} {row['best_peer_us']:.0f}" if row["best_peer"] else "–"
    cells = [
        row["m"], row["format"], f"{row['us']:.0f}", f"{100 * row['spread']:.0f} %", f"{row['read_floor_us']:.0f}",
        f"{100 * row['share_of_read_bandwidth']:.0f} %", f"{row['compute_floor_us']:.0f}", f"{100 * row['share_of_peak']:.0f} %",
        f"{row['over_torch_bf16']:.1f}", *((peer[0], f"{peer[1]:.2f}") if peer else ("–", "–")), fewer,
        f"{row['over_best_peer']:.2f}" if row["over_best_peer"] else "–", verdict(row, peer),
    ]  # fmt: skip
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


HEAD = (
    "M", "weights", "µs", "spread", "read µs", "of read", "compute µs", "of peak", "× torch bf16", "best of the class, µs", "×",
    "best with no more bits, µs", "×", "verdict",
)  # fmt: skip


def tables(documents: list[dict[str, Any]]) -> str:
    """One table for each matrix and number of threads, and how many bars are met."""
    all_rows = [row for document in documents for row in document["results"]]
    rows = [row for row in all_rows if row["engine"] == "anybit"]
    parts = []
    for n, k, threads in sorted(
        {(row["n"], row["k"], row["threads"]) for row in rows}, key=lambda key: (key[2], key[0])
    ):
        mine = [row for row in rows if (row["n"], row["k"], row["threads"]) == (n, k, threads)]
        mine.sort(key=lambda row: row["m"])
        peers = [nearest(row, all_rows) for row in mine]
        found = [verdict(row, peer) for row, peer in zip(mine, peers, strict=True)]
        met, all_ = found.count("met"), len(found) - found.count("no bar")
        parts.append(f"\n## {n} × {k}, {threads} thread{'s' * (threads > 1)}: {met} of {all_} bars met\n")
        parts += ["| " + " | ".join(HEAD) + " |", "|" + "---|" * len(HEAD)]
        parts += [line(row, peer) for row, peer in zip(mine, peers, strict=True)]
    return "\n".join(parts)


def main() -> None:
    documents = [json.loads(Path(name).read_text(encoding="utf-8")) for name in sys.argv[1:]]
    versions = {name: version for document in documents for name, version in document["versions"].items()}
    print("Versions: " + ", ".join(f"{name} {version}" for name, version in versions.items()) + ".")
    print(tables(documents))


if __name__ == "__main__":
    main()
