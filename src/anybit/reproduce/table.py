"""The experiments that exist: name -> module with a value `EXPERIMENT`. A new paper is one file and one line here."""

from __future__ import annotations

import importlib

from anybit.errors import AnybitError
from anybit.reproduce.catalogue import find
from anybit.reproduce.experiment import Experiment

EXPERIMENTS: dict[str, str] = {
    "abq_llm": "anybit.reproduce.abq_llm",
    "apmm": "anybit.reproduce.apmm",
    "arcquant": "anybit.reproduce.arcquant",
    "ascend_w4a16": "anybit.reproduce.ascend_w4a16",
    "batquant": "anybit.reproduce.batquant",
    "block_quant_outliers": "anybit.reproduce.block_quant_outliers",
    "comet": "anybit.reproduce.comet",
    "direction_preserving": "anybit.reproduce.direction_preserving",
    "flexq": "anybit.reproduce.flexq",
    "fp32_or_death": "anybit.reproduce.fp32_or_death",
    "gradient_ptq": "anybit.reproduce.gradient_ptq",
    "itq3s": "anybit.reproduce.itq3s",
    "l_mul": "anybit.reproduce.l_mul",
    "llm_int8": "anybit.reproduce.llm_int8",
    "marlin": "anybit.reproduce.marlin",
    "matgptq": "anybit.reproduce.matgptq",
    "mixllm": "anybit.reproduce.mixllm",
    "pychop": "anybit.reproduce.pychop",
    "t_mac": "anybit.reproduce.t_mac",
    "tilus": "anybit.reproduce.tilus",
}


def experiment(name: str) -> Experiment:
    """The experiment of a system, loaded on first use.

    Raises AnybitError for an unknown system, and for one that has no experiment yet, naming those that have.
    """
    system = find(name)
    if system.name not in EXPERIMENTS:
        raise AnybitError(
            f"system {system.number} ({system.name}) has no experiment yet; those that have one: "
            f"{', '.join(EXPERIMENTS) or 'none'}"
        )
    found = importlib.import_module(EXPERIMENTS[system.name]).EXPERIMENT
    assert isinstance(found, Experiment), f"{EXPERIMENTS[system.name]}.EXPERIMENT is no Experiment"
    return found
