import itertools
from pathlib import Path

import torch

from anybit import models
from anybit.recipes.walk import Held, Walk, live, segments

IDS = [torch.tensor([256, 3, 7, 9, 200]), torch.tensor([256, 90, 1])]


def test_segments_cover_the_plan(model: Path) -> None:
    plan = models.load(model).plan
    parts = segments(plan)
    assert len(parts) == 4 and parts[0][0] == 0 and parts[-1][1] == len(plan.ops)
    assert all(a[1] == b[0] for a, b in itertools.pairwise(parts))
    assert [live(plan, start) for start, _ in parts] == [{"ids"}, {"x"}, {"x"}, {"x"}]


def test_walking_gives_the_executors_logits(model: Path) -> None:
    loaded = models.load(model)
    walk, held = Walk(loaded.plan, IDS), Held(loaded.weights)
    seen: dict[int, list[torch.Tensor]] = {}
    inputs: dict[str, list[torch.Tensor]] = {}
    for _, stop in segments(loaded.plan):
        walk.visit(stop, held, lambda op, x: seen.setdefault(op, []).append(x))
        at = walk.at
        walk.visit(stop, held, lambda op, x: None)
        assert walk.at == at
        if stop < len(loaded.plan.ops):
            walk.advance(stop, held)
            assert all(set(state) == {"x"} for state in walk.states)
        held.drop()
    executor = models.TorchExecutor(
        loaded.plan, loaded.weights, on_linear=lambda ref, x: inputs.setdefault(ref.name, []).append(x)
    )
    for ids in IDS:
        executor.reset()
        executor.forward(ids, "all")
    assert len(seen) == 15
    for op, values in seen.items():
        for value, expected in zip(values, inputs[loaded.plan.ops[op].weights[0].name], strict=True):
            torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)
