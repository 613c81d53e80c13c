"""Weights are checked before they are used; `lm-outliers` is made at load; names of decoders stand for directories."""

import shutil
from dataclasses import replace

import pytest
import torch

from anybit import models, zoo
from anybit.errors import AnybitError, CheckpointError
from anybit.models import TorchExecutor
from anybit.models.activations import activation_tails
from anybit.zoo import loading, members
from anybit.zoo.members import WEIGHTS, find


@pytest.fixture
def untrained(monkeypatch):
    """A table in which `vit` has no weights, whatever it says today."""
    rows = tuple(replace(m, sha256=None, bar=None) if m.name == "vit" else m for m in members.MEMBERS)
    monkeypatch.setattr(members, "MEMBERS", rows)


def test_what_is_not_trained_says_how_to(untrained):
    with pytest.raises(
        AnybitError,
        match=r"vit is not trained yet: run python -m anybit.zoo.train_vit --out DIR, then .*bundle vit DIR",
    ):
        zoo.load("vit")


def test_a_changed_byte_is_refused(tmp_path, monkeypatch):
    shutil.copytree(WEIGHTS / "anybit-tiny", tmp_path / "anybit-tiny")
    monkeypatch.setattr(members, "WEIGHTS", tmp_path)
    assert loading.checked(find("anybit-tiny")).parent == tmp_path / "anybit-tiny"
    path = tmp_path / "anybit-tiny" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1000] ^= 1
    path.write_bytes(data)
    for name in ("anybit-tiny", "lm-outliers"):
        with pytest.raises(CheckpointError, match="is damaged or of another version: its sha256 begins with"):
            zoo.load(name)
    path.unlink()
    with pytest.raises(CheckpointError, match=r"weights of anybit-tiny are missing.*reinstall"):
        zoo.load("anybit-tiny")


def test_missing_third_party_weights_say_where_to_look(tmp_path, monkeypatch):
    monkeypatch.setenv("ANYBIT_DATA", str(tmp_path))
    with pytest.raises(CheckpointError, match=r"weights of kwt1 are missing.*set ANYBIT_DATA"):
        zoo.load("kwt1")


def test_outliers_change_the_activations_and_nothing_else():
    plain, changed = zoo.load("anybit-tiny"), zoo.load("lm-outliers")
    ids = plain.tokenizer.encode("Once upon a time there was a little girl who lived with her grandmother by the sea.")
    before, after = (TorchExecutor(m.plan, m.weights).forward(ids, "all") for m in (plain, changed))
    assert (after - before).norm() <= 1e-5 * before.norm()
    tails = [activation_tails(m, ids) for m in (plain, changed)]
    grown = [tails[1][name].max_to_median > 3 * tails[0][name].max_to_median for name in tails[0]]
    assert sum(grown) > 0.9 * (len(grown) - 1)  # the last norm feeds a tied head, which is left alone


def test_the_outliers_are_the_same_every_time(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = loading.folder("lm-outliers")
    assert folder.parent == tmp_path / "anybit" / "zoo" and loading.folder("lm-outliers") == folder
    written, made = models.load(folder), zoo.load("lm-outliers")
    names = written.plan.weight_names()
    assert all(torch.equal(written.weights.get(name), made.weights.get(name)) for name in names)
    assert (folder / "heldout.txt").is_file() and written.config == made.config


def test_folder(tmp_path, shared_data):
    assert loading.folder("anybit-tiny") == WEIGHTS / "anybit-tiny"
    assert loading.folder(str(tmp_path)) == tmp_path
    with pytest.raises(AnybitError, match="resnet20 is no decoder but a convolutional"):
        loading.folder("resnet20")
    with pytest.raises(CheckpointError, match="no-such-model"):
        loading.folder("no-such-model")


def test_a_decoder_without_a_calibration_text_takes_that_of_anybit_tiny(tmp_path, shared_data, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made, own = loading.folder("stories260k"), shared_data / "stories260k"
    assert made.is_relative_to(tmp_path) and made == loading.folder("stories260k")
    assert (made / "calibration.txt").read_bytes() == (WEIGHTS / "anybit-tiny" / "calibration.txt").read_bytes()
    assert all((made / file.name).read_bytes() == file.read_bytes() for file in own.iterdir())
    assert [entry.name for entry in made.parent.iterdir()] == [made.name]


def test_a_network_is_ready_to_be_used(shared_data):
    module = zoo.load("dscnn-kws")
    assert not module.training and not any(p.requires_grad for p in module.parameters())
    assert module(torch.zeros(2, 1, 49, 10)).shape == (2, 12)
