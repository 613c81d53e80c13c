"""An interrupted run says what is kept and stays an interruption."""

import pytest

from anybit.cli.console import Console
from anybit.cli.quantizing import timed


def test_what_a_run_returns_and_how_long_it_took(capsys):
    seen = []

    def run(progress):
        progress(0.5, "half")
        seen.append("ran")
        return 7

    done, seconds = timed(Console(True), "working", run, "nothing is kept")
    assert (done, seen) == (7, ["ran"]) and seconds >= 0


def test_an_interruption_says_what_is_kept(capsys):
    def run(progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        timed(Console(False), "working", run, "pieces are kept beside out")
    said = capsys.readouterr()
    assert "interrupted; the same command goes on from here (pieces are kept beside out)" in said.out + said.err
