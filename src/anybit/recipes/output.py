"""From the journal to the finished checkpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from anybit.errors import CheckpointError
from anybit.models.checkpoint import CheckpointWriter
from anybit.models.config import read_json
from anybit.models.weights import MANIFEST, check_finite
from anybit.recipes.job import Job
from anybit.recipes.journal import Journal
from anybit.recipes.recipe import KEEP


def write(
    job: Job,
    formats: Mapping[str, str],
    expected_loss: float | None,
    scales: Mapping[str, float],
    pages: Journal,
    mark: Mapping[str, str],
    overwrite: bool,
) -> int:
    """Write the checkpoint to `job.out`, a tensor at a time; bytes of its tensors. scales: static ones of activations, by weight.

    Raises CheckpointError for a kept tensor that holds NaN or infinite values, or where it cannot be written.
    """
    act = job.recipe.static
    with CheckpointWriter(job.out, job.model.path, overwrite=overwrite, online=job.online, act=act) as writer:
        for name in job.model.plan.weight_names():
            if name in job.model.weights.copies:
                continue
            if formats.get(name, KEEP) == KEEP:
                kept = job.model.weights.get(name)
                check_finite(kept, name)
                writer.put(name, kept)
            else:
                q, report = pages.get_weight(name)
                writer.put(name, q, {"report": report}, scales.get(name))
        provenance = {**mark, "expected_loss": expected_loss}
        return writer.finish(json.loads(job.recipe.to_json()), provenance)


def written(out: Path, mark: Mapping[str, str]) -> bool:
    """Whether `out` is the finished checkpoint of the job with that fingerprint."""
    try:
        provenance = read_json(out / MANIFEST, "it says what made the checkpoint").get("provenance")
    except CheckpointError:
        return False
    return isinstance(provenance, dict) and all(provenance.get(key) == value for key, value in mark.items())
