"""The training loop of the zoo: seeded, resumable to the same bits, with a log and the time left.

A member's script makes a `Task` (what is trained, on what, how it is scored) and calls `run`.  OUT then holds
    train_log.jsonl     a line a step: step, loss, lr; and the scores wherever they were measured
    state.pt            everything to go on from, renamed into place every `save_every` steps
    model.safetensors   the weights so far as bfloat16 (buffers that are no floating numbers as they are)
The batch and every random draw of a step depend on seed and step alone, so a run that was interrupted ends in the bits of one that
was not (on one device, with one number of threads).
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from anybit.errors import AnybitError

LOG, STATE, WEIGHTS = "train_log.jsonl", "state.pt", "model.safetensors"


@dataclass(frozen=True)
class Options:
    """How long and where to train.

    steps: of the whole schedule.  lr: its peak.  warmup: steps of linear rise, before a cosine to zero.  save_every: steps between
    checkpoints, which are scored.  stop: end after this step of the schedule (all of it where None).
    land: (from, end), the first step from which the rate falls in a line to zero at the step `end`, to finish a schedule sooner.
    precision: of activations and matrix products, `fp32` or `bf16` (weights and optimizer stay float32).
    """

    steps: int
    lr: float
    warmup: int
    batch: int
    save_every: int = 100
    seed: int = 0
    threads: int = 1
    device: str = "cpu"
    precision: str = "fp32"
    stop: int | None = None
    land: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.land is not None and not 0 <= self.land[0] < self.land[1] <= self.steps:
            raise AnybitError(
                f"--land takes FROM < END within the {self.steps} steps; got {self.land[0]} {self.land[1]}"
            )

    @property
    def end(self) -> int:
        """The steps of the whole training."""
        return self.steps if self.land is None else min(self.steps, self.land[1])


@dataclass(frozen=True)
class Task:
    """model: what is trained.  loss(model, step) -> the scalar loss of a step's batch.  score(model) -> figures by name.

    optimizer(model, lr) -> what steps it; a group's `pace` multiplies the rate.  clip: the largest norm of the gradient, 0 for any.
    average: decay a step of the averaged weights that are scored and exported, 0 for the weights themselves.
    member(model) -> the part that is scored and exported, where the rest only helps to train it.
    """

    model: nn.Module
    loss: Callable[[nn.Module, int], Tensor]
    score: Callable[[nn.Module], Mapping[str, float]]
    optimizer: Callable[[nn.Module, float], torch.optim.Optimizer]
    clip: float = 1.0
    average: float = 0.0
    member: Callable[[nn.Module], nn.Module] = lambda model: model


def learning_rate(step: int, options: Options) -> float:
    """The rate of a step: linear warm-up to `lr`, then half a cosine to zero at `steps`, or a line to zero at the end of `land`."""
    if options.land is not None and step > options.land[0]:
        first, end = options.land
        return learning_rate(first, options) * max(0.0, (end - step) / (end - first))
    if step < options.warmup:
        return options.lr * (step + 1) / options.warmup
    share = (step - options.warmup) / max(1, options.steps - options.warmup)
    return options.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))


def adamw(model: nn.Module, lr: float, decay: float = 0.05) -> torch.optim.Optimizer:
    """AdamW with weight decay on matrices and kernels only."""
    matrices = [p for p in model.parameters() if p.requires_grad and p.dim() > 1]
    vectors = [p for p in model.parameters() if p.requires_grad and p.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95))


def run(task: Task, options: Options, out: Path, say: Callable[[str], None] = print) -> dict[str, float]:
    """Train, or go on training, into `out`; returns the last scores.

    Raises AnybitError where `out` holds a run with other options, or the loss is no number.
    """
    torch.set_num_threads(options.threads)
    out.mkdir(parents=True, exist_ok=True)
    device = torch.device(options.device)
    model = task.model.to(device)
    average = torch.optim.swa_utils.AveragedModel(model, avg_fn=_decay(task.average)) if task.average else None
    optimizer = task.optimizer(model, options.lr)
    mark = {
        "steps": options.steps,
        "lr": options.lr,
        "warmup": options.warmup,
        "batch": options.batch,
        "seed": options.seed,
    }
    step, spent, scores = 0, 0.0, dict[str, float]()
    if (out / STATE).exists():
        state = torch.load(out / STATE, map_location=device, weights_only=True)
        if state["mark"] != mark:
            raise AnybitError(f"{out} holds a run with the options {state['mark']}, not {mark}; choose another folder")
        landings = [pair[0] for pair in (state.get("land"), options.land) if pair]
        if state.get("land") != options.land and state["step"] > min(landings):
            raise AnybitError(f"{out} holds a run that landed from another step, or not yet; choose another folder")
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        if average is not None:
            average.load_state_dict(state["average"])
        step, spent, scores = state["step"], state["seconds"], state["scores"]
        say(f"going on after step {step}")
    _cut_log(out / LOG, step)
    last = min(options.end, options.stop or options.end)
    began, first = time.perf_counter(), step
    with (out / LOG).open("a", encoding="utf-8") as log:
        while step < last:
            model.train()
            torch.manual_seed((options.seed << 32) + step)  # dropout and the like
            rate = learning_rate(step, options)
            for group in optimizer.param_groups:
                group["lr"] = rate * group.get("pace", 1.0)
            with torch.autocast(device.type, torch.bfloat16, enabled=options.precision == "bf16"):
                loss = task.loss(model, step)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if task.clip:
                nn.utils.clip_grad_norm_(model.parameters(), task.clip)
            optimizer.step()
            if average is not None:
                average.update_parameters(model)
            step += 1
            row: dict[str, float] = {"step": step, "loss": round(loss.item(), 6), "lr": round(rate, 8)}
            if not math.isfinite(row["loss"]):
                raise AnybitError(f"the loss of step {step} is {row['loss']}; lower --lr")
            seconds = spent + time.perf_counter() - began
            if step % options.save_every == 0 or step == last:
                best = task.member(average.module if average is not None else model)
                best.eval()
                with torch.no_grad():
                    scores = dict(task.score(best))
                best.to(device)
                row |= {name: round(value, 6) for name, value in scores.items()}
                state = {"mark": mark, "step": step, "seconds": seconds, "scores": scores, "model": model.state_dict()}
                state["land"] = options.land
                state |= {"optimizer": optimizer.state_dict()}
                if average is not None:
                    state["average"] = average.state_dict()
                export(best, out / WEIGHTS)
                torch.save(state, out / f"{STATE}.writing")
                (out / f"{STATE}.writing").replace(out / STATE)
            log.write(json.dumps(row) + "\n")
            log.flush()
            if step % 10 == 0 or len(row) > 3:
                rate_ = (step - first) / (time.perf_counter() - began)
                say(f"{row}  {60 * rate_:.1f} steps a minute, {(last - step) / rate_ / 60:.0f} min left")
    return scores


def export(model: nn.Module, path: Path) -> None:
    """The module's state as bfloat16 safetensors, tied tensors once, renamed into place; equal states give equal bytes."""
    from safetensors.torch import save_file

    state: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, value in model.state_dict().items():
        if value.data_ptr() not in seen:
            seen.add(value.data_ptr())
            stored = value.to(torch.bfloat16) if value.is_floating_point() else value
            state[name] = stored.detach().cpu().contiguous()
    writing = path.with_name(path.name + ".writing")
    save_file(state, str(writing), metadata={"format": "pt"})
    writing.replace(path)


