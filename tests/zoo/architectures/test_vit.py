"""The transformer against torch's own encoder layer, and its patches."""

import torch
from torch import nn

from anybit.zoo.architectures.vit import Block, VisionTransformer


def test_block_equals_torchs_encoder_layer():
    torch.manual_seed(0)
    ours = Block(24, 3).eval()
    theirs = nn.TransformerEncoderLayer(24, 3, 96, 0.0, "gelu", batch_first=True, norm_first=True).eval()
    with torch.no_grad():
        theirs.self_attn.in_proj_weight.copy_(torch.cat([ours.q.weight, ours.k.weight, ours.v.weight]))
        theirs.self_attn.in_proj_bias.copy_(torch.cat([ours.q.bias, ours.k.bias, ours.v.bias]))
        for a, b in ((theirs.self_attn.out_proj, ours.o), (theirs.linear1, ours.fc1), (theirs.linear2, ours.fc2)):
            a.load_state_dict(b.state_dict())
        x = torch.randn(2, 7, 24)
        torch.testing.assert_close(ours(x), theirs(x), atol=1e-5, rtol=1e-4)


def test_patches_and_logits():
    model = VisionTransformer().eval()
    assert model.positions.shape == (64, 192) and len(model.blocks) == 6
    x = torch.randn(2, 3, 32, 32)
    patch = x[1, :, 4:8, 8:12].flatten() @ model.embed.weight[5].flatten() + model.embed.bias[5]
    torch.testing.assert_close(model.embed(x)[1, 5, 1, 2], patch)
    torch.testing.assert_close(model.tokens(x)[1, 8 * 1 + 2, 5], patch + model.positions[10, 5])
    assert model(x).shape == (2, 10)


def test_any_patches_in_any_order():
    """Without positions of their own, tokens are a set: their mean does not know the order, and each goes its own way."""
    torch.manual_seed(0)
    model = VisionTransformer(width=24, layers=2).eval()
    tokens, order = torch.randn(3, 16, 24), torch.randperm(16)
    states, shuffled = model.states(tokens), model.states(tokens[:, order])
    assert len(states) == 2
    for a, b in zip(states, shuffled, strict=True):
        torch.testing.assert_close(a[:, order], b, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(states[-1].mean(-1), model.norm.bias.mean().expand(3, 16), atol=1e-5, rtol=0)
