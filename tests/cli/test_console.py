"""One JSON document on stdout and nothing else with --json; people's text on stdout without."""

from __future__ import annotations

import json
import math

import pytest

from anybit.cli.console import Console, Job, plain


def speak(as_json: bool) -> None:
    console = Console(as_json)
    console.say("a line with [brackets] and :smile:")
    console.table(["name", "size"], [["a", "1.5 MB"], ["b", None]], title="sizes", strong=0)
    with console.progress("work") as job:
        job("half", 1, 2)
    console.result({"perplexity": math.nan, "rows": (1, 2)})


def test_json_is_alone_on_stdout(capsys):
    speak(True)
    out, err = capsys.readouterr()
    assert json.loads(out) == {"perplexity": None, "rows": [1, 2]}
    assert "a line with [brackets] and :smile:" in err
    assert "1.5 MB" in err


def test_people_read_stdout_and_see_no_json(capsys):
    speak(False)
    out, _ = capsys.readouterr()
    assert "a line with [brackets] and :smile:" in out
    assert "perplexity" not in out


def test_numeric_columns_stand_right(capsys):
    Console().table(["name", "size"], [["a", "1"], ["b", "1000"]])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].rstrip().endswith("   1")
    assert len(lines[1].rstrip()) == len(lines[2].rstrip())


def test_a_long_table_is_not_folded_in_a_pipe(capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    Console().table(["a" * 40, "b" * 40], [["x" * 40, "y" * 40]])
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_progress_without_a_terminal_speaks_now_and_then(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    job = Job("work", None)
    for done in range(1, 5):
        now[0] += 10
        job(f"part {done}", done, 4)
    lines = capsys.readouterr().err.splitlines()
    # at 20 s half is done, so 20 s are left; at 40 s all is
    assert lines == ["work: part 2, 50 %, 20.0 s left", "work: part 4, 100 %, 0 s left"]


@pytest.mark.parametrize(
    ("value", "expected"), [(math.inf, None), (1.5, 1.5), ((1, [math.nan]), [1, [None]]), ({1: "a"}, {"1": "a"})]
)
def test_plain(value, expected):
    assert plain(value) == expected


def test_no_time_left_from_the_first_crumbs(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    job = Job("work", None)
    now[0] = 20.0
    job("start", 1, 100)
    assert capsys.readouterr().err == "work: start, 1 %\n"
