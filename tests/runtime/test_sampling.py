"""Sampling: the distribution against plain float64 definitions, the draws against the distribution (chi-square)."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from anybit.errors import AnybitError
from anybit.runtime.sampling import DEFAULT, Sampling, probabilities, sample, suggested

rng = np.random.default_rng(0)
LOGITS = rng.normal(size=1000).astype(np.float32) * 2


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x.astype(np.float64) - x.max())
    return e / e.sum()


def expected(logits: np.ndarray, s: Sampling, history: tuple[int, ...] = ()) -> np.ndarray:
    """transformers' logits processors, in their order, in float64."""
    x = logits.astype(np.float64).copy()
    for i in set(history):
        x[i] = x[i] / s.repetition_penalty if x[i] > 0 else x[i] * s.repetition_penalty
    if s.temperature == 0:
        return np.eye(len(x))[int(np.argmax(x))]
    x /= s.temperature
    order = np.argsort(-x, kind="stable")
    if s.top_k:
        x[order[s.top_k :]] = -np.inf
    p = softmax(x)
    if s.top_p < 1:
        cumulative = np.cumsum(p[order])
        keep = np.concatenate([[True], cumulative[:-1] < s.top_p])
        p[order[~keep]] = 0
    if s.min_p:
        p[p < s.min_p * p.max()] = 0
    return p / p.sum()


SETTINGS = [
    Sampling(),
    Sampling(temperature=1.0),
    Sampling(temperature=0.7, top_k=40),
    Sampling(temperature=1.3, top_k=1),
    Sampling(temperature=1.0, top_k=5000),
    Sampling(temperature=1.0, top_p=0.9),
    Sampling(temperature=3.0, top_p=0.999),
    Sampling(temperature=1.0, top_p=1e-6),
    Sampling(temperature=1.0, min_p=0.1),
    Sampling(temperature=1.0, min_p=1.0),
    Sampling(temperature=0.9, top_k=300, top_p=0.8, min_p=0.02),
    Sampling(temperature=0.9, repetition_penalty=1.3),
    Sampling(repetition_penalty=50.0),
]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_distribution_is_the_defined_one(setting: Sampling) -> None:
    history = tuple(int(i) for i in np.argsort(-LOGITS)[[0, 2, 5, 0]])
    got = probabilities(LOGITS, setting, history)
    want = expected(LOGITS, setting, history)
    assert (got > 0).sum() == (want > 0).sum()
    assert np.allclose(got, want, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("setting", [s for s in SETTINGS if s.temperature > 0], ids=str)
def test_draws_follow_the_distribution(setting: Sampling) -> None:
    logits = LOGITS[:30]
    p = expected(logits, setting)
    draws = 20_000
    counts = np.bincount([sample(logits, setting, counter=i) for i in range(draws)], minlength=30)
    assert counts[p == 0].sum() == 0
    # pool cells that expect fewer than 5, as the chi-square approximation needs
    big = p * draws >= 5
    cells = np.append(counts[big], counts[~big].sum()), np.append(p[big], p[~big].sum()) * draws
    observed, wanted = (c[cells[1] > 0] for c in cells)
    if len(observed) > 1:
        assert stats.chisquare(observed, wanted * observed.sum() / wanted.sum()).pvalue > 1e-4
    else:
        assert observed[0] == draws


def test_same_seed_same_tokens_other_seed_others() -> None:
    def run(seed: int) -> list[int]:
        return [sample(LOGITS, Sampling(temperature=1.0, seed=seed), counter=i) for i in range(50)]

    assert run(1) == run(1) != run(2)


def test_counters_are_independent() -> None:
    """Neighbouring counters and neighbouring seeds give uncorrelated uniforms: a flat 2-D histogram."""
    flat = np.zeros(16, np.float32)
    for pairs in (
        [
            (sample(flat, Sampling(temperature=1.0), counter=i), sample(flat, Sampling(temperature=1.0), counter=i + 1))
            for i in range(0, 20_000, 2)
        ],
        [
            (
                sample(flat, Sampling(temperature=1.0, seed=2 * i), counter=3),
                sample(flat, Sampling(temperature=1.0, seed=2 * i + 1), counter=3),
            )
            for i in range(10_000)
        ],
    ):
        table = np.zeros((16, 16))
        np.add.at(table, tuple(np.array(pairs).T), 1)
        assert stats.chisquare(table.ravel()).pvalue > 1e-4


def test_greedy_takes_the_first_of_equals_and_ignores_masked() -> None:
    assert sample(np.array([1, 3, 3, 2], np.float32), Sampling()) == 1
    masked = np.array([-np.inf, -5, -np.inf], np.float32)
    assert sample(masked, Sampling()) == 1
    assert all(sample(masked, Sampling(temperature=1.0), counter=i) == 1 for i in range(20))


@pytest.mark.parametrize("setting", [Sampling(), Sampling(temperature=1.0)])
def test_logits_without_a_number_are_refused(setting: Sampling) -> None:
    with pytest.raises(AnybitError, match="logits"):
        sample(np.full(5, np.nan, np.float32), setting)
    with pytest.raises(AnybitError, match="logits"):
        sample(np.array([1, np.nan, 2] if setting.temperature else [np.inf, 1, 2], np.float32), setting)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_k": -1}, "top_k"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.5}, "top_p"),
        ({"min_p": -0.1}, "min_p"),
        ({"min_p": 1.1}, "min_p"),
        ({"repetition_penalty": 0.0}, "repetition_penalty"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**64}, "seed"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, float], words: str) -> None:
    with pytest.raises(AnybitError, match=words):
        Sampling(**options)  # type: ignore[arg-type]


def test_options_a_model_suggests(tmp_path):
    assert suggested(tmp_path) == DEFAULT
    file = tmp_path / "generation_config.json"
    file.write_text('{"bos_token_id": 0, "temperature": 0.2}')
    assert suggested(tmp_path) == DEFAULT  # without do_sample, transformers does not sample either
    file.write_text('{"do_sample": true, "temperature": 0.9, "top_k": 20, "repetition_penalty": 1.1, "top_p": null}')
    assert suggested(tmp_path) == Sampling(temperature=0.9, top_k=20, repetition_penalty=1.1)
    file.write_text('{"do_sample": true, "top_p": 7}')
    with pytest.raises(AnybitError, match=r"generation_config.json.*top_p"):
        suggested(tmp_path)
