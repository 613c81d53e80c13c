"""The voice-activity network of Silero (snakers4/silero-vad, 16 kHz): spectrum by convolution, four convolutions, an LSTM, one unit.

Its one-dimensional convolutions are two-dimensional ones of height 1 here, and the LSTM's two matrices linear layers, so that
`models.module` quantizes all of them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FRAME, CONTEXT, BINS, WIDTH = 512, 64, 129, 128
STRIDES = (1, 2, 2, 1)
WIDTHS = (BINS, 128, 64, 64, 128)


class SileroVAD(nn.Module):
    """The probability of speech in every frame of 512 samples, with state carried from frame to frame."""

    def __init__(self) -> None:
        super().__init__()
        self.stft_conv = nn.Conv2d(1, 2 * BINS, (1, 256), (1, 128), bias=False)
        for i, stride in enumerate(STRIDES, 1):
            self.add_module(f"conv{i}", nn.Conv2d(WIDTHS[i - 1], WIDTHS[i], (1, 3), (1, stride), (0, 1)))
        self.lstm_input = nn.Linear(WIDTH, 4 * WIDTH)
        self.lstm_state = nn.Linear(WIDTH, 4 * WIDTH)
        self.final_conv = nn.Conv2d(WIDTH, 1, 1)

    def forward(self, wave: Tensor) -> Tensor:
        """Samples [n] in -1..1 -> probabilities [n // 512]; what does not fill a frame is left out."""
        frames = F.pad(wave, (CONTEXT, 0)).unfold(0, FRAME + CONTEXT, FRAME)
        x = F.pad(frames[:, None], (0, CONTEXT), mode="reflect")[:, :, None]
        y = self.stft_conv(x)
        y = (y[:, :BINS].square() + y[:, BINS:].square()).sqrt()
        for i in range(1, len(STRIDES) + 1):
            y = F.relu(self.get_submodule(f"conv{i}")(y))
        inputs = self.lstm_input(y.reshape(len(frames), WIDTH))
        hidden = cell = torch.zeros(1, WIDTH)
        states = []
        for row in inputs:
            i, f, g, o = (row + self.lstm_state(hidden)).chunk(4, -1)
            cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
            hidden = o.sigmoid() * cell.tanh()
            states.append(hidden)
        z: Tensor = self.final_conv(F.relu(torch.cat(states))[:, :, None, None])
        return z.sigmoid().flatten()
