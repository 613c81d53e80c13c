"""`anybit eval`: how well a model predicts a text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from anybit.cli import engines, numbers
from anybit.cli.arguments import default_text, model_folder, positive, read_text
from anybit.cli.console import Console
from anybit.errors import AnybitError


def evaluate(
    model: Annotated[str, typer.Argument(help="A model directory or the name of a bundled model.")],
    text: Annotated[
        Path | None, typer.Option("--text", help="A UTF-8 text; the model's own held-out text by default.")
    ] = None,
    window: Annotated[
        int | None, typer.Option("--window", help="Tokens of one pass; the model's positions, at most 2048.")
    ] = None,
    tokens: Annotated[int | None, typer.Option("--tokens", help="Score at most about this many tokens.")] = None,
    at_bits: Annotated[
        int | None,
        typer.Option("--at-bits", help="Serve a model of 8-bit integers by this many top bits (--method matgptq)."),
    ] = None,
    threads: engines.ThreadsOption = None,
    executor: engines.EngineOption = "native",
    act: engines.ModelActOption = engines.AUTO,
    levels: engines.LevelsOption = "exact",
    kv: engines.CacheOption = None,
    json: engines.JsonOption = False,
) -> None:
    """Perplexity of a model on a text."""
    cache = engines.cache(executor, kv)
    engines.check(executor, act, cache, threads, levels)
    positive(tokens, "--tokens")
    folder = model_folder(model)
    source = text or default_text(folder)
    content = read_text(source, "evaluation")
    from anybit import models
    from anybit.cli import scoring

    console = Console(json)
    loaded = models.load(folder)
    if at_bits is not None:
        from anybit.models import slices

        if executor == "transformers":
            raise AnybitError("--at-bits is for the native and the torch executor; transformers reads the whole file")
        loaded = slices.at_bits(loaded, at_bits)
    act = engines.settled(loaded, executor, act)
    cut = scoring.windows(loaded, content, window, tokens)
    with console.progress("loading") as job:
        runner = engines.build(loaded, executor, act, cache, threads, job, levels)
    with console.progress("scoring") as job:
        score = scoring.score(runner, cut, job)
    chosen = "" if levels == "exact" else f", codebooks with levels of {levels}"
    console.table(
        ["", ""],
        [
            ["perplexity", f"{score.perplexity:.4f}"],
            ["nats a token", f"{score.nll:.5f} ± {score.stderr:.5f}"],
            ["tokens", f"{score.tokens:,}"],
            ["bits a weight", f"{loaded.bits_per_weight:.4f}"],
            ["size", f"{numbers.size(loaded.nbytes)} ({loaded.nbytes:,} bytes)"],
            ["text", source],
            ["run by", f"{executor} executor, activations {act}, KV cache {cache}{chosen}"],
        ],
    )
    console.result(
        {
            "model": str(folder),
            "perplexity": score.perplexity,
            "nll": score.nll,
            "stderr": score.stderr,
            "tokens": score.tokens,
            "bits_per_weight": loaded.bits_per_weight,
            "bytes": loaded.nbytes,
            "parameters": loaded.parameters,
            "text": str(source),
            "executor": executor,
            "act": act,
            "levels": levels,
            "kv": cache,
        }
    )
