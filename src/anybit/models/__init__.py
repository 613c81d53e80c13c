"""Floor 6: real models. Load a Hugging Face directory, lower it to a `Plan`, run, calibrate, measure, checkpoint."""

from anybit.models.checkpoint import CheckpointWriter, verify
from anybit.models.executor import Executor, TorchExecutor
from anybit.models.families import FAMILIES, lower
from anybit.models.loading import Model, bundled, find, load
from anybit.models.outliers import inject_outliers
from anybit.models.plan import Op, Plan, WeightRef
from anybit.models.registration import register
from anybit.models.tokenizer import Tokenizer
from anybit.models.weights import Overlay, WeightStore

__all__ = [
    "FAMILIES",
    "CheckpointWriter",
    "Executor",
    "Model",
    "Op",
    "Overlay",
    "Plan",
    "Tokenizer",
    "TorchExecutor",
    "WeightRef",
    "WeightStore",
    "bundled",
    "find",
    "inject_outliers",
    "load",
    "lower",
    "verify",
]

register()
