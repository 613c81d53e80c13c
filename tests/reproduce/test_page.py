"""The page of systems: 62 rows, generated; the committed page is the generated one."""

from pathlib import Path

from anybit.reproduce.catalogue import catalogue
from anybit.reproduce.experiment import Check, Experiment
from anybit.reproduce.page import NOT_RUN, systems_page
from anybit.reproduce.result import judge, store

DOCS = Path(__file__).parents[2] / "docs"


def rows(page):
    return [[cell.strip() for cell in line.split(" | ")] for line in page.splitlines() if line.startswith("| ")][2:]


def test_the_committed_page_is_the_generated_one():
    assert (DOCS / "systems.md").read_text(encoding="utf-8") == systems_page(DOCS / "results")


def test_every_stored_result_belongs_to_a_system():
    known = {f"{system.name}.json" for system in catalogue()}
    assert {path.name for path in (DOCS / "results").glob("*.json")} <= known


def test_empty_rows_say_so(tmp_path):
    page = systems_page(tmp_path / "results")
    table = rows(page)
    assert [row[0].strip("| ") for row in table] == [str(n) for n in range(1, 63)]
    assert all(row[3] == NOT_RUN and row[4] == "" for row in table)
    assert "0 of 62 run" in page


def test_a_result_fills_its_row(tmp_path):
    experiment = Experiment(16, "hawq_v2", "c", "s", (Check("", "x", ">", 1),), lambda c, q: {}, {"gain": "x"})
    store(tmp_path / "results", judge(experiment, {"x": 2.34567}, quick=True, seconds=0, threads=1))
    page = systems_page(tmp_path / "results")
    row = rows(page)[15]
    assert row[3] == "reproduced (1 of 1 checks, quick)"
    assert row[4] == "gain 2.346"
    assert "(results/hawq_v2.json)" in row[5]
    assert "1 of 62 run: 1 reproduced, 0 partly, 0 not reproduced." in page
