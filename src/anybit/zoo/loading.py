"""`load`: a member of the zoo by name, its weights checked against the table first."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path

from torch import nn

from anybit import models
from anybit.errors import AnybitError, CheckpointError
from anybit.models import Model, inject_outliers
from anybit.models.outliers import KINDS, write
from anybit.ops.costs import cache_folder
from anybit.zoo.members import WEIGHTS, Member, find

OUTLIERS = "lm-outliers"
CALIBRATION = "calibration.txt"
OUTLIER_FRACTION, OUTLIER_SCALE = 0.02, 32.0
"""Of `lm-outliers`; a power of two, so that its bfloat16 weights stay exact."""


def load(name: str) -> Model | nn.Module:
    """A decoder as `models.Model`, any other member as an nn.Module in evaluation mode.

    Raises AnybitError for an unknown name and a member that is not trained yet, CheckpointError where its weights are missing or not
    those of the table.
    """
    member = find(name)
    path = checked(member)
    if not member.decoder:
        from anybit.zoo.networks import NETWORKS
        from anybit.zoo.networks import load as load_network

        return load_network(NETWORKS[name], path)
    model = models.load(path.parent)
    return inject_outliers(model, OUTLIER_FRACTION, OUTLIER_SCALE, KINDS) if name == OUTLIERS else model


def checked(member: Member) -> Path:
    """The file of a member's weights, after comparing it with the sha256 in the table; raises as `load` does."""
    if not member.trained:
        raise AnybitError(f"{member.name} is {member.status}, then python -m anybit.zoo.bundle {member.name} DIR")
    path = member.path()
    if not path.is_file():
        where = (
            "reinstall anybit" if member.bundled else "set ANYBIT_DATA to the folder of the shared data that holds them"
        )
        raise CheckpointError(f"the weights of {member.name} are missing: there is no {path}; {where}")
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != member.sha256:
        assert member.sha256 is not None, "a trained member has one"
        raise CheckpointError(
            f"{path} is damaged or of another version: its sha256 begins with {found[:12]}, and the zoo expects {member.sha256[:12]}"
        )
    return path


def folder(name_or_path: str) -> Path:
    """The directory of a decoder: a path, the name of a bundled model, or of a member of the zoo.

    `lm-outliers`, and a third party's decoder without a calibration text of its own beside that of `anybit-tiny`, are written to the
    user's cache (`ops.costs.cache_folder`) the first time.  Raises AnybitError for a member
    that is no decoder, CheckpointError for what is neither.
    """
    try:
        member = None if Path(name_or_path).exists() else find(name_or_path)
    except AnybitError:
        member = None
    if member is None or name_or_path in models.bundled():
        return models.find(name_or_path)
    if not member.decoder:
        raise AnybitError(
            f"{name_or_path} is no decoder but a {member.family}; `anybit zoo eval` scores it, `anybit quantize` quantizes it"
        )
    path = checked(member)
    if name_or_path == OUTLIERS:
        return _written(member)
    return path.parent if (path.parent / CALIBRATION).is_file() else _with_calibration(member, path.parent)


def _with_calibration(member: Member, source: Path) -> Path:
    assert member.sha256 is not None, "only trained members are copied"
    out = cache_folder() / "zoo" / f"{member.name}-{member.sha256[:12]}"
    if not out.is_dir():
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent) as temporary:
            made = Path(temporary) / "made"
            shutil.copytree(source, made, copy_function=shutil.copyfile)
            made.chmod(0o755)
            shutil.copyfile(WEIGHTS / "anybit-tiny" / CALIBRATION, made / CALIBRATION)
            made.rename(out)
    return out


def _written(member: Member) -> Path:
    assert member.sha256 is not None, "only trained members are written"
    out = cache_folder() / "zoo" / f"{member.name}-{OUTLIER_FRACTION:g}-{OUTLIER_SCALE:g}-{member.sha256[:12]}"
    if not out.is_dir():
        model = load(member.name)
        assert isinstance(model, Model), "a decoder"
        write(model, out)
    return out


def source(name: str) -> Path:
    """The folder whose texts a decoder is scored on."""
    return WEIGHTS / "anybit-tiny" if name == OUTLIERS else find(name).path().parent
