"""The wrapper lists all 62 systems and hands errors on."""

from __future__ import annotations

import json

from anybit.cli.main import main


def test_list(capsys):
    assert main(["reproduce", "list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["number"] for row in rows] == list(range(1, 63))
    assert all(set(row) == {"number", "name", "verdict"} for row in rows)


def test_unknown_system(capsys):
    assert main(["reproduce", "run", "no-such-system"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "no-such-system" in err


def test_bad_threads(capsys):
    assert main(["reproduce", "run", "1", "--threads", "0"]) == 2
    assert "--threads must be above 0" in capsys.readouterr().err
