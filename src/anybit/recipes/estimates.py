"""Rough memory and time of a job before it runs, from its sizes and a short measurement of this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import psutil
import torch

from anybit.errors import RecipeError
from anybit.formats import TensorFormat
from anybit.quantize import rtn, table
from anybit.quantize.distill import BYTES
from anybit.recipes.items import Item
from anybit.recipes.job import Job
from anybit.recipes.recipe import KEEP
from anybit.recipes.sensitivity import TOKENS
from anybit.transforms import table as transforms

READING = 0.5e9
"""Bytes a second read, hashed and written, on an ordinary disk."""


def memory(job: Job) -> int:
    """Peak resident bytes: this process as it is, and the largest working set of a stage."""
    base = psutil.Process().memory_info().rss
    threads = torch.get_num_threads()
    rounding = threads * max(job.accounting.stored[item.name] + item.parameters for item in job.items) + (192 << 20)
    if job.windows is None:
        return base + rounding
    plan = job.model.plan
    block = max(sum(4 * i.parameters for i in job.items if set(i.ops) & set(range(*b))) for b in plan.blocks)
    columns = {item.shape[1] for item in job.items if item.role != "embedding"}
    width = max(plan.buffers[op.output] for op in plan.ops if op.kind == "embedding")
    activations = 2 * 4 * job.windows.tokens * width
    if table.get(job.recipe.method).refine is not None:
        # The float model is walked beside the quantized one, and a batch of a block's intermediate values is kept for its gradients.
        options = table.get(job.recipe.method).parse(job.recipe.options)
        inside = sum(plan.buffers[op.output] for op in plan.ops[slice(*plan.blocks[0])])
        activations += activations + 2 * 4 * options.batch * max(len(w) for w in job.windows.ids) * inside
        block *= 4
    if not job.recipe.uniform:
        activations += 4 * min(job.windows.tokens, TOKENS) * width * (len(plan.blocks) + 2)
    if table.get(job.recipe.method).finish is not None:
        activations = max(activations, _whole(job) - 2 * block)
    # A Hessian and its factor for each width in a block, and the temporaries of the widest factorization.
    hessians = sum(2 * 4 * k * k for k in columns) + 3 * 4 * max(columns) ** 2
    return base + max(rounding, 2 * block + activations + hessians)


def _whole(job: Job) -> int:
    """Bytes to learn all blocks together: what is kept of every weight, of a batch's intermediate values, and its logits several times."""
    assert job.windows is not None
    plan, options = job.model.plan, table.get(job.recipe.method).parse(job.recipe.options)
    tokens = options.batch * max(len(w) for w in job.windows.ids)
    inside = sum(plan.buffers[op.output] for op in plan.ops)
    return (
        BYTES * job.accounting.parameters + 2 * 4 * tokens * inside + 6 * 4 * tokens * plan.buffers[plan.ops[-1].output]
    )


def fits(job: Job) -> None:
    """RecipeError where the method learns the whole model at once and that is more than this machine's memory."""
    if table.get(job.recipe.method).finish is None or job.windows is None:
        return
    needed, there = memory(job), psutil.virtual_memory().total
    if needed > there:
        raise RecipeError(
            f"{job.recipe.method} learns the whole model at once, which takes about {needed / 2**30:.0f} GiB, and this machine has "
            f"{there / 2**30:.0f}; gradient_ptq learns one block at a time"
        )


def seconds(job: Job) -> float:
    """Rounding is measured on a small matrix; products are counted and a small one is timed."""
    choices = () if job.recipe.uniform else job.recipe.choices
    spec = next((s for s in (*job.formats.values(), *choices) if s not in (None, KEEP)), None)
    reading = 2 * job.accounting.source_bytes / READING
    if spec is None:
        return reading
    fmt = TensorFormat.parse(spec)
    rule = job.recipe.options.get("scale_rule", "mse")
    sample = torch.randn(128, 2048)
    rounding = _cpu_seconds(lambda: rtn.quantize(sample, fmt, options=rtn.Options(scale_rule=rule))) / sample.numel()
    rounds = 1 if job.recipe.uniform else 1 + len(job.recipe.choices)
    todo = [item for item in job.items if job.formats[item.name] != KEEP]
    parameters = sum(item.parameters for item in todo)
    total = parameters * rounding * rounds
    if job.windows is not None:
        square = torch.randn(384, 384)
        speed = 2 * 384**3 / _cpu_seconds(lambda: square @ square)
        # Forward twice to quantize; to measure for a budget, forward, again, and backward for as much as two.
        looks = table.get(job.recipe.method).needs != "weights"
        flops = 2.0 * parameters * job.windows.tokens * 2 if looks else 0.0
        if not job.recipe.uniform:
            flops += 2.0 * parameters * min(job.windows.tokens, TOKENS) * 4
        flops += _walks(job, parameters) + _learning(job, todo)
        for item in todo:
            if looks and item.role in ("linear", "lm_head"):
                n, k = item.shape
                flops += rounds * 1.0 * n * k * k + 2.0 * k**3 + job.windows.tokens * 2.0 * k * k
        total += flops / speed
    return reading + total / torch.get_num_threads()


def _walks(job: Job, parameters: int) -> float:
    """Operations of transforms that look at inputs, and of static scales: a walk each, and the errors of every scale tried."""
    assert job.windows is not None
    flops = 0.0 if job.recipe.static is None else 2.0 * parameters * job.windows.tokens * 2
    for step in job.recipe.steps:
        if transforms.get(step.name).needs != "inputs":
            continue
        flops += 2.0 * parameters * job.windows.tokens * 2
        if step.name == "awq":
            tries = transforms.get(step.name).parse(step.options).steps
            flops += sum(tries * 2.0 * item.parameters * item.shape[1] for item in job.items if item.role == "linear")
    return flops


def _learning(job: Job, todo: Sequence[Item]) -> float:
    """Operations of what learns blocks or all of them: forward, and backward for as much as two, over all batches."""
    method = table.get(job.recipe.method)
    options = method.parse(job.recipe.options)
    # A step of the whole model runs the float model too.
    batches = 0.0 if method.refine is None else options.steps * options.batch
    batches += 0.0 if method.finish is None else 4 / 3 * options.model_steps * options.batch
    for step in job.recipe.steps:
        if step.name == "block_affine":
            learned = transforms.get(step.name).parse(step.options)
            batches += learned.steps * learned.batch * (2 if learned.start == "auto" else 1)
    if not batches:
        return 0.0
    assert job.windows is not None
    plan, length = job.model.plan, max(len(window) for window in job.windows.ids)
    width = max(plan.buffers[op.output] for op in plan.ops if op.kind == "attention")
    products = sum(item.parameters for item in todo if item.role == "linear") + plan.layers * length * width
    # Rounding every weight anew and the softmax are no products; measured, a step takes twice what its products do.
    return 2 * 6.0 * batches * length * products


def _cpu_seconds(work: Callable[[], object]) -> float:
    """Seconds of one thread for the work: the best of three, so that neither a cold start nor a busy machine counts."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        work()
        best = float("inf")
        for _ in range(3):
            start = time.thread_time()
            work()
            best = min(best, time.thread_time() - start)
    finally:
        torch.set_num_threads(threads)
    return max(best, 1e-6)
