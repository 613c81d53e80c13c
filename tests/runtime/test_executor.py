"""The native executor against a float64 interpreter of the plan (conftest.py), for random decoders of several families.

Bound in exact compute: float32 rounding through a few layers of a tiny model whose logits are of order 1: 2e-4 absolute is some
thousand ulp, far below what any wrong operator would give (order 1).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

_native = pytest.importorskip("anybit._native", reason="the native module is not built")

from anybit.errors import AnybitError, UnsupportedModelError  # noqa: E402
from anybit.formats import TensorFormat  # noqa: E402
from anybit.models import TorchExecutor  # noqa: E402
from anybit.models.plan import Op, Plan  # noqa: E402
from anybit.ops import StaticFormat  # noqa: E402
from anybit.runtime.executor import NativeExecutor  # noqa: E402
from anybit.runtime.sampling import Sampling, sample  # noqa: E402
from anybit.tensors import quantize  # noqa: E402

EXACT = 2e-4
MakePlan = Callable[..., tuple[Plan, Any]]
IDS = [int(i) for i in np.random.default_rng(3).integers(0, 250, 200)]
ISAS = [name for name, _, supported in _native.isas() if supported]


@pytest.fixture(params=ISAS)
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    _native.set_isa(request.param)
    yield request.param
    _native.set_isa("auto")


@pytest.fixture
def two_shared_threads() -> Iterator[None]:
    before = _native.threads()
    _native.set_threads(2)
    yield
    _native.set_threads(before)


def exact(plan: Plan, weights: Any, threads: int = 2, **options: Any) -> NativeExecutor:
    return NativeExecutor(plan, weights, **({"act": None, "kv": "fp32", "threads": threads} | options))


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_prefill_and_decode_equal_the_oracle(tiny_plan: MakePlan, oracle: Any, family: Any, threads: int) -> None:
    plan, weights = tiny_plan(family)
    want = oracle(plan, weights).logits(IDS)
    run = exact(plan, weights, threads, chunk=64)
    assert np.abs(run.forward(IDS[:150], logits="all").numpy() - want[:150]).max() < EXACT
    for i in range(150, 200):
        assert np.abs(run.forward([IDS[i]]).numpy() - want[i]).max() < EXACT
    assert run.position == 200


def test_every_isa_agrees(tiny_plan: MakePlan, oracle: Any, family: Any, isa: str) -> None:
    plan, weights = tiny_plan(family)
    want = oracle(plan, weights).logits(IDS[:100])
    run = exact(plan, weights)
    assert run.isa == isa
    assert np.abs(run.forward(IDS[:99], logits="all").numpy() - want[:99]).max() < EXACT
    assert np.abs(run.forward(IDS[99:100]).numpy() - want[99]).max() < EXACT


@pytest.mark.parametrize("chunk", [1, 7, 64, 256])
def test_chunks_do_not_matter(tiny_plan: MakePlan, oracle: Any, chunk: int) -> None:
    plan, weights = tiny_plan("gemma2")
    want = oracle(plan, weights).logits(IDS[:129])
    run = exact(plan, weights, chunk=chunk)
    last = run.forward(IDS[:129])
    assert last.shape == (1, plan.vocab_size) and last.dtype == torch.float32
    assert np.abs(last.numpy() - want[-1]).max() < EXACT
    run.reset()
    every = run.forward(IDS[:129], logits="all")
    assert every.shape == (129, plan.vocab_size) and np.abs(every.numpy() - want).max() < EXACT


@pytest.mark.parametrize("spec", ["int4/g32", "int8/row", "int3/g32+z", "nf4/g64", "int4/g32:bf16", "e4m3fn/row"])
@pytest.mark.parametrize("name", ["llama", "llama-untied-odd"])
def test_quantized_weights_in_exact_compute(tiny_plan: MakePlan, oracle: Any, name: str, spec: str) -> None:
    """With exact activations a quantized model is the model of its dequantized weights."""
    plan, weights = tiny_plan(name)
    _quantize(weights, spec)
    want = oracle(plan, weights).logits(IDS[:80])
    run = exact(plan, weights)
    assert np.abs(run.forward(IDS[:70], logits="all").numpy() - want[:70]).max() < EXACT
    for i in range(70, 80):
        assert np.abs(run.forward([IDS[i]]).numpy() - want[i]).max() < EXACT


@pytest.mark.parametrize("spec", ["int4/g32", "int8/row", "nf4/g64"])
@pytest.mark.parametrize("act", ["int8/g32", "int8/g128", "int8/row"])
def test_int8_activations_stay_close_and_prefill_equals_decode(
    tiny_plan: MakePlan, oracle: Any, spec: str, act: str
) -> None:
    """An input is rounded to steps of its group's largest / 127, at most about 3.5 sigma: rms 3.5 / 127 / sqrt 12 = 0.8 % of a
    linear layer's output, independent in each of the 11 layers between embedding and logits that add to the residual or
    come after it: below sqrt(11) * 0.8 % = 2.6 % of the logits' spread, doubled for what attention and gates amplify."""
    plan, weights = tiny_plan("llama")
    _quantize(weights, spec)
    want = oracle(plan, weights).logits(IDS[:80])
    run = exact(plan, weights, act=act)
    got = run.forward(IDS[:80], logits="all").numpy()
    error = np.sqrt(((got - want) ** 2).mean()) / want.std()
    assert 0 < error < 0.052
    other = exact(plan, weights, act=act)
    steps = torch.cat([other.forward([i]) for i in IDS[:80]]).numpy()
    # The integer sums are the same; a last-bit difference of an input may move one code by one step.
    assert np.sqrt(((got - steps) ** 2).mean()) / want.std() < 0.02


