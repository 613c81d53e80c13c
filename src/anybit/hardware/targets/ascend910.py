"""A processor whose matrix and vector units meet only in memory, and products of 4-bit weights and fp16 activations on it.

The paper (arXiv 2601.16536) describes three stages: vector units unpack a chunk of weights to fp16 in a workspace in memory, matrix units
multiply from there, vector units add the partial sums of Split-K. Its tile sizes and its machine are not disclosed; the machine here
follows public descriptions of Ascend 910B, and every figure of it may be changed.

    HBM --packed--> vector unit --fp16--> workspace (L2) --fp16--> matrix unit --fp32--> partial sums (L2) --> vector unit --> result
         hbm, port   vector        port, l2               port, l2               cube

schedule   tiles and slices of k                            weights
native     output tiles, split where there are few          fp16 in memory
staged     splits slices of k of every output tile          4 bits, through the workspace, chunk by chunk in turn with the product
whole      as staged                                        4 bits, all unpacked before the product begins
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Literal

from anybit.errors import AnybitError
from anybit.hardware.pipeline import Server, Task, Timeline, simulate
from anybit.ops.partition import Piece, split_k, utilization

Free = Literal["dequantize", "round trip"]


@dataclass(frozen=True)
class Decoupled:
    """cores: of one matrix and some vector units.  cube: multiply-adds a second of a core's matrix unit.  vector: 16-bit lane
    operations a second of its vector units.  hbm, l2: bytes a second of the shared memories.  port: bytes a second between memory and
    one core's matrix unit, and as many its vector units.  l2_bytes: capacity.  tile_n, tile_k: of a chunk.  dequantize: lane operations a
    weight (cast, subtract, multiply).
    """

    name: str
    cores: int
    cube: float
    vector: float
    hbm: float
    l2: float
    port: float
    l2_bytes: int
    tile_n: int = 256
    tile_k: int = 128
    dequantize: float = 3.0

    def servers(self) -> list[Server]:
        """Of the simulator: two shared memories, and for each core its units and its ports."""
        rates = {"cube": self.cube, "vector": self.vector, "read": self.port, "write": self.port, "feed": self.port}
        own = [Server(f"{name}{core}", rate) for core in range(self.cores) for name, rate in rates.items()]
        return [Server("hbm", self.hbm), Server("l2", self.l2), *own]

    def tiles(self, gemm: Gemm) -> int:
        """Output tiles; all rows of x are one."""
        return -(-gemm.n // self.tile_n)

    def steps(self, gemm: Gemm) -> int:
        """Chunks of k."""
        return -(-gemm.k // self.tile_k)


CLOCK = 1.8e9
ASCEND_910B = Decoupled(
    name="Ascend 910B, 24 cores",
    cores=24,
    cube=16**3 * CLOCK,
    vector=2 * 128 * CLOCK,
    hbm=1.2e12,
    l2=3.7e12,
    port=128 * CLOCK,
    l2_bytes=192 << 20,
)
"""A matrix unit of 16 x 16 x 16 multiply-adds a cycle and two vector units of 128 fp16 lanes a core; 128 bytes a cycle to memory each."""


@dataclass(frozen=True)
class Gemm:
    """y[m, n] = x[m, k] W[k, n] with 4-bit weights in groups of `group` k, each with an fp16 scale and zero point.

    AnybitError for sizes below one, odd k, and groups that do not divide k.
    """

    m: int
    n: int
    k: int
    group: int = 128

    def __post_init__(self) -> None:
        if min(self.m, self.n, self.k, self.group) < 1:
            raise AnybitError(f"the sizes of a product are at least 1; got {self}")
        if self.k % 2 or self.k % self.group:
            raise AnybitError(f"k must be even and made of whole groups of {self.group}; got {self.k}")

    @property
    def padded_m(self) -> int:
        """Rows as the matrix unit takes them, 16 at a time."""
        return -(-self.m // 16) * 16

    @property
    def packed_bytes(self) -> float:
        """Of the weights with their scales and zero points."""
        return self.n * self.k * (0.5 + 4 / self.group)


def staged(machine: Decoupled, gemm: Gemm, splits: int | None = None, free: Collection[Free] = ()) -> Timeline:
    """4-bit weights through the workspace in `splits` slices of k (None: `best_splits`); what is in `free` takes no time.

    AnybitError for more slices than chunks of k, and for a workspace that does not fit into L2.
    """
    workspace = 2 * machine.cores * machine.tile_k * machine.tile_n * 2
    if workspace > machine.l2_bytes:
        raise AnybitError(f"two buffers a core take {workspace} bytes, more than the {machine.l2_bytes} of L2")
    program = _Program(machine, gemm, best_splits(machine, gemm) if splits is None else splits)
    program.run(program.staged_weights, "l2")
    kinds = {"fp16 to workspace", "fp16 weights"} if "round trip" in free else set()
    kinds |= {"unpack"} if "dequantize" in free else set()
    tasks = [replace(task, work=0.0) if task.kind.removesuffix(", port") in kinds else task for task in program.tasks]
    return simulate(machine.servers(), tasks)


def native(machine: Decoupled, gemm: Gemm, splits: int | None = None) -> Timeline:
    """The product of fp16 weights."""
    program = _Program(machine, gemm, best_splits(machine, gemm) if splits is None else splits)
    program.run(lambda core, weights, buffers: (-1, -1, -1), "hbm")
    return simulate(machine.servers(), program.tasks)


def whole(machine: Decoupled, gemm: Gemm, splits: int | None = None) -> Timeline:
    """All weights unpacked to fp16 in memory (HBM where L2 does not hold them) before the product begins."""
    program = _Program(machine, gemm, best_splits(machine, gemm) if splits is None else splits)
    memory = "hbm" if 2 * gemm.n * gemm.k > machine.l2_bytes else "l2"
    program.unpack_all(memory)
    program.run(lambda core, weights, buffers: (-1, -1, -1), memory)
    return simulate(machine.servers(), program.tasks)


def best_splits(machine: Decoupled, gemm: Gemm) -> int:
    """The slices of k, each of two chunks at least, that `estimate` finds fastest; the fewest of a tie."""
    possible = range(1, max(1, machine.steps(gemm) // 2) + 1)
    return min(possible, key=lambda splits: (estimate(machine, gemm, splits), splits))


def estimate(machine: Decoupled, gemm: Gemm, splits: int) -> float:
    """Seconds of the staged schedule in closed form: the slowest stage, and the addition of partial sums.

    Stages are the reading of packed weights, unpacking, writing them as fp16, reading those and x, and multiplying. Chunks follow each
    other through them. Only cores with work count (`ops.partition.utilization`), and no memory is faster than their ports.
    """
    m, n, k, tiles = gemm.padded_m, gemm.n, gemm.k, machine.tiles(gemm)
    cores = machine.cores * utilization(tiles * splits, machine.cores)
    ports = cores * machine.port
    wide, inputs = 2.0 * n * k, 2.0 * m * k * tiles
    stages = (
        gemm.packed_bytes / min(machine.hbm, ports),
        n * k * machine.dequantize / (machine.vector * cores),
        wide / ports,
        (wide + inputs) / ports,
        m * n * k / (machine.cube * cores),
        (2 * wide + inputs) / machine.l2,
    )
    return max(stages) + (0.0 if splits == 1 else (8 * splits + 2) * m * n / machine.l2)


def bound(ratio: float) -> float:
    """Speed-up over fp16 weights where nothing overlaps and only bytes count: 2 / (0.5 + 4 / ratio), ratio = L2 over HBM bandwidth.

    Every weight is read at half a byte, written at two and read again at two, instead of read at two. Where all overlaps and L2 is
    what binds it is ratio / 2.
    """
    return 2 / (0.5 + 4 / ratio)


Buffers = tuple[int, int, int]
"""The tasks that end the use of a chunk's packed weights, of its unpacked ones, and of its place in the workspace; -1: none."""


