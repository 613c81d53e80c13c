"""Pareto fronts against brute force; Markdown that reads back; a PNG that is one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anybit.errors import AnybitError
from anybit.reproduce.bootstrap import Interval
from anybit.reproduce.study import Study, run_study
from anybit.reproduce.tables import Point, markdown, pareto, pareto_table, plot, study_table


def beats(a, b):
    return a.cost <= b.cost and a.loss <= b.loss and (a.cost, a.loss) != (b.cost, b.loss)


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=12))
def test_front_is_what_nothing_beats(pairs):
    points = [Point(str(i), *pair) for i, pair in enumerate(pairs)]
    expected = {p.name for p in points if not any(beats(q, p) for q in points)}
    front = pareto(points)
    assert {p.name for p in front} == expected
    assert [p.cost for p in front] == sorted(p.cost for p in front)


def test_markdown():
    text = markdown(["name", "loss"], [["a|b", 1.23456], ["c", Interval(2.0, 1.5, 2.5)], ["d", None]])
    assert text == "| name | loss |\n| --- | --: |\n| a\\|b | 1.235 |\n| c | 2 [1.5, 2.5] |\n| d |  |\n"


def test_markdown_refuses_ragged_rows():
    with pytest.raises(AnybitError, match="2 cells; got 1"):
        markdown(["a", "b"], [["x"]])


def test_tables_of_a_study():
    results = run_study(Study("toy", ["a", "b"], [0, 1, 2], lambda c, s: {"loss": s + (c == "b")}))
    lines = study_table(results, ["loss"]).splitlines()
    assert lines[2].startswith("| a | 1 [") and lines[3].startswith("| b | 2 [")
    table = pareto_table([Point("dear", 2, 1), Point("cheap", 1, 3), Point("bad", 2, 2)], "bytes", "loss")
    assert [line.split(" | ")[-1].strip(" |") for line in table.splitlines()[2:]] == ["yes", "yes", ""]


def test_plot_is_a_png_with_ink(tmp_path):
    from matplotlib.image import imread

    path = tmp_path / "folder" / "plot.png"
    plot(path, {"a": [(1.0, Interval(2, 1, 3)), (2.0, Interval(1, 0.5, 1.2))]}, "bits", "loss", log_y=True)
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert np.asarray(imread(path))[..., :3].min() < 0.5
    assert [p.name for p in path.parent.iterdir()] == ["plot.png"]
    with pytest.raises(AnybitError, match="nothing to plot"):
        plot(path, {"a": []}, "x", "y")
