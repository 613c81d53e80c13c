"""Every experiment in the table loads, names a system of the catalogue, and repeats its claim and source exactly."""

import pytest

from anybit.errors import AnybitError
from anybit.reproduce.catalogue import catalogue, find
from anybit.reproduce.table import EXPERIMENTS, experiment


def test_every_entry_is_the_system_it_says():
    for name in EXPERIMENTS:
        found, system = experiment(name), find(name)
        assert (found.number, found.name, found.claim, found.source) == (
            system.number,
            system.name,
            system.claim,
            system.source,
        )


def test_a_system_without_experiment_is_refused():
    missing = next(system for system in catalogue() if system.name not in EXPERIMENTS)
    with pytest.raises(AnybitError, match=f"{missing.name}.*no experiment yet"):
        experiment(missing.name)


def test_an_unknown_system_is_refused():
    with pytest.raises(AnybitError, match="no system called"):
        experiment("perpetual_motion")
