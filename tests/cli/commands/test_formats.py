"""What is shown of a format is what the format says, and for mxfp4 what the OCP specification says."""

from __future__ import annotations

import json

import pytest

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


def test_show_two_levels(capsys):
    assert main(["formats", "show", "nvfp4~int4/g64", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["main"] == "e2m1/g16:e4m3fn+t" and document["rest"] == "int4/g64"
    assert document["bits_per_weight"] == pytest.approx(4.5 + 4.25, abs=1e-3)
    assert main(["formats", "show", "nvfp4~nvfp4"]) == 0
    assert "9 bits a weight" in capsys.readouterr().out
    assert main(["formats", "show", "nvfp4~"]) == 2


def test_every_named_format_can_be_shown(capsys):
    for name in formats.names.TABLE:
        assert main(["formats", "show", name, "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        assert document["element"]["name"] == name
    assert main(["formats", "show", "e2m1", "--json"]) == 0
    # 20 log10(6 / 0.5)
    assert abs(json.loads(capsys.readouterr().out)["element"]["dynamic_range_db"] - 21.58) < 0.01


def test_compare(capsys):
    assert (
        main(["formats", "compare", "bipolar4", "e2m1", "bf16", "--model", "none", "--directions", "2000", "--json"])
        == 0
    )
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["formats"]}
    # Max (1960): 16 equally spaced levels, error 0.01154. The direction-preserving paper gives 4.434 degrees for E2M1 in 16 dimensions.
    assert abs(rows["bipolar4"]["sqnr_db"]["gaussian"] - 19.38) < 0.2
    assert abs(rows["e2m1"]["angle"]["mean"] - 4.434) < 0.05
    assert rows["bf16"]["angle"] is None and rows["bf16"]["sqnr_db"]["laplace"] > 50


def test_compare_takes_real_weights_and_prints_a_table(capsys, monkeypatch, tiny_folder):
    monkeypatch.setenv("COLUMNS", "140")
    assert main(["formats", "compare", "int4", "nf4", "--model", str(tiny_folder), "--directions", "200"]) == 0
    out = capsys.readouterr().out
    assert f"{tiny_folder.name} dB" in out and "99 % angle" in out


def test_compare_refuses_complex_formats(capsys):
    assert main(["formats", "compare", "i2c", "int4", "--model", "none"]) == 2
    assert "i2c is complex" in capsys.readouterr().err


def test_plot(capsys, tmp_path):
    for name, first in (("a.png", b"\x89PNG"), ("b.svg", b"<?xml")):
        assert main(["formats", "plot", "e2m1", "int4", "e5m2", "fp16", "--out", str(tmp_path / name)]) == 0
        assert (tmp_path / name).read_bytes().startswith(first)
    assert main(["formats", "plot", "e2m1", "--out", str(tmp_path / "c.pdf")]) == 2
    assert ".png or .svg" in capsys.readouterr().err
    assert main(["formats", "plot", "fp32", "--out", str(tmp_path / "c.png")]) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.svg"]


def test_unknown_name(capsys):
    assert main(["formats", "show", "int17"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert "int17" in err or "17" in err
    assert main(["formats", "show", "e4m3f"]) == 2
    assert "e4m3fn" in capsys.readouterr().err


def test_design_finds_what_it_prints(capsys):
    assert main(["formats", "design", "ternary", "--block", "4", "--quick", "--emphasis", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    levels = found["levels"]
    assert len(levels) == 3 and levels[1] == 0 and levels[0] < 0 < levels[2] and max(abs(v) for v in levels) == 1
    assert found["name"].startswith("levels(") and set(found["angles"]) == {"ternary", "dp4", "found"}
    assert all(256 * v == round(256 * v) for v in levels)
    # in four dimensions 15 values on each side of nothing beat three by far
    assert found["angles"]["dp4"]["mean"] < found["angles"]["found"]["mean"]


def test_design_refuses(capsys):
    assert main(["formats", "design", "bipolar2"]) == 2
    assert "zero among them" in capsys.readouterr().err
    assert main(["formats", "design", "nf4", "--objective", "1,2"]) == 2
    assert "three weights" in capsys.readouterr().err
    for arguments, message in (
        (["nf4", "--objective", "nan,1,1"], "three weights"),
        (["nf4", "--emphasis", "nan"], "finite"),
        (["nf4", "--block", "1"], "blocks of two"),
        (["uint1"], "three or more values"),
        (["int8", "--grid", "100"], "too few for"),
    ):
        assert main(["formats", "design", *arguments, "--quick"]) == 2
        assert message in capsys.readouterr().err
