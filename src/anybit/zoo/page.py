"""`docs/zoo.md` from the table of members: `python -m anybit.zoo.page docs/zoo.md`."""

from __future__ import annotations

import sys
from pathlib import Path

from anybit.zoo.members import MEMBERS, Member

HEAD = """# The zoo

<!-- Made by `python -m anybit.zoo.page docs/zoo.md` from the table in src/anybit/zoo/members.py; change that. -->

Small real models of every family, to try methods on. Those the project trained lie in the package, or say how to train them; those of third
parties are read from the folder of shared data (`ANYBIT_DATA`), which is not part of the project.

    anybit zoo list                               # what there is, and what is ready
    anybit zoo eval resnet20                      # its metric, beside the figure in this table
    anybit quantize resnet20 out --weights int4/g64
    anybit zoo eval out                           # the metric of the quantized network

In Python, `zoo.load(name)` gives a decoder as a `models.Model` and any other member as an `nn.Module`; weights whose sha256 is not the one
recorded are refused. Layers of an `nn.Module` are quantized by `models.module.quantize_module`, decoders by `recipes`.

"""

OUTLIERS = """
`lm-outliers` has no weights of its own: `models.inject_outliers` multiplies 2 % of the channels between two linear steps by 32 and
divides them again in the second one (norm gains, keys, values and up projections, in every layer). Its logits are those of `anybit-tiny`;
its activations are as heavy-tailed as those of models a thousand times its size.

`dllm` and `moe` are stored as int8 rows with a scale each (`bundle --int8`), half the bytes of bfloat16: 4.9536 nats a token instead of
4.9545, perplexity 47.4267 instead of 47.3424.

A whole network in fewer than eight bits keeps its depthwise convolutions at int8/row (`models.module.uniform`), 1 to 2 % of a MobileNet,
and is calibrated by GPTQ where the member has images apart from those it is scored on. At int4/g64, `mobilenet-v1` and
`mobilenet-v2-int8` reach 63.3 and 74.7 % that way; rounded to nearest in every layer they are right on one photograph of a hundred,
with eight bits for the depthwise layers alone on ten or twenty (a fifth of the photographs), with calibration alone on six.

`unet` has seen 64,000 images in 2,000 steps: what it makes has colours, shapes and places of its class, in which `resnet32` finds the
class four times as often as by chance, under a grain that only longer training removes. It is scored by that class; for a quantized one,
`anybit zoo eval` adds SQNR and SSIM beside the images of the unquantized network from the same noise, in four steps and in one.

## Training

The scripts are one a member (`python -m anybit.zoo.train_mobilenet --help`), on one loop: seeded, resumed by the same command, a line of
log a step. `--device cuda --precision bf16` uses a GPU, `--stop N` ends early. `python -m anybit.zoo.bundle NAME RUN` puts the result into
the package and prints what the table has to say of it. The `train_log.jsonl` beside the weights holds the first 50 losses, which a
retraining with the same seed repeats; a test of each trained member does that.
"""


def size(member: Member) -> str:
    """Bytes of the weights on disk where they are bundled, in MB."""
    path = member.path() if member.bundled and member.trained else None
    if member.name == "lm-outliers" or path is None or not path.is_file():
        return "–"
    return f"{path.stat().st_size / 1e6:.1f} MB"


def row(member: Member) -> str:
    """A line of the table."""
    bar = "–" if member.bar is None else f"{member.bar:g}"
    training = member.training if member.trained else member.status
    cells = [f"`{member.name}`", member.family, f"{member.parameters:,}", size(member), member.data]
    cells += [training or "third party", member.metric, bar, member.licence]
    return "| " + " | ".join(cells) + " |"


def page() -> str:
    """The whole text."""
    columns = ["name", "what", "parameters", "bundled", "trained on", "training", "metric", "value", "licence"]
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns), *(row(member) for member in MEMBERS)]
    return HEAD + "\n".join(lines) + "\n" + OUTLIERS


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
