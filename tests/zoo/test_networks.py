"""Third-party networks reach the figures measured with another implementation of them; odd files are refused."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from anybit.errors import CheckpointError
from anybit.zoo import networks
from anybit.zoo.members import MEMBERS, find
from anybit.zoo.networks import NETWORKS, load, silent


def test_every_network_is_in_both_tables_with_its_parameters():
    assert set(NETWORKS) == {m.name for m in MEMBERS if not m.decoder}
    for name, network in NETWORKS.items():
        with torch.device("cpu"):
            module = network.build()
        unique = {p.data_ptr(): p.numel() for p in module.parameters()}
        assert sum(unique.values()) == find(name).parameters, name


@pytest.mark.parametrize("name", ["resnet32", "resnet8", "resnet8-wide", "dscnn-kws", "kwt1", "silero-vad"])
def test_the_figure_is_reproduced(shared_data, name):
    member = find(name)
    assert NETWORKS[name].score(load(NETWORKS[name], member.path()), silent) == pytest.approx(member.bar, abs=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mobilenet-v1", "mobilenet-v2-int8"])
def test_the_figure_on_photographs_is_reproduced(shared_data, name):
    member = find(name)
    assert NETWORKS[name].score(load(NETWORKS[name], member.path()), silent) == pytest.approx(member.bar, abs=0.1)


@pytest.mark.parametrize("name", ["mobilenet-v1", "mobilenet-v2-int8"])
def test_some_photographs_are_recognised(shared_data, name):
    x = networks.images.photographs(shared_data / "imagenet_samples/imagenet_1000x224.npz", range(0, 1000, 50))
    with torch.no_grad():
        found = load(NETWORKS[name], find(name).path())(x.float() / 127.5 - 1).argmax(1)
    assert (found == torch.arange(0, 1000, 50)).sum() >= 15


def test_keyword_logits_equal_the_stored_ones(shared_data):
    module = load(NETWORKS["kwt1"], find("kwt1").path())
    with np.load(shared_data / "kwt1/clips.npz") as z, torch.no_grad():
        assert np.abs(module(torch.from_numpy(z["mfcc"])).numpy() - z["logits"]).max() < 2e-5


def test_speech_probabilities_equal_the_stored_ones(shared_data):
    module = load(NETWORKS["silero-vad"], find("silero-vad").path())
    with np.load(shared_data / "silero_vad/speech30s.npz") as z, torch.no_grad():
        found = module(torch.from_numpy(z["pcm16"].astype(np.float32) / 32768)).numpy()
        assert len(found) == 937 and np.abs(found - z["prob"]).max() < 1e-4
        assert (found > 0.5).mean() == pytest.approx(0.7898, abs=5e-5)


def test_a_file_with_other_tensors_is_refused(shared_data, tmp_path):
    stored = load_file(find("dscnn-kws").path())
    stored["fc.weight"] = stored["fc.weight"][:10].contiguous()
    save_file(stored, tmp_path / "short.safetensors")
    with pytest.raises(CheckpointError, match=r"'fc.weight' has the shape \[10, 64\], not \[12, 64\]"):
        load(NETWORKS["dscnn-kws"], tmp_path / "short.safetensors")
    del stored["fc.weight"]
    save_file(stored, tmp_path / "less.safetensors")
    with pytest.raises(CheckpointError, match=r"'fc\.weight' is missing"):
        load(NETWORKS["dscnn-kws"], tmp_path / "less.safetensors")


def test_codes_are_decoded_by_row():
    stored = {"a.weight_int8": torch.tensor([[1, -2], [3, 4]], dtype=torch.int8), "a.scale": torch.tensor([0.5, 2.0])}
    assert networks._value(stored, "a.weight").tolist() == [[0.5, -1.0], [6.0, 8.0]]
    assert networks._value(stored, "b.weight") is None