def _static(plan: Plan, scale: float) -> Plan:
    """The plan with int8/static scales, one and a half times as large at every second operator."""
    ops = list(plan.ops)
    for number, op in enumerate(ops):
        if op.kind == "linear":
            attrs = {**op.attrs, "act": "int8/static", "input_scale": scale * (1 + number % 2 / 2)}
            ops[number] = replace(op, attrs=attrs)
    return replace(plan, ops=tuple(ops))


@pytest.mark.parametrize("spec", ["int4/g32", "int8/row", "nf4/g64", "e4m3fn/row"])
def test_static_activations_are_those_of_the_reference(tiny_plan: MakePlan, isa: str, spec: str) -> None:
    """One scale a layer, which most inputs keep below and some do not: codes are the same, sums of the layers between them nearly."""
    plan, weights = tiny_plan("llama")
    _quantize(weights, spec)
    plan = _static(plan, 1.5 / 127)
    got = exact(plan, weights, act="auto").forward(IDS[:60], logits="all")
    if spec == "e4m3fn/row":  # without an integer form: the kernels multiply it with x as it is
        assert torch.equal(got, exact(plan, weights).forward(IDS[:60], logits="all"))
        return
    want = TorchExecutor(plan, weights, act=StaticFormat.parse("int8/static")).forward(IDS[:60], "all")
    # an input at the middle of two codes may take either, a step of a hundredth of it; nf4's levels are of 16 bits
    assert (got - want).std() < 0.02 * want.std()
    dynamic = exact(plan, weights, act="int8/row").forward(IDS[:60], logits="all")
    assert (got - want).std() < 0.3 * (dynamic - want).std()


def test_static_activations_do_not_depend_on_threads_and_hardly_on_chunks(tiny_plan: MakePlan) -> None:
    plan, weights = tiny_plan("llama")
    _quantize(weights, "int8/row")
    plan = _static(plan, 1.5 / 127)
    first = exact(plan, weights, 1, act="int8/static").forward(IDS[:60], logits="all")
    for threads, chunk in ((2, 256), (3, 7), (1, 16)):
        run = exact(plan, weights, threads, act="int8/static", chunk=chunk)
        again = run.forward(IDS[:60], logits="all")
        assert torch.equal(again, first) if chunk == 256 else (again - first).std() < 0.02 * first.std()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores of threads are set on Linux only")
@pytest.mark.parametrize("name", ["llama", "mistral", "wide"])
def test_results_do_not_depend_on_how_many_threads_take_part(tiny_plan: MakePlan, name: str) -> None:
    """Three threads on one core wait for each other until one of them sits out."""
    plan, weights = tiny_plan(name)

    def logits(run: NativeExecutor) -> torch.Tensor:
        return torch.cat([run.forward(IDS[:150], logits="all"), *(run.forward([i]) for i in IDS[150:])])

    want, allowed = logits(exact(plan, weights, 3, chunk=64)), os.sched_getaffinity(0)
    fewer = 0
    try:
        os.sched_setaffinity(0, {min(allowed)})
        run = exact(plan, weights, 3, chunk=64)
        for _ in range(200):
            fewer += run.ranks < 3
            run.reset()
            assert torch.equal(logits(run), want)
            if fewer == 2:  # they began with fewer, whatever a trial brought
                break
    finally:
        os.sched_setaffinity(0, allowed)
    assert fewer == 2


