"""Post-norm layers against torch's own; the class token decides (logits against the stored ones: test_networks)."""

import torch
from torch import nn

from anybit.zoo.architectures.kwt import KWT1, LABELS, Layer


def test_layer_equals_torchs_post_norm_encoder_layer():
    torch.manual_seed(0)
    ours = Layer().eval()
    theirs = nn.TransformerEncoderLayer(
        64, 1, 256, 0.0, lambda x: nn.functional.gelu(x, approximate="tanh"), 1e-6, True
    ).eval()
    with torch.no_grad():
        theirs.self_attn.in_proj_weight.copy_(torch.cat([ours.q.weight, ours.k.weight, ours.v.weight]))
        theirs.self_attn.in_proj_bias.zero_()
        for a, b in ((theirs.self_attn.out_proj, ours.o), (theirs.linear1, ours.fc1), (theirs.linear2, ours.fc2)):
            a.load_state_dict(b.state_dict())
        x = torch.randn(2, 99, 64)
        torch.testing.assert_close(ours(x), theirs(x), atol=1e-5, rtol=1e-4)


def test_logits():
    assert KWT1()(torch.randn(3, 98, 40)).shape == (3, len(LABELS)) == (3, 12)
