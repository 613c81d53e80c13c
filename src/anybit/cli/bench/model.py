"""Whole models: ours and the peers', in turns, reading a prompt and writing tokens."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from anybit.cli.bench import shapes
from anybit.cli.bench.peers import Round
from anybit.cli.bench.rounds import Progress, Sample, order, ratio, silent

if TYPE_CHECKING:
    from torch import Tensor

    from anybit.formats import TensorFormat
    from anybit.models.plan import WeightRef
    from anybit.tensors import QTensor


class Engine(Protocol):
    """Whatever can be measured once."""

    def round(self) -> Round: ...


@dataclass(frozen=True)
class Measured:
    """An engine over all rounds: tokens a second, and the share of the measured read bandwidth that decoding reached
    (bytes a token over time a token over bandwidth, of the same round; None where the bytes are unknown)."""

    name: str
    prefill: Sample
    decode: Sample
    share: float | None


class Ours:
    """anybit as an engine: one prompt in one call, then token by token, the likeliest each time."""

    def __init__(self, executor: Any, vocabulary: int, prefill: int, decode: int) -> None:
        from anybit.runtime.sampling import Sampling

        self._executor, self._greedy, self._decode = executor, Sampling(temperature=0.0), decode
        self._prompt = [(7919 * i + 13) % vocabulary for i in range(prefill)]

    def round(self) -> Round:
        """Reset, read the prompt, write."""
        self._executor.reset()
        started = time.perf_counter()
        token = self._executor.next(self._prompt, self._greedy)
        between = time.perf_counter()
        for _ in range(self._decode):
            token = self._executor.next([token], self._greedy)
        ended = time.perf_counter()
        return Round(len(self._prompt), between - started, self._decode, ended - between)


class RandomWeights:
    """Random weights of a Llama config in memory, quantized matrices in `fmt`, the embedding and output matrix in `head`.

    Codes are drawn uniformly: the time of a multiplication does not depend on them. Scales are chosen so that every layer keeps
    the magnitude of its input.
    """

    def __init__(self, config: Mapping[str, Any], fmt: TensorFormat, head: TensorFormat, seed: int = 0) -> None:
        import torch

        self._shapes = shapes.weights(dict(config))
        self._fmt, self._head = fmt, head
        self._generator = torch.Generator().manual_seed(seed)
        self._made: dict[str, Tensor | QTensor] = {}

    def names(self) -> list[str]:
        """Every tensor, by checkpoint name."""
        return list(self._shapes)

    def get(self, name: str) -> Tensor | QTensor:
        """The tensor, the same at every call."""
        if name not in self._made:
            self._made[name] = self._draw(name)
        return self._made[name]

    def resolve(self, ref: WeightRef) -> Tensor | QTensor:
        """The tensor or rows of it."""
        found = self.get(ref.name)
        if ref.rows is None:
            return found
        first, last = ref.rows
        return found[first:last] if not hasattr(found, "rows") else found.rows(first, last)

    @property
    def nbytes(self) -> int:
        """Bytes of everything drawn so far, as a checkpoint would store it."""
        return sum(tensor.nbytes for tensor in self._made.values())

    def _draw(self, name: str) -> Tensor | QTensor:
        import torch

        from anybit.tensors import quantize

        shape = self._shapes[name]
        if len(shape) == 1:
            return torch.ones(shape, dtype=torch.bfloat16)
        deviation = 0.02 if name.startswith(("model.embed", "lm_head")) else shape[1] ** -0.5
        # one drawn block of rows repeated: quantizing a thousand million normals would take longer than the measurement
        rows = min(shape[0], 256)
        block = deviation * torch.randn(rows, shape[1], generator=self._generator)
        whole = block.repeat(-(-shape[0] // rows), 1)[: shape[0]]
        fmt = self._head if name.startswith(("model.embed", "lm_head")) else self._fmt
        if fmt.scale is None:
            return whole.to(torch.bfloat16)
        return quantize(whole, fmt)


def measure(
    engines: Mapping[str, Engine],
    rounds: int,
    read_bandwidth: Callable[[], float] | None = None,
    weight_bytes: Mapping[str, int] | None = None,
    progress: Progress = silent,
) -> list[Measured]:
    """Every engine once a round in rotated order, after one round that is not counted; the read floor in every round too.

    read_bandwidth: measures bytes/s now. weight_bytes: what an engine reads for one decoded token.
    """
    for number, name in enumerate(engines):
        progress(f"warming up {name}", number, (rounds + 1) * len(engines))
        engines[name].round()
    found: dict[str, list[Round]] = {name: [] for name in engines}
    bandwidth: list[float] = []
    for number in range(rounds):
        if read_bandwidth is not None:
            bandwidth.append(read_bandwidth())
        for position, name in enumerate(order(list(engines), number)):
            progress(
                f"round {number + 1} of {rounds}, {name}",
                (number + 1) * len(engines) + position,
                (rounds + 1) * len(engines),
            )
            found[name].append(engines[name].round())
    results = []
    for name, measured in found.items():
        decode = Sample(tuple(one.decode for one in measured))
        moved = (weight_bytes or {}).get(name)
        share = None
        if moved and bandwidth:
            share = ratio(Sample(tuple(moved * speed for speed in decode.values)), Sample(tuple(bandwidth)))
        results.append(Measured(name, Sample(tuple(one.prefill for one in measured)), decode, share))
    return results


def ratios(measured: Sequence[Measured], ours: str) -> dict[str, dict[str, float]]:
    """Our speed over each other engine's, as the median of the ratios within a round."""
    mine = next(one for one in measured if one.name == ours)
    return {
        other.name: {"prefill": ratio(mine.prefill, other.prefill), "decode": ratio(mine.decode, other.decode)}
        for other in measured
        if other is not mine
    }
