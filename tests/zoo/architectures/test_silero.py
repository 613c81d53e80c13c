"""The LSTM of linear layers against torch's cell (probabilities against the stored ones: test_networks)."""

import torch
import torch.nn.functional as F

from anybit.zoo.architectures.silero import SileroVAD


def test_state_is_carried_as_by_torchs_cell():
    torch.manual_seed(0)
    model = SileroVAD().eval()
    wave = torch.randn(512 * 4 + 100) * 0.1
    with torch.no_grad():
        found = model(wave)
        cell = torch.nn.LSTMCell(128, 128)
        for ours, theirs in ((model.lstm_input, "ih"), (model.lstm_state, "hh")):
            getattr(cell, f"weight_{theirs}").copy_(ours.weight)
            getattr(cell, f"bias_{theirs}").copy_(ours.bias)
        padded, h, c = F.pad(wave, (64, 0)), torch.zeros(1, 128), torch.zeros(1, 128)
        for frame in range(4):
            x = F.pad(padded[None, None, frame * 512 : frame * 512 + 576], (0, 64), mode="reflect")
            y = F.conv1d(x, model.stft_conv.weight[:, :, 0], stride=128)
            y = (y[:, :129] ** 2 + y[:, 129:] ** 2).sqrt()
            for i, stride in enumerate((1, 2, 2, 1), 1):
                conv = model.get_submodule(f"conv{i}")
                y = F.relu(F.conv1d(y, conv.weight[:, :, 0], conv.bias, stride, 1))
            h, c = cell(y[..., 0], (h, c))
            expected = torch.sigmoid(F.relu(h) @ model.final_conv.weight[0, :, 0, 0] + model.final_conv.bias)
            torch.testing.assert_close(found[frame], expected[0], atol=1e-5, rtol=1e-4)
    assert found.shape == (4,)
