"""RoPE tables against transformers' own functions, for every scaling type and both layouts of the config."""

import pytest
import torch

from anybit.errors import UnsupportedModelError
from anybit.models.config import Config
from anybit.models.rope import rope, rope_parameters

SCALINGS = {
    "default": {},
    "linear": {"factor": 3.0},
    "llama3": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64},
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 64},
    "yarn_full": {
        "factor": 16.0,
        "original_max_position_embeddings": 64,
        "beta_fast": 20,
        "beta_slow": 2,
        "attention_factor": 0.8,
    },
    "longrope": {"short_factor": [1.0 + 0.1 * i for i in range(16)], "long_factor": [2.0 + i for i in range(16)]},
}


def transformers_table(kind, settings, context=None):
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    config = LlamaConfig(
        hidden_size=128,
        num_attention_heads=4,
        max_position_embeddings=512,
        rope_parameters={"rope_type": kind, "rope_theta": 5000.0, **settings},
    )
    if kind == "longrope":
        config.original_max_position_embeddings = 64
    return ROPE_INIT_FUNCTIONS[kind](config, None, seq_len=context)


@pytest.mark.parametrize("name", [name for name in SCALINGS if name != "default"])
@pytest.mark.parametrize("context", [None, 500])
def test_tables_equal_transformers(name, context):
    kind = name.split("_")[0]
    table, factor = transformers_table(kind, dict(SCALINGS[name]), context)
    config = {"max_position_embeddings": 512, "rope_theta": 5000.0, "rope_scaling": {"type": kind, **SCALINGS[name]}}
    if kind == "longrope":
        config["original_max_position_embeddings"] = 64
    got = rope(rope_parameters(Config(config)), 32, 512, context)
    assert torch.allclose(got.table, table, rtol=1e-6, atol=0)
    assert got.factor == pytest.approx(factor)


def test_default_is_the_formula():
    got = rope(rope_parameters(Config({"rope_theta": 7.0})), 10, 512)
    assert got.table.tolist() == pytest.approx([7.0 ** (-2 * i / 10) for i in range(5)])
    assert got.factor == 1


def test_partial_rotation_shortens_the_table():
    got = rope(rope_parameters(Config({"partial_rotary_factor": 0.5})), 24, 512)
    assert got.table.tolist() == pytest.approx([10000.0 ** (-2 * i / 12) for i in range(6)])


def test_longrope_says_how_far_its_short_table_goes():
    parameters = {
        **rope_parameters(Config({})),
        **SCALINGS["longrope"],
        "rope_type": "longrope",
        "original_max_position_embeddings": 64,
    }
    assert rope(parameters, 32, 512).limit == 64
    assert rope(parameters, 32, 512, context=64).limit == 64
    assert rope(parameters, 32, 512, context=65).limit == 0


def test_old_and_new_layouts_agree():
    old = {"rope_theta": 500.0, "rope_scaling": {"rope_type": "linear", "factor": 2.0}}
    new = {"rope_parameters": {"rope_theta": 500.0, "rope_type": "linear", "factor": 2.0}}
    nested = {"rope_parameters": {"full_attention": new["rope_parameters"], "sliding_attention": {"rope_theta": 9.0}}}
    assert rope_parameters(Config(old)) == rope_parameters(Config(new))
    assert rope_parameters(Config(nested), layer_type="full_attention") == rope_parameters(Config(new))
    assert rope_parameters(Config(nested), layer_type="sliding_attention")["rope_theta"] == 9.0


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"rope_type": "dynamic", "factor": 2.0}, "'dynamic' is not supported.*changes with the length"),
        ({"rope_type": "magic"}, "'magic' is not supported; supported are default, linear"),
        ({"rope_type": "linear"}, "'linear': factor must be a number above 0; got None"),
        ({"rope_type": "llama3", "factor": 8}, "low_freq_factor must be a number"),
        ({"rope_type": "longrope", "short_factor": [1.0]}, "short_factor must be a list of 16 numbers"),
        ({"partial_rotary_factor": 0.03}, "even number of columns from 2 to 32 a head; got 0"),
        ({"rope_theta": -4}, "rope_theta must be a number above 0; got -4"),
    ],
)
def test_refusals(changes, sentence):
    with pytest.raises(UnsupportedModelError, match=sentence):
        rope({**rope_parameters(Config({"max_position_embeddings": 64})), **changes}, 32, 512)
