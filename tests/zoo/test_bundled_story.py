"""The bundled model tells whole stories: its hero keeps name and gender, and the story comes to its end."""

import re
from dataclasses import replace

import pytest

from anybit import models
from anybit.runtime.executor import NativeExecutor
from anybit.runtime.generate import generate
from anybit.runtime.sampling import suggested
from anybit.zoo.story_words import BOYS, GIRLS

PROMPT = "Once upon a time there was a little"
STORIES = 12
NAME = re.compile(r"\b(?:called|named|name was) ([A-Z][a-z]+)")


@pytest.fixture(scope="module")
def stories():
    model = models.load("anybit-tiny")
    executor = NativeExecutor(model.plan, model.weights)
    sampling = suggested(model.path)
    tokenizer = model.tokenizer
    ids = [tokenizer.bos, *tokenizer.encode(PROMPT)]
    found = []
    for seed in range(STORIES):
        made = generate(executor, tokenizer, ids, 400, replace(sampling, seed=seed), stop_ids={tokenizer.bos})
        found.append((PROMPT + made.text, made.finish_reason))
    return found


def test_stories_end(stories):
    assert sum(reason == "stop" for _, reason in stories) >= 0.8 * STORIES
    assert sum(text.rstrip().endswith((".", "!", '"')) for text, _ in stories) >= 0.8 * STORIES


def test_the_hero_stays(stories):
    kept = 0
    for text, _ in stories:
        found = NAME.search(text)
        lines = text.strip().split("\n")
        if found and len(lines) >= 3:
            name, names = found[1], {n for n in (*BOYS, *GIRLS) if re.search(rf"\b{n}\b", text)}
            kept += name in "\n".join(lines[len(lines) // 2 :]) and names <= {name, "Will"}
    assert kept >= 0.8 * STORIES, f"{kept} of {STORIES}"
