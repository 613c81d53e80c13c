"""What is shown of a format is what the format says, and for mxfp4 what the OCP specification says."""

from __future__ import annotations

import json

from anybit import formats
from anybit.cli.main import main


def test_list_has_every_named_format(capsys):
    assert main(["formats", "list", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    rows = {row["name"]: row for row in document["formats"]}
    assert set(rows) == set(formats.names.TABLE)
    assert rows["int4"] | {"bits": 4, "min": -8, "max": 7, "values": 16} == rows["int4"]
    assert document["aliases"]["mxfp4"] == "e2m1/g32:e8m0"


def test_show_mxfp4(capsys):
    # OCP Microscaling Formats 1.0, table 5.5: the values of E2M1; block of 32 with an 8-bit scale: 4.25 bits
    assert main(["formats", "show", "mxfp4", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    positive = [0, 0.5, 1, 1.5, 2, 3, 4, 6]
    assert document["values"] == sorted({sign * value for sign in (1, -1) for value in positive})
    assert document["bits_per_weight"] == 4.25
    assert document["block"] == [1, 32]


def test_people_see_the_same(capsys):
    assert main(["formats", "show", "int4/g128+z"]) == 0
    out = capsys.readouterr().out
    assert "int4/g128+z" in out
    assert "-8 -7" in out


def test_unknown_name(capsys):
    assert main(["formats", "show", "int17"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert "int17" in err or "17" in err
    assert main(["formats", "show", "e4m3f"]) == 2
    assert "e4m3fn" in capsys.readouterr().err
