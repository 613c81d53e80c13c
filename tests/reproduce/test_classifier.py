"""A network that methods are tried on: fewer bits diverge more, and what calibrates it is what it says."""

from __future__ import annotations

import pytest
import torch

from anybit.reproduce.classifier import Classifier
from anybit.reproduce.experiment import Context


@pytest.fixture(scope="module")
def network(shared_data, tmp_path_factory):
    return Classifier(Context(shared_data, tmp_path_factory.mktemp("work")), "resnet20", 60)


def test_fewer_bits_diverge_more_and_gptq_less(network):
    shown = network.images(16)
    eight = network.tried("int8/row", "int8/tensor", "rtn", {}, shown)
    three = network.tried("int3/row", "int8/tensor", "rtn", {}, shown)
    corrected = network.tried("int3/row", "int8/tensor", "gptq", {}, shown)
    assert 0 < eight["kl"] < 0.02 < corrected["kl"] < three["kl"]
    assert eight["accuracy"] == pytest.approx(network.accuracy(), abs=2) and network.accuracy() > 80
    assert all(parameter.dtype == torch.float32 for parameter in network.network().parameters())


def test_what_it_calibrates_on(network):
    pytest.importorskip("PIL")
    for images in (network.images(4), network.photographs(4)):
        assert images.shape == (4, 3, 32, 32) and images.dtype == torch.float32
        assert abs(float(images.mean())) < 1 and 0.3 < float(images.std()) < 3