def test_static_activations_need_a_scale_everywhere(tiny_plan: MakePlan) -> None:
    plan, weights = tiny_plan("llama")
    _quantize(weights, "int8/row")
    with pytest.raises(AnybitError, match=r"has no scale for int8/static activations \(none\)"):
        exact(plan, weights, act="int8/static")
    plan = _static(plan, 0.01)
    last = len(plan.ops) - 1 - next(i for i, op in enumerate(reversed(plan.ops)) if op.kind == "linear")
    bare = replace(plan, ops=(*plan.ops[:last], replace(plan.ops[last], attrs={}), *plan.ops[last + 1 :]))
    with pytest.raises(AnybitError, match=f"{plan.ops[last].weights[0].name} has no scale"):
        exact(bare, weights, act="int8/static")


def test_levels_of_codebooks(tiny_plan: MakePlan) -> None:
    plan, weights = tiny_plan("llama")
    _quantize(weights, "nf4/g32")
    exact_levels, rounded = exact(plan, weights).forward(IDS[:9]), exact(plan, weights, levels="int8").forward(IDS[:9])
    # levels are off by 0.23 % (rms) of a group's largest, its weights 0.4 of it: 0.6 % a layer, sqrt(11) layers, and what attention adds
    assert 0 < (exact_levels - rounded).std() < 0.1 * exact_levels.std()
    plan, weights = tiny_plan("llama")
    _quantize(weights, "int4/g32")  # which has no levels
    assert torch.equal(exact(plan, weights).forward(IDS[:9]), exact(plan, weights, levels="int8").forward(IDS[:9]))
    with pytest.raises(AnybitError, match="levels of codebooks are exact or int8; got 'int9'"):
        exact(plan, weights, levels="int9")


def test_dense_weights_meet_exact_activations(tiny_plan: MakePlan) -> None:
    plan, weights = tiny_plan("llama")
    want = exact(plan, weights).forward(IDS[:20])
    assert torch.equal(NativeExecutor(plan, weights, kv="fp32", threads=2).forward(IDS[:20]), want)


def _quantize(weights: Any, spec: str) -> None:
    for name, w in weights.tensors.items():
        if w.ndim == 2:
            weights.tensors[name] = quantize(w, TensorFormat.parse(spec))


def test_truncate_then_continue_equals_a_fresh_run(tiny_plan: MakePlan, family: Any) -> None:
    plan, weights = tiny_plan(family)
    run = exact(plan, weights)
    run.forward(IDS[:100])
    run.forward(IDS[150:200])  # another continuation, to be forgotten
    run.truncate(100)
    assert run.position == 100
    again = run.forward(IDS[100:130], logits="all")
    fresh = exact(plan, weights)
    fresh.forward(IDS[:100])
    assert torch.equal(again, fresh.forward(IDS[100:130], logits="all"))
    run.reset()
    assert run.position == 0 and run.cache_bytes == 0
    fresh.reset()
    assert torch.equal(run.forward(IDS[:70]), fresh.forward(IDS[:70]))


def test_same_thread_count_gives_the_same_bits(tiny_plan: MakePlan) -> None:
    plan, weights = tiny_plan("qwen2")

    def logits() -> torch.Tensor:
        run = NativeExecutor(plan, weights, kv="int8", threads=2)
        return torch.cat([run.forward(IDS[:90], logits="all"), *(run.forward([i]) for i in IDS[90:120])])

    assert torch.equal(logits(), logits())


@pytest.mark.parametrize(("kv", "step"), [("fp16", 2.0**-11), ("int8", 2.5 / 127)])
def test_smaller_caches_stay_close(tiny_plan: MakePlan, family: Any, kv: str, step: float) -> None:
    """A value is rounded to `step` of itself (fp16) or of the typical size of its head's largest, 2.5 sigma (int8): an error of
    step / sqrt 12 rms in keys and in values of each of two layers, so about step in all; three times that is allowed.  And the
    error is not zero, so the cache is really used."""
    plan, weights = tiny_plan(family)
    want = exact(plan, weights).forward(IDS, logits="all")
    got = exact(plan, weights, kv=kv).forward(IDS, logits="all")
    assert 0 < float((got - want).square().mean().sqrt() / want.std()) < 3 * step


def test_greedy_tokens_equal_the_oracle_for_200_tokens(tiny_plan: MakePlan, oracle: Any) -> None:
    """Greedy choices agree wherever float64 itself tells the two best tokens apart by more than float32 rounding."""
    plan, weights = tiny_plan("llama")
    run = exact(plan, weights)
    ids = [1, 2, 3]
    token = run.next(ids, Sampling())
    while len(ids) < 203:
        ids.append(token)
        token = run.next([token], Sampling())
    logits = oracle(plan, weights).logits(ids)
    for i in range(2, 202):
        best = np.sort(logits[i])[-2:]
        assert ids[i + 1] == int(logits[i].argmax()) or best[1] - best[0] < EXACT


