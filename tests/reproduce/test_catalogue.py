"""The catalogue: 62 complete rows with names that can be typed and files that can be named after them."""

import re

import pytest

from anybit.errors import AnybitError
from anybit.reproduce.catalogue import catalogue, find

ROOMS = [
    "formats",
    "tensors",
    "ops",
    "nn",
    "transforms",
    "quantize",
    "allocate",
    "train",
    "models",
    "runtime",
    "hardware",
    "workloads",
]


def test_all_62_in_order():
    assert [system.number for system in catalogue()] == list(range(1, 63))


def test_rows_are_complete_and_distinct():
    for column in ("name", "title", "claim"):
        values = [getattr(system, column) for system in catalogue()]
        assert len(set(values)) == 62
    for system in catalogue():
        assert re.fullmatch(r"[a-z][a-z0-9_]*", system.name)
        assert system.room in ROOMS
        assert system.source.strip()
        assert system.claim.endswith(".") and system.claim.count(". ") == 0, f"{system.name}: one sentence"
        arxiv = re.search(r"arXiv (\S+?)(,|$)", system.source)
        assert arxiv is None or re.fullmatch(r"\d{4}\.\d{5}", arxiv[1]), system.source


@pytest.mark.parametrize("asked", ["hawq_v2", "hawq-v2", "HAWQ_V2", "16"])
def test_find(asked):
    assert find(asked).number == 16


def test_find_suggests():
    with pytest.raises(AnybitError, match=r"no system called 'marlyn'; did you mean marlin"):
        find("marlyn")
    with pytest.raises(AnybitError, match="anybit reproduce list"):
        find("63")
