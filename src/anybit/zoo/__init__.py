"""Floor 7: small real models of every family, with the scripts that trained ours. `docs/zoo.md` lists them.

from anybit import zoo
zoo.load("resnet20")            # an nn.Module
zoo.load("lm-outliers")         # a models.Model
zoo.evaluate("resnet20").value  # 91.5
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from anybit.zoo.members import MEMBERS, Member, find

if TYPE_CHECKING:
    from torch import nn

    from anybit.models import Model
    from anybit.zoo.evaluation import Evaluation

__all__ = ["MEMBERS", "Member", "evaluate", "find", "load"]


def load(name: str) -> Model | nn.Module:
    """A member by name: a decoder as `models.Model`, any other as an nn.Module; see `loading.load`."""
    from anybit.zoo import loading

    return loading.load(name)


def evaluate(target: str, progress: Callable[[str, float, float], None] | None = None) -> Evaluation:
    """The metric of a member, or of a directory quantized from one; see `evaluation.evaluate`."""
    from anybit.zoo import evaluation
    from anybit.zoo.networks import silent

    return evaluation.evaluate(target, progress or silent)
