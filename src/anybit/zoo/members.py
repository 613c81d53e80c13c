"""The members of the zoo, as one table. Nothing heavy is imported: `anybit zoo list` and docs/zoo.md need no more."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from anybit.errors import AnybitError
from anybit.zoo.data import data_folder

WEIGHTS = Path(__file__).resolve().parent / "weights"
"""Package data: the weights the project trained, a folder a member."""

ANYBIT_TINY = "a5b586508aa0ad1dc14e4545433ef063c71cc62e45cf4faace7f2c6352592edf"
"""sha256 of the weights of anybit-tiny, which two members read."""

CIFAR = "CIFAR-10"
PROJECT = "Apache-2.0 (trained here)"


@dataclass(frozen=True)
class Member:
    """One small real model.

    name: on the command line.  family: what kind of network.  data: what it was trained on.  licence: of the weights.
    metric: what `anybit zoo eval` measures, with its unit; better: whether `high` or `low` is good.
    bar: what the unquantized member reaches by that metric; None while there are no weights.
    file: the weights, below the package's `weights` for our own (`bundled`) and below the shared data for third parties'.
    sha256: of that file; None while it is not trained.  script: the module that trains it.  training: how it was trained, and how long.
    start: sha256 of the weights of another member that the training started from.
    decoder: whether it is a decoder that `anybit generate` and the recipes take, rather than an nn.Module.
    """

    name: str
    family: str
    parameters: int
    data: str
    licence: str
    metric: str
    better: Literal["high", "low"]
    bar: float | None
    file: str
    sha256: str | None
    bundled: bool = False
    script: str | None = None
    training: str = ""
    start: str | None = None
    decoder: bool = False

    @property
    def trained(self) -> bool:
        """Whether weights exist."""
        return self.sha256 is not None

    @property
    def status(self) -> str:
        """`ready`, `not trained yet: run …`, or where the weights are missing."""
        if not self.trained:
            return f"not trained yet: run python -m anybit.zoo.{self.script} --out DIR"
        try:
            return "ready" if self.path().is_file() else f"{self.file} is missing"
        except AnybitError:
            return "needs the shared data (ANYBIT_DATA)"

    def path(self) -> Path:
        """Where the weights are, or should be. AnybitError where they belong to the shared data and there is none."""
        return (WEIGHTS if self.bundled else data_folder()) / self.file


MEMBERS: tuple[Member, ...] = (
    Member(
        "anybit-tiny", "decoder (Llama)", 5_770_496, "86 children's books and classics (Project Gutenberg), composed stories", PROJECT,
        "perplexity of its held-out text", "low", 31.570, "anybit-tiny/model.safetensors",
        ANYBIT_TINY, bundled=True, script="train_lm",
        training="see its model card", decoder=True,
    ),
    Member(
        "lm-outliers", "decoder (Llama), outlier channels injected", 5_770_496, "as anybit-tiny, from which it is made at load",
        PROJECT, "perplexity of its held-out text", "low", 31.570, "anybit-tiny/model.safetensors",
        ANYBIT_TINY, bundled=True,
        training="none: a rewrite that preserves the function", decoder=True,
    ),
    Member(
        "dllm", "masked-diffusion language model", 5_770_752, "as anybit-tiny, from which it starts", PROJECT,
        "nats a token (ELBO, 64 fixed draws)", "low", 4.95361, "dllm/model.safetensors",
        "745bfc2567ad6aba1385fca55e0ad1de7077101c05c178ef5cec04fb6709ae23", bundled=True, script="train_dllm",
        training="300 steps of 16 samples, 85 min on a tenth of a core (bf16)", start=ANYBIT_TINY,
    ),
    Member(
        "moe", "decoder with 8 experts a layer, 2 active", 5_782_784, "as anybit-tiny, from which it starts", PROJECT,
        "perplexity of anybit-tiny's held-out text", "low", 47.4267, "moe/model.safetensors",
        "1ceab4956a279b47ff5cebd32722d91412237f297e5fa2dc5756967004bdde31", bundled=True, script="train_moe",
        training="200 steps of 16 samples, 88 min on a tenth of a core (bf16)", start=ANYBIT_TINY,
    ),
    Member(
        "mobilenet", "convolutional (MobileNetV2 blocks)", 224_202, CIFAR, PROJECT, "% of 1,000 test images right", "high",
        73.3, "mobilenet/model.safetensors",
        "7828b5b3d2bcfbba7f648c3c79e5d2b680e09a70505919fccda1703db139da61", bundled=True, script="train_mobilenet",
        training="1,200 steps of 128 samples, 60 min on a shared core",
    ),
    Member(
        "mobilenet-v3", "convolutional (MobileNetV3-small)", 932_778, CIFAR, PROJECT, "% of 1,000 test images right", "high",
        85.1, "mobilenet-v3/model.safetensors",
        "85e0a9d63f92dc085efb60984145b8df0256defa6a3140c224a072a63e6b8855", bundled=True, script="train_mobilenet_v3",
        training="2,400 steps of 128 samples, 96 min on half a core",
    ),
    Member(
        "vit", "vision transformer", 2_693_194, CIFAR, PROJECT, "% of 1,000 test images right", "high",
        82.3, "vit/model.safetensors",
        "1e3661cdf3e6dda3874d88fc5dd15d58e216e0d7275a54b19adb376bc4282243", bundled=True, script="train_vit",
        training="1,600 steps of 128 samples, 29 min on a core (bf16)",
    ),
    Member(
        "unet", "text-conditioned few-step diffusion U-Net", 3_380_492, CIFAR, PROJECT,
        "% of 200 images (4 steps) that resnet32 takes for their class", "high", 43.5,
        "unet/model.safetensors", "af3c1356122adfbb22c96a90e16071b613f04ad178496a46ee87b842c2180e90", bundled=True, script="train_unet",
        training="2,000 steps of 32 samples, 71 min on a part of a core (bf16)",
    ),
    Member(
        "resnet20", "convolutional (ResNet)", 269_722, CIFAR, "BSD-2-Clause", "% of 1,000 test images right", "high", 91.5,
        "resnet_cifar/resnet20.safetensors", "794e147add9dda15da1238c41d3dad89247246b00cc7e66d476e2b889474024c",
    ),
    Member(
        "resnet32", "convolutional (ResNet)", 464_154, CIFAR, "BSD-2-Clause", "% of 1,000 test images right", "high", 92.8,
        "resnet_cifar/resnet32.safetensors", "65c4b4bb9f78c9fd64ddf041840d2389f0cc4f8f314fb899df3706868765d462",
    ),
    Member(
        "resnet8", "convolutional (MLPerf Tiny)", 77_706, CIFAR, "Apache-2.0", "% of 1,000 test images right", "high", 88.1,
        "mlperf_tiny/resnet8.safetensors", "3ead0e9ccd337aed07243d390a587084a6439fa8af673127adbdc954327c45da",
    ),
    Member(
        "resnet8-wide", "convolutional (MLPerf Tiny)", 480_330, CIFAR, "Apache-2.0", "% of 1,000 test images right", "high", 91.5,
        "mlperf_tiny/resnet8_wide.safetensors", "ceed24578b365c529c52e2725d9ab04b3168c8401e3a5fa576c9acc6e2e5916f",
    ),
    Member(
        "dscnn-kws", "convolutional (MLPerf Tiny)", 23_756, "Speech Commands v2", "Apache-2.0", "% of 1,000 keywords right", "high",
        91.3, "mlperf_tiny/dscnn_kws.safetensors", "13f8eba7f0eca6b6f5ec0cf5599b4c55897f354eff94c660ecb84446e7daab5f",
    ),
    Member(
        "kwt1", "keyword transformer", 607_308, "Speech Commands v2", "Apache-2.0",
        "% of 63 clips decided as the stored fp32 logits do", "high", 100.0,
        "kwt1/model.safetensors", "e69f9fb3d68922392c86575dcf0e928bf8c682ac890325d33744b2d0b06fb859",
    ),
    Member(
        "silero-vad", "convolutions and LSTM", 309_633, "not stated", "MIT",
        "% of 937 frames decided as the stored fp32 probabilities do", "high", 100.0,
        "silero_vad/model.safetensors", "c59271c284ae9c8335d795d60e0bfdb71aaaceec578d9bd9ffc1b8153c319ea1",
    ),
    Member(
        "mobilenet-v1", "convolutional (MobileNet 0.75)", 2_585_560, "ImageNet", "Apache-2.0", "% of 1,000 photographs right", "high",
        85.6, "mobilenet_v1_075_224/model.safetensors", "03198aef76d01022b04aab2077718afafe7e28dc13ab6d84527a12d94bf097cf",
    ),
    Member(
        "mobilenet-v2-int8", "convolutional (MobileNetV2, stored as int8)", 3_487_816, "ImageNet", "Apache-2.0",
        "% of 1,000 photographs right", "high", 87.7,
        "mobilenet_v2_int8/model.safetensors", "cceb584834fbef4238a288b16fd33cf175540bdf2fc0c177996de20864e70116",
    ),
    Member(
        "stories260k", "decoder (Llama)", 260_032, "TinyStories", "MIT", "nats a token of 195 kB of TinyStories", "low", 1.6168,
        "stories260k/model.safetensors", "407a7c581bdd66972383ce9ad24857713fb98786d06ea564a2fe9b34ebe77dfd", decoder=True,
    ),
)  # fmt: skip


def find(name: str) -> Member:
    """The member called `name`. AnybitError naming near names for another."""
    for member in MEMBERS:
        if member.name == name:
            return member
    import difflib

    near = difflib.get_close_matches(name, [member.name for member in MEMBERS], n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else "`anybit zoo list` prints all"
    raise AnybitError(f"the zoo has no member {name!r}; {hint}")
