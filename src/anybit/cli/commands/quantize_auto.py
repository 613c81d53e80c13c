"""`anybit quantize --method auto`: what is tried, what came of it, and the run with the best."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from anybit.cli import numbers
from anybit.cli.console import Console
from anybit.cli.quantizing import finished, timed

if TYPE_CHECKING:
    from anybit.recipes import Recipe


def quantize_auto(console: Console, folder: Path, wanted: Recipe, out: Path, overwrite: bool, dry_run: bool) -> None:
    """Print the candidates, try them, and print the table of what they lost before the result."""
    from anybit.recipes import auto

    resumed = (out.parent / f"{out.name}.trials.partial").is_dir()
    listed = auto.candidates(folder, wanted, out, overwrite=overwrite or resumed)
    budget = f"{wanted.bits:.4g} bits a weight" if wanted.bits is not None else wanted.weights
    console.say(
        f"{folder} → {out}, the best of {sum(each.refused is None for each in listed)} for {budget}", style="bold"
    )
    plan: dict[str, Any] = {
        "model": str(folder),
        "out": str(out),
        "method": "auto",
        "candidates": [{"candidate": each.label, "refused": each.refused} for each in listed],
    }
    for each in listed:
        console.say(f"not tried: {each.refused}" if each.refused else f"candidate: {each.label}")
    if dry_run:
        console.say("nothing was written (--dry-run)")
        console.result({"plan": plan})
        return
    chosen, seconds = timed(
        console,
        "choosing",
        lambda progress: auto.run(folder, wanted, out, overwrite=overwrite, progress=progress),
        f"trials are kept beside {out}",
    )
    rows = [
        [
            each.candidate,
            None if each.bits_per_weight is None else f"{each.bits_per_weight:.3f}",
            "refused" if each.kl is None else f"{each.kl:.4f}",
            "kept" if each.candidate == chosen.best else "",
        ]
        for each in chosen.tried
    ]
    console.table(["tried on a sample", "bits a weight", "KL divergence, nats a token", ""], rows)
    result = chosen.result
    console.say()
    console.say(
        f"{out}: {chosen.best}, {numbers.size(result.bytes)}, {result.bits_per_weight:.3f} bits a weight, {numbers.seconds(seconds)}",
        style="bold",
    )
    tried = [each.model_dump(mode="json") for each in chosen.tried]
    console.result({"plan": plan, "tried": tried, "best": chosen.best, "result": finished(result, seconds)})
