"""Names of real checkpoints are taken apart as expected."""

from __future__ import annotations

import json

import pytest

from anybit.cli.report import LayerBits, Report, Variant


@pytest.mark.parametrize(
    ("name", "block", "part"),
    [
        ("model.layers.11.self_attn.q_proj.weight", 11, "q_proj"),
        ("model.embed_tokens.weight", None, "embed_tokens"),
        ("lm_head.weight", None, "lm_head"),
    ],
)
def test_block_and_part(name, block, part):
    layer = LayerBits(name, "int4/g128", 4.125, 100)
    assert (layer.block, layer.part) == (block, part)


def test_reference_and_chosen():
    bf16, best = (
        Variant("bf16", "original", 10.0, 200, 16.0, None, None),
        Variant("x", "mixed", 11.0, 50, 4.0, None, None),
    )
    report = Report("m", (best, bf16), "x", "p", "s")
    assert report.reference is bf16
    assert report.chosen is best
    assert json.loads(json.dumps(report.as_dict()))["variants"][0]["bits_per_weight"] == 4.0
