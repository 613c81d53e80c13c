"""`anybit generate`: text from a model, as it is written."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Annotated, Any

import typer

from anybit.cli import engines, numbers
from anybit.cli.arguments import model_folder
from anybit.cli.console import Console


def generate(
    model: Annotated[str, typer.Argument(help="A model directory or the name of a bundled model.")],
    prompt: Annotated[str, typer.Option("--prompt", help="The text to continue.")],
    max_tokens: Annotated[int, typer.Option("--max-tokens", help="The most tokens to write.")] = 200,
    temperature: Annotated[
        float | None, typer.Option("--temperature", help="0 takes the likeliest token each time.")
    ] = None,
    top_k: Annotated[int | None, typer.Option("--top-k", help="Draw from the k likeliest tokens; 0 from all.")] = None,
    top_p: Annotated[
        float | None, typer.Option("--top-p", help="Draw from the likeliest tokens that together reach p.")
    ] = None,
    min_p: Annotated[
        float | None, typer.Option("--min-p", help="Leave out tokens less likely than p times the likeliest.")
    ] = None,
    repetition_penalty: Annotated[
        float | None, typer.Option("--repetition-penalty", help="Above 1, tokens seen before become less likely.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="The same seed writes the same text.")] = 0,
    threads: engines.ThreadsOption = None,
    executor: engines.EngineOption = "native",
    act: engines.ModelActOption = engines.AUTO,
    levels: engines.LevelsOption = "exact",
    kv: engines.CacheOption = None,
    json: engines.JsonOption = False,
) -> None:
    """Continue a prompt.

    Sampling options left out are those the model suggests (generation_config.json), or temperature 0.7 and min-p 0.05.
    """
    cache = engines.cache(executor, kv)
    engines.check(executor, act, cache, threads, levels)
    folder = model_folder(model)
    from anybit import models
    from anybit.runtime.generate import generate as write
    from anybit.runtime.sampling import suggested

    given: dict[str, Any] = {
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "repetition_penalty": repetition_penalty,
    }
    sampling = replace(suggested(folder), seed=seed, **{name: x for name, x in given.items() if x is not None})
    console = Console(json)
    stream = sys.stderr if json else sys.stdout
    with console.progress("loading") as job:
        loaded = models.load(folder)
        runner = engines.build(loaded, executor, act, cache, threads, job, levels)

    def show(piece: str) -> None:
        stream.write(piece)
        stream.flush()

    ids = engines.prompt_ids(loaded, prompt)
    show(prompt)
    made = write(
        runner,
        loaded.tokenizer,
        ids,
        max_new_tokens=max_tokens,
        sampling=sampling,
        stop_ids=loaded.tokenizer.eos,
        stream=show,
    )
    show("\n")
    console.say(
        f"{made.prompt_tokens} tokens read at {numbers.three(made.prefill_tokens_per_s)} tokens/s, "
        f"{len(made.ids)} written at {numbers.three(made.decode_tokens_per_s)} tokens/s ({made.finish_reason})",
        style="dim",
    )
    console.result(
        {
            "text": made.text,
            "prompt": prompt,
            "prompt_tokens": made.prompt_tokens,
            "tokens": len(made.ids),
            "finish_reason": made.finish_reason,
            "prefill_tokens_per_s": made.prefill_tokens_per_s,
            "decode_tokens_per_s": made.decode_tokens_per_s,
        }
    )
