"""Training data that is made on the spot, and what every training script has to do with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from anybit.zoo import augment, members
from anybit.zoo.architectures.resnet import ResNet
from anybit.zoo.images import normalise
from anybit.zoo.training import LOG, WEIGHTS, read_log


@pytest.fixture
def small_cifar(monkeypatch: pytest.MonkeyPatch) -> augment.Cifar:
    """60 random images in the place of CIFAR-10's."""
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (60, 3, 32, 32), dtype=np.uint8))
    labels = torch.arange(60) % 10
    data = augment.Cifar(images, labels, normalise(images[:10]), labels[:10])
    monkeypatch.setattr(augment.Cifar, "load", classmethod(lambda cls, device="cpu": data))
    return data


@pytest.fixture
def any_teacher(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[ModuleType], None]:
    """Put a residual network that knows nothing in the place of the teacher that a script reads from the shared data."""

    def network(path: Path, depth: int) -> ResNet:
        torch.manual_seed(1)
        return ResNet(depth).eval().requires_grad_(False)

    def install(script: ModuleType) -> None:
        monkeypatch.setattr(script, "resnet", network)
        monkeypatch.setattr(script, "data_file", lambda name: tmp_path / name)

    return install


@pytest.fixture
def story(tmp_path: Path) -> Path:
    """A text long enough for a few windows."""
    words = ["once", "upon", "a", "time", "fox", "lived", "under", "the", "apple", "tree", "said", "good", "night"]
    rng = np.random.default_rng(0)
    path = tmp_path / "story.txt"
    path.write_text("FAIRY TALES\n" + "\n".join(" ".join(rng.choice(words, 12)) for _ in range(150)), encoding="utf-8")
    return path


@pytest.fixture
def repeats(tmp_path: Path) -> Callable[..., list[float]]:
    """Run a script for three steps twice, the second time interrupted after two: logs and weights must be equal bit by bit."""

    def check(script: ModuleType, *arguments: str, steps: int = 3) -> list[float]:
        common = ["--steps", str(steps), "--warmup", "1", "--save-every", "2", *arguments]
        whole, halves = tmp_path / "whole", tmp_path / "halves"
        script.main(["--out", str(whole), *common])
        script.main(["--out", str(halves), *common, "--stop", "2"])
        assert len(read_log(halves / LOG)) == 2
        script.main(["--out", str(halves), *common])
        logs = [
            [{k: v for k, v in row.items() if k in ("step", "loss", "lr")} for row in read_log(run / LOG)]
            for run in (whole, halves)
        ]
        assert logs[0] == logs[1] and len(logs[0]) == steps
        assert (whole / WEIGHTS).read_bytes() == (halves / WEIGHTS).read_bytes()
        return [row["loss"] for row in logs[0]]

    return check


@pytest.fixture
def in_bfloat16(tmp_path: Path) -> Callable[..., None]:
    """One step in bfloat16, as a GPU would take it, beside one in float32: nearly the same loss."""

    def check(script: ModuleType, *arguments: str) -> None:
        found = []
        for precision in ("fp32", "bf16"):
            out = tmp_path / precision
            script.main(["--out", str(out), "--steps", "1", "--warmup", "1", "--precision", precision, *arguments])
            found.append(read_log(out / LOG)[0]["loss"])
        assert found[0] != found[1]
        assert abs(found[1] - found[0]) < 0.02 * found[0]

    return check


@pytest.fixture
def as_logged(tmp_path: Path, shared_data: Path) -> Callable[..., None]:
    """The first 50 losses of the bundled log again, with the script's defaults but for the arguments."""

    def check(name: str, script: ModuleType, *arguments: str) -> None:
        member = members.find(name)
        if not member.trained:
            pytest.skip(f"{name} is {member.status}")
        if member.start not in (None, members.ANYBIT_TINY):
            pytest.skip(f"{name} was trained from another anybit-tiny, whose sha256 begins with {member.start[:12]}")
        logged = read_log(member.path().parent / LOG)[:50]
        script.main(["--out", str(tmp_path / "again"), "--stop", "50", *arguments])
        again = read_log(tmp_path / "again" / LOG)
        # Other processors sum in another order, and large rates amplify that a hundredfold in a few steps: the first losses say that data,
        # draws, weights and rates are those of the log, the means of ten that the training is.
        losses = np.array([[row["loss"] for row in rows] for rows in (again, logged)])
        np.testing.assert_allclose(*losses[:, :3], rtol=2e-5)
        np.testing.assert_allclose(*losses.reshape(2, 5, 10).mean(2), rtol=0.03)

    return check
