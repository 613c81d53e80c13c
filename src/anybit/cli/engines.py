"""From a model argument and options to an executor; shared by the commands that run a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from anybit.cli.bench.rounds import Progress, silent
from anybit.errors import AnybitError

if TYPE_CHECKING:
    from anybit.formats import TensorFormat
    from anybit.models import Model, Plan

AUTO = "auto"
DEFAULT_ACTIVATION = "int8/g128"
ENGINES = ("native", "torch", "transformers")
CACHES = ("fp32", "fp16", "int8")
LEVELS = ("exact", "int8")

ActOption = Annotated[
    str,
    typer.Option(
        "--act", help="How inputs of quantized layers are rounded: int8/g128, int8/row, or none for exact ones."
    ),
]
ModelActOption = Annotated[
    str,
    typer.Option(
        "--act",
        help="How inputs of quantized layers are rounded: int8/g128, int8/row, int8/static (one scale a layer, of a checkpoint made with "
        "--activations int8/static), or none for exact ones; auto is static where the checkpoint has the scales, else int8/g128.",
    ),
]
LevelsOption = Annotated[
    str,
    typer.Option(
        "--levels",
        help="Values of codebooks such as nf4: exact, or int8, rounded to 127 steps of the largest, which is faster (native executor).",
    ),
]
CacheOption = Annotated[
    str | None,
    typer.Option(
        "--kv",
        help="What the KV cache holds: fp16 (the default), fp32 or int8; with --executor torch fp32 or formats of keys and values, "
        "such as int4/g32:e8m0,fp32.",
    ),
]
ThreadsOption = Annotated[int | None, typer.Option("--threads", help="Threads; all cores by default.")]
EngineOption = Annotated[
    str,
    typer.Option(
        "--executor", help="native (C++), torch (the readable reference) or transformers (its own code, in fp32)."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def activation(text: str) -> str | None:
    """The spec of rounded activations, None for exact ones; FormatError where it is no format."""
    if text == "none":
        return None
    from anybit.formats import TensorFormat, is_static

    if not is_static(text):
        return str(TensorFormat.parse(text))
    from anybit.ops.static import StaticFormat  # with torch, which takes seconds

    return str(StaticFormat.parse(text))


def settled(model: Model, engine: str, act: str) -> str:
    """What `--act auto` stands for; transformers takes the activations of the checkpoint whatever `act` says, exact ones without."""
    from anybit.models.static import format_of

    held = format_of(model.plan)
    if engine == "transformers":
        return str(held or "none")
    return str(held or DEFAULT_ACTIVATION) if act == AUTO else act


def cache(engine: str, wanted: str | None) -> str:
    """What the KV cache holds where it was left open: fp16, and fp32 outside the native executor, where there is nothing else."""
    return wanted or ("fp16" if engine == "native" else "fp32")


def cache_formats(kv: str) -> tuple[TensorFormat | None, TensorFormat | None]:
    """Formats of keys and values for the torch executor, None for fp32; FormatError or AnybitError for what is none."""
    from anybit.formats import TensorFormat

    parts = kv.split(",")
    if len(parts) > 2:
        raise AnybitError(f"--kv names one format, or one of keys and one of values; got {kv!r}")
    keys, values = (None if part in ("fp32", "none") else TensorFormat.parse(part) for part in (parts[0], parts[-1]))
    for fmt in (keys, values):
        if fmt is not None and fmt.scale is None:
            raise AnybitError(
                f"the torch executor keeps its cache in fp32 or in formats with scales, such as int8/g32; got {kv!r}"
            )
    return keys, values


def check(executor: str, act: str, kv: str, threads: int | None, levels: str = "exact") -> None:
    """Raises AnybitError for an option that no executor has, before a model is loaded."""
    if executor not in ENGINES:
        raise AnybitError(f"--executor is {', '.join(ENGINES[:-1])} or {ENGINES[-1]}; got {executor!r}")
    if executor == "torch":
        cache_formats(kv)
    elif kv not in CACHES:
        raise AnybitError(f"--kv is {', '.join(CACHES)}; got {kv!r}")
    if executor == "transformers" and kv != "fp32":
        raise AnybitError(
            f"the {executor} executor keeps its cache in fp32; leave --kv out or choose --executor native (got --kv {kv})"
        )
    if threads is not None and not 1 <= threads <= 1024:
        raise AnybitError(f"--threads must be between 1 and 1024; got {threads}")
    if levels not in LEVELS:
        raise AnybitError(f"--levels is {' or '.join(LEVELS)}; got {levels!r}")
    if levels != "exact" and executor != "native":
        raise AnybitError(f"--levels {levels} is for the native executor; {executor} computes with exact values")
    if act != AUTO:
        activation(act)


def executor(
    plan: Plan,
    weights: Any,
    act: str = DEFAULT_ACTIVATION,
    kv: str = "fp16",
    threads: int | None = None,
    job: Progress = silent,
    levels: str = "exact",
) -> Any:
    """The native executor of a plan; `job` is told how many weights have been packed."""
    from anybit.ops import Levels
    from anybit.runtime.executor import CacheKind, NativeExecutor

    def told(done: int, total: int, name: str) -> None:
        job(f"packing {name}", done, total)

    return NativeExecutor(
        plan,
        weights,
        act=activation(act),
        kv=cast(CacheKind, kv),
        threads=threads,
        progress=told,
        levels=cast(Levels, levels),
    )


def build(
    model: Model,
    engine: str = "native",
    act: str = AUTO,
    kv: str = "fp16",
    threads: int | None = None,
    job: Progress = silent,
    levels: str = "exact",
) -> Any:
    """The executor of a model that was asked for, its activations as `settled`."""
    act = settled(model, engine, act)
    if engine == "native":
        return executor(model.plan, model.weights, act, kv, threads, job, levels)
    import torch

    from anybit.models import TorchExecutor
    from anybit.ops.static import activations

    if threads is not None:
        torch.set_num_threads(threads)
    if engine == "transformers":
        from anybit.models.transformers_executor import TransformersExecutor

        return TransformersExecutor(model.path)
    rounded = activation(act)
    keys, values = cache_formats("fp32" if kv == "fp16" else kv)
    act_format = activations(rounded) if rounded else None
    return TorchExecutor(model.plan, model.weights, act=act_format, keys=keys, values=values)


def prompt_ids(model: Model, prompt: str) -> list[int]:
    """Token ids of a prompt, behind the model's begin token where it has one; AnybitError where that is nothing."""
    begin = [] if model.tokenizer.bos is None else [model.tokenizer.bos]
    ids = begin + model.tokenizer.encode(prompt)
    if not ids:
        raise AnybitError("the prompt is empty; give --prompt some text to continue")
    return ids
