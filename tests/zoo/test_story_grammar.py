"""Composed stories are whole: nothing unfilled, the hero stays, and what is named early comes back."""

import re

import pytest

from anybit.zoo.story_grammar import PLOTS, Teller, an, compose
from anybit.zoo.story_words import BOYS, CREATURES, GIRLS, MEETINGS, THINGS, TREATS

SEEDS = range(400)
NAME = re.compile(r"\b(?:called|named|whose name was|name was) ([A-Z][a-z]+)")


def name_of(story):
    found = NAME.search(story)
    assert found, story
    return found[1]


def test_the_seed_decides_the_story():
    assert compose(7) == compose(7)
    assert len({compose(seed) for seed in SEEDS}) == len(SEEDS)


def test_stories_are_whole():
    for seed in SEEDS:
        story = compose(seed)
        assert not re.search(r"[{}]|  | [.,]|\ba [aeiou]", story), seed
        assert 110 <= len(story.split()) <= 260, seed
        assert len(story.split("\n")) >= 5, seed
        assert story.endswith((".", "!")), seed
        assert story.count(name_of(story)) >= 3, seed


def test_one_hero_and_one_gender_a_story():
    for seed in SEEDS:
        story = compose(seed).replace("Will you", "")
        assert {n for n in (*BOYS, *GIRLS) if re.search(rf"\b{n}\b", story)} == {name_of(story)}
        he = "She" if name_of(story) in GIRLS else "He"
        assert not re.search(rf"\b{'He' if he == 'She' else 'She'}\b", story)


@pytest.mark.parametrize("plot", PLOTS, ids=lambda plot: plot.__name__)
def test_what_is_named_early_comes_back(plot):
    for seed in range(60):
        lines = plot(Teller(seed))
        first, last = " ".join(lines[:2]), " ".join(lines[-2:])
        words = {
            "lost_thing": THINGS,
            "kindness_repaid": [f" {creature.name}" for creature in CREATURES],
            "learning": MEETINGS,
            "sharing": TREATS,
            "lost_in_the_storm": ["lantern", "torch", "candle", "lamp", "snow", "storm", "fog", "rain"],
        }[plot.__name__]
        if plot.__name__ == "learning":
            first = lines[2]
        assert {word for word in words if word in first} & {word for word in words if word in last}, lines


def test_articles():
    assert [an(noun) for noun in ("apple pie", "owl", "red ball", "umbrella")] == [
        "an apple pie", "an owl", "a red ball", "an umbrella",
    ]  # fmt: skip