def parser(description: str | None, defaults: Options) -> argparse.ArgumentParser:
    """The options every training script has; `options` reads them."""
    p = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument(
        "--out", type=Path, required=True, help="the run's folder; the same command goes on from what it holds"
    )
    p.add_argument("--steps", type=int, default=defaults.steps, help=f"of the schedule ({defaults.steps})")
    p.add_argument("--lr", type=float, default=defaults.lr, help=f"peak learning rate ({defaults.lr:g})")
    p.add_argument("--warmup", type=int, default=defaults.warmup, help=f"steps of linear warm-up ({defaults.warmup})")
    p.add_argument("--batch", type=int, default=defaults.batch, help=f"samples a step ({defaults.batch})")
    p.add_argument("--save-every", type=int, default=defaults.save_every, help="steps between checkpoints")
    p.add_argument("--stop", type=int, help="end after this step of the schedule")
    p.add_argument(
        "--land",
        type=int,
        nargs=2,
        metavar=("FROM", "END"),
        default=defaults.land,
        help="let the rate fall in a line from one step to zero at another, to finish the schedule sooner"
        + (" ({} {})".format(*defaults.land) if defaults.land else ""),
    )
    p.add_argument("--seed", type=int, default=defaults.seed)
    p.add_argument("--threads", type=int, default=defaults.threads)
    p.add_argument("--device", default=defaults.device, help="cpu or cuda")
    p.add_argument("--precision", choices=["fp32", "bf16"], default=defaults.precision, help="of the matrix products")
    return p


def options(args: argparse.Namespace) -> Options:
    """The options on a command line made by `parser`."""
    return Options(
        steps=args.steps,
        lr=args.lr,
        warmup=args.warmup,
        batch=args.batch,
        save_every=args.save_every,
        seed=args.seed,
        threads=args.threads,
        device=args.device,
        precision=args.precision,
        stop=args.stop,
        land=tuple(args.land) if args.land else None,
    )


def command(
    description: str | None, defaults: Options, task: Callable[[Options], Task], arguments: list[str] | None
) -> None:
    """What a script that needs nothing but the shared options does on the command line."""
    args = parser(description, defaults).parse_args(arguments)
    given = options(args)
    run(task(given), given, args.out)


def read_log(path: Path) -> list[dict[str, float]]:
    """The rows of a training log."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def thin(rows: Sequence[Mapping[str, float]]) -> list[Mapping[str, float]]:
    """The first 50 steps (which a retraining must repeat), then every tenth and every one with scores."""
    return [row for row in rows if row["step"] <= 50 or row["step"] % 10 == 0 or len(row) > 3]


def _cut_log(path: Path, step: int) -> None:
    """Drop the rows after `step`, which will be made again."""
    rows = [row for row in read_log(path) if row["step"] <= step] if path.exists() else []
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _decay(most: float) -> Callable[[Tensor, Tensor, Tensor | int], Tensor]:
    """Exponential average that forgets faster at first: decay min(most, (1 + n) / (10 + n))."""

    def average(mean: Tensor, value: Tensor, count: Tensor | int) -> Tensor:
        decay = min(most, (1 + int(count)) / (10 + int(count)))
        return mean.lerp(value, 1 - decay) if mean.is_floating_point() else value

    return average
