"""Pictures are checked by reading their SVG back: places and lengths must be proportional to the figures."""

from __future__ import annotations

import itertools
import math
import re
import xml.etree.ElementTree as ElementTree

import pytest

from anybit.cli.report import LayerBits, Variant, charts


def rects(svg: str) -> list[dict[str, str]]:
    return [node.attrib for node in ElementTree.fromstring(svg).iter("rect")]


@pytest.mark.parametrize(("low", "high"), [(0, 11.5), (20.3, 41.7), (0.012, 0.019), (5, 5), (0, 1e6)])
def test_ticks_cover_and_are_round(low, high):
    found = charts.ticks(low, high)
    assert found[0] <= low
    assert found[-1] >= high
    steps = {round((b - a) / (found[1] - found[0]), 9) for a, b in itertools.pairwise(found)}
    assert steps <= {1.0}
    step = found[1] - found[0] if len(found) > 1 else 1.0
    assert round(step / 10 ** math.floor(math.log10(step) + 1e-9), 6) in (1, 2, 5)


@pytest.mark.parametrize(("low", "high"), [(24, 300), (3, 3.1), (1, 1e6), (0.5, 70)])
def test_log_ticks_cover(low, high):
    found = charts.log_ticks(low, high)
    assert found[0] <= low
    assert found[-1] >= high
    assert found == sorted(found)


def test_bars_are_as_long_as_their_figures(report):
    bars = rects(charts.speed_bars(report.variants, "decode"))
    lengths = [float(bar["width"]) for bar in bars]
    speeds = [variant.decode for variant in report.variants]
    top = max(speeds)
    assert lengths == pytest.approx([max(lengths) * speed / top for speed in speeds], abs=0.1)


def test_unmeasured_speed_has_no_bar(report):
    silent = Variant("x", "rtn", 1.0, 1, 1.0, None, None)
    assert len(rects(charts.speed_bars((*report.variants, silent), "prefill"))) == len(report.variants)
    assert charts.speed_bars((silent,), "prefill") == ""


def test_every_weight_has_a_cell_with_its_bits(report):
    layers = report.variants[-1].layers
    root = ElementTree.fromstring(charts.bits_per_layer(layers, "bits"))
    cells = [node for node in root.iter("g") if "cell" in node.get("class", "")]
    assert len(cells) == len(layers)
    named = {cell.find("title").text.split(":")[0]: cell.find("text").text for cell in cells}
    assert named == {layer.name: f"{layer.bits:.3g}" for layer in layers}


def test_deeper_colour_is_more_bits():
    layers = [
        LayerBits(f"model.layers.{i}.q_proj.weight", f"int{b}/g64", float(b), 1) for i, b in enumerate((2, 3, 4, 8))
    ]
    opacities = [
        float(re.search(r"[\d.]+$", rect["style"])[0]) for rect in rects(charts.bits_per_layer(layers, "bits"))
    ]
    assert opacities == sorted(opacities)
    assert len(set(opacities)) == 4


def test_points_stand_where_their_figures_say(report):
    root = ElementTree.fromstring(charts.size_against_perplexity(report.variants))
    places = {}
    for group in root.iter("g"):
        if "gptq" in group.get("class", ""):
            circle = group.find("circle")
            places[group.find("title").text.split(":")[0]] = (float(circle.get("cx")), float(circle.get("cy")))
    small, large = places["GPTQ 3 bits"], places["GPTQ 4 bits"]
    assert small[0] < large[0]
    assert small[1] < large[1]  # a worse perplexity stands higher: SVG counts downwards


def test_wide_ranges_are_logarithmic_and_broken_models_left_out():
    variants = [
        Variant("bf16", "original", 10.0, 100, 16.0, 1.0, 1.0),
        Variant("RTN 2 bits", "rtn", 90_000.0, 10, 2.0, 1.0, 1.0),
    ]
    assert "logarithmic" in charts.size_against_perplexity(variants)
    broken = Variant("RTN 1 bits", "rtn", math.inf, 5, 1.0, 1.0, 1.0)
    assert "RTN 1 bits" not in charts.size_against_perplexity([*variants, broken])


def test_legend_names_only_what_occurs(report):
    assert "RTN" not in charts.legend([variant for variant in report.variants if variant.method != "rtn"])
