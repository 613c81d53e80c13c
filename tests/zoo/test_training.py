"""The loop: its schedule, its average, its log, and a resumed run that ends in the bits of an uninterrupted one."""

import json
import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from anybit.errors import AnybitError
from anybit.zoo import training
from anybit.zoo.training import LOG, STATE, WEIGHTS, Options, Task, learning_rate, read_log, run, thin

OPTIONS = Options(steps=12, lr=0.1, warmup=3, batch=8, save_every=4)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.drop, self.norm = nn.Linear(4, 4, bias=False), nn.Dropout(0.5), nn.BatchNorm1d(4)
        self.b = nn.Linear(4, 4, bias=False)
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.b(self.norm(self.drop(self.a(x))))


def task(average=0.9, scores=None):
    torch.manual_seed(3)

    def loss(model, step):
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
        return (model(x) - x.flip(1)).square().mean()

    def score(model):
        assert not model.training and not torch.is_grad_enabled()
        return {"score": model.a.weight.sum().item()} if scores is None else scores

    return Task(Tied(), loss, score, training.adamw, average=average)


def quiet(text):
    pass


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_a_resumed_run_ends_in_the_same_bits(tmp_path, average):
    run(task(average), OPTIONS, tmp_path / "whole", quiet)
    run(task(average), replace(OPTIONS, stop=6), tmp_path / "parts", quiet)
    with (tmp_path / "parts" / LOG).open("a") as log:
        log.write(json.dumps({"step": 7, "loss": 99.0, "lr": 0.0}) + "\n")  # of a step that was never saved
    run(task(average), OPTIONS, tmp_path / "parts", quiet)
    whole, parts = (read_log(tmp_path / name / LOG) for name in ("whole", "parts"))
    assert [row["loss"] for row in whole] == [row["loss"] for row in parts]
    assert [row["step"] for row in parts] == list(range(1, 13))
    assert [row["step"] for row in whole if "score" in row] == [4, 8, 12]
    assert (tmp_path / "whole" / WEIGHTS).read_bytes() == (tmp_path / "parts" / WEIGHTS).read_bytes()
    assert whole[-1]["loss"] < whole[0]["loss"]


def test_tied_tensors_are_stored_once_in_bfloat16(tmp_path):
    run(task(), OPTIONS, tmp_path, quiet)
    stored = load_file(tmp_path / WEIGHTS)
    assert ("a.weight" in stored) != ("b.weight" in stored)
    assert all(value.dtype == torch.bfloat16 for value in stored.values() if value.is_floating_point())
    assert stored["norm.num_batches_tracked"].dtype == torch.int64


def test_the_average_is_exported(tmp_path):
    run(task(0.9), OPTIONS, tmp_path, quiet)
    state = torch.load(tmp_path / STATE, weights_only=True)
    stored = load_file(tmp_path / WEIGHTS)
    name = "a.weight" if "a.weight" in stored else "b.weight"
    assert torch.equal(stored[name], state["average"][f"module.{name}"].bfloat16())
    assert not torch.equal(stored[name], state["model"][name].bfloat16())


def test_schedule():
    options = Options(steps=110, lr=2.0, warmup=10, batch=1)
    rates = [learning_rate(step, options) for step in range(111)]
    assert rates[:10] == pytest.approx([0.2 * (i + 1) for i in range(10)])
    assert rates[60] == pytest.approx(1.0) and rates[110] == pytest.approx(0.0)
    assert rates[35] == pytest.approx(1 + math.cos(math.pi / 4))
    assert all(a >= b for a, b in pairwise(rates[10:]))


def test_other_options_do_not_go_on(tmp_path):
    run(task(), OPTIONS, tmp_path, quiet)
    with pytest.raises(AnybitError, match="choose another folder"):
        run(task(), Options(steps=12, lr=0.2, warmup=3, batch=8), tmp_path, quiet)


def test_a_loss_that_is_no_number_stops(tmp_path):
    broken = Task(nn.Linear(2, 2), lambda m, s: m(torch.full((1, 2), math.inf)).sum(), lambda m: {}, training.adamw)
    with pytest.raises(AnybitError, match="loss of step 1 is"):
        run(broken, OPTIONS, tmp_path, quiet)


def test_a_slower_group_keeps_its_pace(tmp_path):
    model = nn.Linear(2, 1, bias=False)
    nn.init.zeros_(model.weight)
    slow = nn.Parameter(torch.zeros(1))
    model.register_parameter("slow", slow)

    def optimizer(m, lr):
        return torch.optim.SGD([{"params": [m.weight]}, {"params": [m.slow], "pace": 0.25}], lr=lr)

    options = Options(steps=1, lr=0.5, warmup=1, batch=1)
    run(
        Task(model, lambda m, s: m.weight.sum() + m.slow.sum(), lambda m: {}, optimizer, clip=0),
        options,
        tmp_path,
        quiet,
    )
    assert model.weight.tolist() == [[-0.5, -0.5]] and slow.item() == -0.125


def test_command_line_round_trip(tmp_path):
    args = training.parser("x", OPTIONS).parse_args(["--out", str(tmp_path), "--steps", "7", "--stop", "5"])
    assert training.options(args) == Options(steps=7, lr=0.1, warmup=3, batch=8, save_every=4, stop=5)


def test_thin():
    rows = [{"step": s, "loss": 1.0, "lr": 0.1} | ({"score": 2.0} if s == 77 else {}) for s in range(1, 101)]
    assert [row["step"] for row in thin(rows)] == [*range(1, 51), 60, 70, 77, 80, 90, 100]


def test_a_landing_follows_the_schedule_and_then_a_line_to_zero():
    plain = Options(steps=110, lr=2.0, warmup=10, batch=1)
    landing = replace(plain, land=(60, 80))
    assert plain.end == 110 and landing.end == 80
    assert [learning_rate(s, plain) for s in range(61)] == [learning_rate(s, landing) for s in range(61)]
    at = learning_rate(60, plain)
    assert learning_rate(70, landing) == pytest.approx(at / 2) and learning_rate(79, landing) == pytest.approx(at / 20)


def test_a_run_lands_from_a_checkpoint_before_and_from_no_other(tmp_path):
    landing = replace(OPTIONS, land=(6, 10))
    run(task(), landing, tmp_path / "whole", quiet)
    run(task(), replace(OPTIONS, stop=4), tmp_path / "parts", quiet)
    run(task(), landing, tmp_path / "parts", quiet)
    whole, parts = (read_log(tmp_path / name / LOG) for name in ("whole", "parts"))
    assert whole == parts and len(whole) == 10 and whole[-1]["lr"] < whole[0]["lr"]
    with pytest.raises(AnybitError, match="landed from another step, or not yet"):
        run(task(), OPTIONS, tmp_path / "whole", quiet)
    run(task(), replace(OPTIONS, stop=8), tmp_path / "late", quiet)
    with pytest.raises(AnybitError, match="landed from another step, or not yet"):
        run(task(), landing, tmp_path / "late", quiet)


@pytest.mark.parametrize("land", [(50, 50), (60, 40), (-5, 10), (90, 200)])
def test_a_landing_outside_the_schedule_is_refused(land):
    with pytest.raises(AnybitError, match="--land takes FROM < END"):
        Options(steps=100, lr=1.0, warmup=1, batch=1, land=land)