def test_next_is_forward_and_sample(tiny_plan: MakePlan) -> None:
    plan, weights = tiny_plan("llama")
    run, other = exact(plan, weights), exact(plan, weights)
    setting = Sampling(temperature=1.0, top_k=50, seed=7, repetition_penalty=1.2)
    ids = IDS[:10]
    for _ in range(20):
        token = run.next(ids, setting, history=IDS[:10])
        logits = other.forward(ids)[0].numpy()
        assert token == sample(logits, setting, IDS[:10], counter=other.position)
        ids = [token]


def test_tied_and_repeated_weights_are_packed_once(tiny_plan: MakePlan) -> None:
    plan, weights = tiny_plan("llama")
    seen: list[tuple[int, int, str]] = []
    run = NativeExecutor(plan, weights, act=None, threads=1, progress=lambda *call: seen.append(call))
    assert [c[0] for c in seen] == list(range(1, len(seen) + 1)) and {c[1] for c in seen} == {len(seen)}
    assert sorted(c[2] for c in seen) == sorted(weights.tensors)
    matrices = [t for t in weights.tensors.values() if t.ndim == 2]
    assert run.weight_bytes >= 4 * sum(t.numel() for t in matrices)
    assert run.weight_bytes < 4.4 * sum(t.numel() for t in matrices)


@pytest.mark.usefixtures("two_shared_threads")
def test_a_token_of_a_tiny_model_takes_one_thread_and_a_prompt_all(tiny_plan: MakePlan) -> None:
    plan, weights = tiny_plan("llama")
    told, run = NativeExecutor(plan, weights, threads=3), NativeExecutor(plan, weights)
    assert told.threads == 3 and run.threads == 2
    deadline, shared = time.monotonic() + 60, False
    while not shared and time.monotonic() < deadline:  # on a busy machine the second thread may sit out for a while
        for ids in (IDS, IDS[:1]):
            run.reset(), told.reset()
            assert torch.equal(run.forward(ids), told.forward(ids))
            shared |= run.ranks == 2
    assert shared and run.ranks == 1


def test_profile_counts_every_operator(tiny_plan: MakePlan) -> None:
    plan, weights = tiny_plan("llama")
    run = exact(plan, weights)
    run.forward(IDS[:5])
    assert run.profile() == {}
    run.enable_profile()
    run.forward([1])
    profile = run.profile()
    assert profile["linear"][1] == sum(op.kind == "linear" for op in plan.ops)
    assert profile["attention"][1] >= 2 and profile["wait"][1] >= 2
    assert all(microseconds >= 0 for microseconds, _ in profile.values())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kv": "int4"}, "KV cache.*int4"),
        ({"threads": 0}, "threads"),
        ({"act": "int4/g128"}, "activations.*int4/g128"),
        ({"act": "int8/g100"}, "multiple of 32"),
        ({"chunk": 0}, "chunk"),
    ],
)
def test_impossible_options_are_refused(tiny_plan: MakePlan, options: dict[str, Any], words: str) -> None:
    with pytest.raises(AnybitError, match=words):
        NativeExecutor(*tiny_plan("llama"), **options)


def test_impossible_inputs_are_refused(tiny_plan: MakePlan) -> None:
    run = exact(*tiny_plan("llama"))
    for call, words in (
        (lambda: run.forward([]), "no tokens"),
        (lambda: run.forward([288]), "288 is outside the vocabulary of 288"),
        (lambda: run.forward([3, -1]), "-1 is outside"),
        (lambda: run.forward([0] * 1025), "1025 more tokens do not fit: 0 of the model's 1024"),
        (lambda: run.truncate(1), "holds 0"),
        (lambda: run.truncate(-1), "truncate"),
        (lambda: run.forward([1], logits="first"), "'last' or 'all'"),
    ):
        with pytest.raises(AnybitError, match=words):
            call()
    assert run.position == 0
    assert run.forward([0] * 1024).shape == (1, 288)
    with pytest.raises(AnybitError, match="1024 of the model's 1024"):
        run.forward([0])


def test_a_plan_of_wrong_widths_is_refused(tiny_plan: MakePlan) -> None:
    plan, weights = tiny_plan("llama")
    wrong = [Op(op.kind, ("k", "q", "v"), op.output, (), op.attrs) if op.kind == "attention" else op for op in plan.ops]
    broken = Plan(tuple(wrong), plan.blocks, plan.buffers, plan.constants, 288, 2, 2, 16, 64)
    with pytest.raises(UnsupportedModelError, match="attention"):
        NativeExecutor(broken, weights, act=None, threads=1)