class _Program:
    """The tasks of a product: every core goes through its pieces chunk by chunk, with two buffers between stages."""

    def __init__(self, machine: Decoupled, gemm: Gemm, splits: int) -> None:
        self.machine, self.gemm, self.splits = machine, gemm, splits
        tiles, steps = machine.tiles(gemm), machine.steps(gemm)
        self.wide = [min(machine.tile_n, gemm.n - tile * machine.tile_n) for tile in range(tiles)]
        self.deep = [min(machine.tile_k, gemm.k - step * machine.tile_k) for step in range(steps)]
        pieces = split_k(tiles, steps, machine.cores, splits)
        self.pieces = [[p for p in pieces if p.worker == core] for core in range(machine.cores)]
        self.tasks: list[Task] = []
        self.barrier = -1

    def add(self, server: str, work: float, *after: int, kind: str) -> int:
        self.tasks.append(Task(server, work, tuple(a for a in after if a >= 0), kind))
        return len(self.tasks) - 1

    def copy(self, port: str, memory: str, work: float, *after: int, kind: str) -> int:
        """Through the core's port, then the shared memory, where the chunks of all cores meet."""
        first = self.add(port, work, *after, kind=f"{kind}, port")
        return self.add(memory, work, first, kind=kind)

    def chunks(self) -> Iterator[tuple[int, Piece, int]]:
        """(core, piece, step) of every chunk, the cores in turn, so that what is ready at once is served fairly."""
        lists = [
            [(core, p, step) for p in mine for step in range(p.begin, p.end)] for core, mine in enumerate(self.pieces)
        ]
        for row in zip_longest(*lists):
            yield from (entry for entry in row if entry is not None)

    def staged_weights(self, core: int, weights: int, before: Buffers, memory: str = "l2") -> Buffers:
        """Read packed, unpack, write fp16."""
        packed = self.gemm.packed_bytes * weights / (self.gemm.n * self.gemm.k)
        read = self.copy(f"read{core}", "hbm", packed, before[0], kind="packed weights")
        work = self.add(f"vector{core}", weights * self.machine.dequantize, read, before[1], kind="unpack")
        out = self.copy(f"write{core}", memory, 2 * weights, work, before[2], kind="fp16 to workspace")
        return read, work, out

    def unpack_all(self, memory: str) -> None:
        """Every weight, before anything else."""
        past: list[list[Buffers]] = [[] for _ in self.pieces]
        for core, piece, step in self.chunks():
            _, work, out = past[core][-2] if len(past[core]) > 1 else (-1, -1, -1)
            weights = self.wide[piece.tile] * self.deep[step]
            past[core].append(self.staged_weights(core, weights, (work, out, -1), memory))
        self.barrier = self.add("cube0", 0.0, *(mine[-1][2] for mine in past if mine), kind="barrier")

    def run(self, unpack: Callable[[int, int, Buffers], Buffers], source: str) -> None:
        """The product. unpack(core, weights, buffers) makes fp16 weights of a chunk; source: the memory they are read from."""
        m = self.gemm.padded_m
        past: list[list[tuple[Buffers, int, int]]] = [[] for _ in self.pieces]
        parts: list[list[int]] = [[] for _ in self.wide]
        for core, piece, step in self.chunks():
            (_, work, out), feed, multiply = past[core][-2] if len(past[core]) > 1 else ((-1, -1, -1), -1, -1)
            weights = self.wide[piece.tile] * self.deep[step]
            made = unpack(core, weights, (work, out, feed))
            ready = (made[2], multiply, self.barrier)
            fed = self.copy(f"feed{core}", source, 2 * weights, *ready, kind="fp16 weights")
            inputs = self.copy(f"feed{core}", "l2", 2 * m * self.deep[step], multiply, kind="inputs")
            done = self.add(f"cube{core}", m * weights, fed, inputs, kind="multiply")
            past[core].append((made, fed, done))
            if step + 1 == piece.end:
                item = 2 if self.splits == 1 else 4
                size = item * m * self.wide[piece.tile]
                parts[piece.tile].append(self.copy(f"feed{core}", "l2", size, done, kind="partial sums"))
        for tile, mine in enumerate(parts if self.splits > 1 else []):
            size, core = m * self.wide[tile], tile % self.machine.cores
            read = self.copy(f"read{core}", "l2", 4 * self.splits * size, *mine, kind="reduction")
            total = self.add(f"vector{core}", self.splits * size, read, kind="reduction")
            self.copy(f"write{core}", "l2", 2 * size, total, kind="reduction")
