"""The native executor against the reference `TorchExecutor`, on random models of every family and on real ones.

In exact compute both round the same float32 formulas in different orders: logits of order 1 to 10 agree to some thousand ulp.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("anybit._native", reason="the native module is not built")

from anybit import models
from anybit.formats import TensorFormat
from anybit.models import Model, TorchExecutor
from anybit.runtime.executor import NativeExecutor
from anybit.runtime.sampling import Sampling
from anybit.tensors import QTensor, quantize

BASE: dict[str, Any] = {
    "vocab_size": 131,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "pad_token_id": None,
}
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 24}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {"attention_bias": True, "mlp_bias": True}),
    "llama-yarn": ("Llama", {"rope_parameters": YARN, "tie_word_embeddings": True, "hidden_act": "gelu"}),
    "mistral": ("Mistral", {"sliding_window": 30, "head_dim": 14}),
    "qwen2": ("Qwen2", {"use_sliding_window": True, "sliding_window": 30, "max_window_layers": 1}),
    "qwen3": ("Qwen3", {"head_dim": 10}),
    "phi3": ("Phi3", {"sliding_window": 30, "original_max_position_embeddings": 256}),
    "gemma2": ("Gemma2", {"head_dim": 12, "sliding_window": 30, "query_pre_attn_scalar": 20}),
    "gemma3": ("Gemma3Text", {"head_dim": 12, "sliding_window": 30, "query_pre_attn_scalar": 17}),
}


@pytest.fixture(scope="module", params=FAMILIES)
def random_model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    import transformers

    kind, extra = FAMILIES[request.param]
    config = getattr(transformers, f"{kind}Config")(**(BASE | extra))
    torch.manual_seed(0)
    network = getattr(transformers, f"{kind.removesuffix('Text')}ForCausalLM")(config).float()
    with torch.no_grad():
        for name, value in network.named_parameters():
            center = 1.0 if "norm" in name and "gemma" not in kind.lower() else 0.0
            value.copy_(center + torch.randn(value.shape) * (0.2 if value.ndim == 1 else 1.5 / value.shape[-1] ** 0.5))
    path = tmp_path_factory.mktemp(kind)
    network.save_pretrained(path)
    return models.load(path)


def native(model: Model, **options: Any) -> NativeExecutor:
    return NativeExecutor(model.plan, model.weights, **({"act": None, "kv": "fp32", "threads": 2} | options))


IDS = [int(i) for i in np.random.default_rng(5).integers(0, 131, 120)]


def test_logits_of_random_models(random_model: Model) -> None:
    want = TorchExecutor(random_model.plan, random_model.weights).forward(IDS, logits="all")
    run = native(random_model)
    got = torch.cat([run.forward(IDS[:90], logits="all"), *(run.forward([i]) for i in IDS[90:])])
    assert float((got - want).abs().max()) < 1e-4 * float(want.abs().max())


def test_rounded_activations_are_the_reference_s(random_model: Model) -> None:
    """Both round inputs of quantized layers to int8 a row.  A last-bit difference in an input may move a code by one step and
    spread from there, so the two agree mostly to the bit and nearly always much better than either with exact activations."""

    class Quantized:
        def resolve(self, ref: models.WeightRef) -> torch.Tensor | QTensor:
            w = random_model.weights.resolve(ref)
            return quantize(w, TensorFormat.parse("int8/row")) if isinstance(w, torch.Tensor) and w.ndim == 2 else w

    fmt = TensorFormat.parse("int8/row")
    exact = TorchExecutor(random_model.plan, Quantized()).forward(IDS, logits="all")
    want = TorchExecutor(random_model.plan, Quantized(), act=fmt).forward(IDS, logits="all")
    got = NativeExecutor(random_model.plan, Quantized(), act=fmt, kv="fp32", threads=2).forward(IDS, logits="all")
    assert 0 < float((got - want).abs().median()) < 0.2 * float((want - exact).abs().median())


def _prompts(model: Model, text: str, count: int, length: int) -> list[list[int]]:
    ids = model.tokenizer.encode(text[: 40 * count * length])
    start = [] if model.tokenizer.bos is None else [model.tokenizer.bos]
    step = (len(ids) - length) // count
    return [start + ids[i * step : i * step + length - len(start) - i % 7] for i in range(count)]


def _greedy_agrees(model: Model, prompts: list[list[int]], new: int) -> None:
    """By induction over prefixes: the reference's choice after each prefix of what the native executor wrote is what it wrote."""
    run, reference = native(model, threads=1), TorchExecutor(model.plan, model.weights)
    for prompt in prompts:
        run.reset()
        ids, token = list(prompt), run.next(prompt, Sampling())
        for _ in range(new - 1):
            ids.append(token)
            token = run.next([token], Sampling())
        reference.reset()
        chosen = reference.forward(ids, logits="all").argmax(-1).tolist()
        assert chosen[len(prompt) - 1 :] == [*ids[len(prompt) :], token]


def test_greedy_tokens_of_random_models(random_model: Model) -> None:
    prompts = [IDS[i : i + 8] for i in range(4)]
    _greedy_agrees(random_model, prompts, 200)


def test_greedy_tokens_of_a_real_model(shared_data: Path) -> None:
    model = models.load(shared_data / "stories260k")
    text = (shared_data / "text" / "tinystories_train_excerpt.txt").read_text(encoding="utf-8")
    _greedy_agrees(model, _prompts(model, text, 20, 24), 200)


def test_greedy_tokens_of_the_bundled_model(shared_data: Path) -> None:
    if "anybit-tiny" not in models.bundled():
        pytest.skip("anybit-tiny is not bundled in this tree")
    model = models.load("anybit-tiny")
    text = (shared_data / "text" / "books_valid.txt").read_text(encoding="utf-8")
    _greedy_agrees(model, _prompts(model, text, 20, 24), 200)


@pytest.fixture
def stories(shared_data: Path) -> Callable[[], tuple[Model, list[int]]]:
    def load() -> tuple[Model, list[int]]:
        model = models.load(shared_data / "stories260k")
        text = (shared_data / "text" / "tinystories_train_excerpt.txt").read_text(encoding="utf-8")
        return model, [1, *model.tokenizer.encode(text[:6000])][:500]

    return load


def _nll(logits: torch.Tensor, ids: list[int]) -> float:
    return float(torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(ids[1:])))


@pytest.mark.parametrize(
    ("options", "bound"),
    [({}, 1e-5), ({"kv": "fp16"}, 1e-3), ({"kv": "int8"}, 2e-2), ({"act": "int8/g128"}, 1e-5)],
    ids=str,
)
def test_loss_of_a_real_model(
    stories: Callable[[], tuple[Model, list[int]]], options: dict[str, Any], bound: float
) -> None:
    """Nats a token of real text: what each saving costs.  Dense weights meet exact activations, so `act` changes nothing."""
    model, ids = stories()
    want = _nll(TorchExecutor(model.plan, model.weights).forward(ids, logits="all"), ids)
    assert 1.0 < want < 2.2
    assert abs(_nll(native(model, **options).forward(ids, logits="all"), ids) - want) < bound
