"""`docs/systems.md`: one row for each of the 62 systems, generated from the catalogue and the stored results."""

from __future__ import annotations

from pathlib import Path

from anybit.reproduce.catalogue import catalogue
from anybit.reproduce.result import Result, load
from anybit.reproduce.tables import markdown

NOT_RUN = "not yet run"

INTRODUCTION = """\
# The 62 systems

One row a published system: what it claims, and what our miniature experiment found. A verdict follows from the checks an experiment
declares: *reproduced* where all pass, *partly* where some do, *not reproduced* where none does. Rows without an experiment say so.
This page is generated from `docs/results/`; `anybit reproduce run NAME` runs an experiment and renews it.
"""


def systems_page(results: Path) -> str:
    """The whole page for the results stored in a folder; a result is linked relative to the folder above `results`."""
    found = {system.name: load(results, system.name) for system in catalogue()}
    rows = [
        [
            str(system.number),
            f"{system.name}: {system.title} ({system.source})",
            system.claim,
            verdict_text(found[system.name]),
            figures_text(found[system.name]),
            f"[result]({results.name}/{system.name}.json)" if found[system.name] else "",
        ]
        for system in catalogue()
    ]
    run = [result for result in found.values() if result is not None]
    counts = ", ".join(f"{sum(r.verdict == v for r in run)} {v}" for v in ("reproduced", "partly", "not reproduced"))
    table = markdown(["number", "system", "claim", "verdict", "key figures", "details"], rows)
    return f"{INTRODUCTION}\n{len(run)} of {len(found)} run: {counts}.\n\n{table}"


def verdict_text(result: Result | None) -> str:
    """The verdict, with the share of checks that passed, and whether it was a quick run."""
    if result is None:
        return NOT_RUN
    passed = sum(check.passed for check in result.checks)
    return f"{result.verdict} ({passed} of {len(result.checks)} checks{', quick' if result.quick else ''})"


def figures_text(result: Result | None) -> str:
    """The key figures as `label value; label value`."""
    if result is None:
        return ""
    return "; ".join(f"{label} {value:.4g}" for label, value in result.key_figures.items() if value is not None)
