"""The papers in miniature: each system's claim, an experiment that tests it, and a verdict computed from the figures.

from anybit import reproduce
reproduce.catalogue()                       # the 62 systems
reproduce.listing()                         # [{"number", "name", "verdict"}], verdict "not yet run" where there is no result
reproduce.run("hawq_v2", quick=True)        # a Result; stored under docs/results/, docs/systems.md renewed
reproduce.systems_page()                    # the text of docs/systems.md
"""

from __future__ import annotations

from anybit.reproduce.catalogue import System, catalogue, find
from anybit.reproduce.experiment import Check, Context, Experiment, Outcome, Progress, verdict
from anybit.reproduce.result import Result
from anybit.reproduce.runner import listing, results_folder, run, systems_page

__all__ = [
    "Check",
    "Context",
    "Experiment",
    "Outcome",
    "Progress",
    "Result",
    "System",
    "catalogue",
    "find",
    "listing",
    "results_folder",
    "run",
    "systems_page",
    "verdict",
]
