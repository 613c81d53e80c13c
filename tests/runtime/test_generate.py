"""Generation's loop: stop conditions, streaming, limits; with a scripted executor and a byte tokenizer, so every case is exact."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("anybit._native", reason="the native module is not built")

from anybit.errors import AnybitError
from anybit.runtime.executor import NativeExecutor
from anybit.runtime.generate import generate
from anybit.runtime.sampling import Sampling

END = 256


class Bytes:
    """One token a byte of UTF-8; 256 is a special end token."""

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, token_ids: list[int], skip_special_tokens: bool = False) -> str:
        return bytes(i for i in token_ids if i < END).decode(errors="replace")


class Script:
    """Says `text`, then the end token for ever, whatever the prompt."""

    def __init__(self, text: str) -> None:
        self.tokens, self.position, self.steps, self.inputs = list(text.encode()), 0, 0, list[Sequence[int]]()

    def reset(self) -> None:
        self.position = self.steps = 0

    def forward(self, ids: Sequence[int], logits: str = "last") -> Tensor:
        self.inputs.append(list(ids))
        self.position += len(ids)
        token = self.tokens[self.steps] if self.steps < len(self.tokens) else END
        self.steps += 1
        return torch.nn.functional.one_hot(torch.tensor([token]), 257).float() * 9


def run(text: str, **options: Any) -> tuple[Any, list[str]]:
    pieces: list[str] = []
    options = {"max_new_tokens": 100, "stop_ids": {END}, "stream": pieces.append} | options
    return generate(Script(text), Bytes(), "hello", **options), pieces


def test_runs_to_a_stop_id() -> None:
    out, pieces = run("good day")
    assert out.text == "good day" and "".join(pieces) == out.text and len(pieces) == 8
    assert out.finish_reason == "stop" and bytes(out.ids) == b"good day" and out.prompt_tokens == 5
    assert out.prefill_tokens_per_s > 0 and out.decode_tokens_per_s > 0


def test_length() -> None:
    out, _ = run("good day", max_new_tokens=3)
    assert out.text == "goo" and out.finish_reason == "length"


@pytest.mark.parametrize(
    ("stop", "text"),
    [
        (["day"], "good "),
        (["d d", "day"], "goo"),
        (["xyz"], "good day"),
        (["good"], ""),
        (["y", "ay"], "good d"),
        ([""], "good day"),
    ],
)
def test_stop_texts_are_neither_returned_nor_streamed(stop: list[str], text: str) -> None:
    out, pieces = run("good day", stop=stop)
    assert out.text == text and "".join(pieces) == text and out.finish_reason == "stop"


def test_a_held_back_beginning_of_a_stop_text_is_shown_when_it_was_none() -> None:
    out, pieces = run("a \n\nb\n", stop=["\n\n\n"], max_new_tokens=6)
    assert out.text == "a \n\nb\n" == "".join(pieces)
    assert "\n\nb" in pieces


def test_characters_of_several_tokens_arrive_whole() -> None:
    out, pieces = run("naïve – 你好 🙂!")
    assert pieces == list("naïve – 你好 🙂!") and out.text == "naïve – 你好 🙂!"


def test_a_character_cut_off_by_the_limit_is_marked() -> None:
    out, pieces = run("é", max_new_tokens=1)
    assert out.text == "\ufffd" == "".join(pieces)


def test_only_the_new_token_is_run_after_the_prompt() -> None:
    script = Script("abc")
    generate(script, Bytes(), "xy", max_new_tokens=3)
    assert script.inputs == [[120, 121], [97], [98]]


def test_context_end() -> None:
    out, _ = run("good day", max_positions=7)
    assert out.finish_reason == "context" and out.text == "goo"  # 5 + 2 positions give 3 tokens


def test_ids_without_a_tokenizer() -> None:
    out = generate(Script("abc"), None, [1, 2], max_new_tokens=2)
    assert out.ids == (97, 98) and out.text == ""


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: generate(Script(""), Bytes(), ""), "prompt is empty"),
        (lambda: generate(Script(""), None, "text"), "tokenizer"),
        (lambda: generate(Script(""), None, [1], stop=["a"]), "tokenizer"),
        (lambda: generate(Script(""), Bytes(), "text", max_new_tokens=0), "at least 1"),
        (lambda: generate(Script(""), Bytes(), "text", max_positions=3), "4 tokens; the model has 3"),
    ],
)
def test_bad_input_is_refused(call: Callable[[], object], words: str) -> None:
    with pytest.raises(AnybitError, match=words):
        call()


def test_native_executor_repeats_itself_with_the_same_seed(tiny_plan: Callable[..., tuple[Any, Any]]) -> None:
    plan, weights = tiny_plan("llama")
    executor = NativeExecutor(plan, weights, threads=1)
    setting = Sampling(temperature=1.0, top_p=0.95, seed=5, repetition_penalty=1.1)
    first, second = (generate(executor, None, [1, 2, 3], 40, setting) for _ in range(2))
    other = generate(
        executor, None, [1, 2, 3], 40, Sampling(temperature=1.0, top_p=0.95, seed=6, repetition_penalty=1.1)
    )
    assert first.ids == second.ids != other.ids and len(first.ids) == 40
    assert executor.position == 3 + 39
