"""The fabricated report, for the tests here."""

from __future__ import annotations

import pytest

from anybit.cli.report import LayerBits, Report, Variant

ROLES = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.down_proj")


def layers(blocks: int, choices: tuple[int, ...]) -> tuple[LayerBits, ...]:
    """A weight for the embedding and one for every role of every block, with bits that vary."""
    rows = [LayerBits("model.embed_tokens.weight", "int4/g64", 4.25, 1_048_576)]
    for block in range(blocks):
        for index, role in enumerate(ROLES):
            bits = choices[(block * 3 + index) % len(choices)]
            rows.append(LayerBits(f"model.layers.{block}.{role}.weight", f"int{bits}/g64", bits + 0.25, 65_536))
    return tuple(rows)


@pytest.fixture
def report() -> Report:
    """Versions of every method, made up for the tests and never shown to anybody."""
    variants = (
        Variant("bf16", "original", 24.31, 11_540_000, 16.0, 2100.0, 210.0),
        Variant("RTN 4 bits", "rtn", 26.9, 3_260_000, 4.52, 4100.0, 560.5),
        Variant("RTN 3 bits", "rtn", 41.7, 2_540_000, 3.52, 3600.0, 540.0),
        Variant("GPTQ 4 bits", "gptq", 25.4, 3_260_000, 4.52, 4100.0, 561.0),
        Variant("GPTQ 3 bits", "gptq", 30.2, 2_540_000, 3.52, 3600.0, 540.0),
        Variant("mixed 3.5 bits", "mixed", 27.1, 2_520_000, 3.5, 3700.0, 548.0, layers(6, (2, 3, 4, 8))),
        Variant("mixed 2.75 bits", "mixed", 38.0, 1_980_000, 2.75, 3300.0, 520.0, layers(6, (2, 3))),
    )
    return Report(
        "anybit-tiny",
        variants,
        "mixed 3.5 bits",
        "Once upon a <time>",
        ", a girl & a dog.",
        {"text": "80 kB of <books>"},
    )
