"""Any nn.Module: layers are replaced, calibrated and evaluated; on small random models and on a real ResNet."""

import importlib.util

import pytest
import torch
from torch import nn

from anybit.errors import RecipeError
from anybit.formats import TensorFormat
from anybit.models.module import collect, quantize_module, uniform
from anybit.nn import QConv2d, QEmbedding, QLinear
from anybit.quantize import table
from anybit.tensors import quantize

INT4, INT8 = TensorFormat.parse("int4/g32"), TensorFormat.parse("int8/row")


def test_every_layer_is_replaced_and_the_output_stays_near(network):
    x = torch.randn(4, 3, 12, 12)
    model = network()
    want = model(x)
    reports = quantize_module(model, INT8)
    assert [type(model[i]) for i in (0, 2, 4, 8)] == [QConv2d, QConv2d, QConv2d, QLinear]
    assert set(reports) == {"0", "2", "4", "8"}
    assert (model(x) - want).norm() / want.norm() < 0.02


def test_gptq_beats_rounding_on_the_calibrated_distribution(network):
    torch.manual_seed(1)
    mix = torch.randn(3, 3)
    data = [torch.einsum("ij,bjhw->bihw", mix, torch.randn(8, 3, 12, 12)) for _ in range(4)]
    errors = {}
    for method in ("rtn", "gptq"):
        model = network()
        want = model(data[0])
        quantize_module(model, TensorFormat.parse("int3/g32"), method, data[1:])
        errors[method] = ((model(data[0]) - want).norm() / want.norm()).item()
    assert errors["gptq"] < errors["rtn"]


def test_statistics_of_a_convolution_are_those_of_its_unfolded_patches(network):
    model = network()
    x = torch.randn(2, 3, 12, 12)
    got = collect({"0": model[0]}, model, [x])["0"]
    patches = nn.functional.unfold(x, 3, padding=1).transpose(1, 2).reshape(-1, 27).double()
    assert got.tokens == patches.shape[0] == 2 * 144
    torch.testing.assert_close(got.hessian.double(), 2 * patches.T @ patches / len(patches), rtol=1e-4, atol=1e-5)


def test_a_whole_network_in_few_bits_keeps_its_depthwise_kernels_at_eight(network):
    model = network()
    assert uniform(model, INT4) == {"0": INT4, "2": INT8, "4": INT4, "8": INT4}
    assert set(uniform(model, TensorFormat.parse("e4m3fn/row")).values()) == {TensorFormat.parse("e4m3fn/row")}
    quantize_module(model, uniform(model, INT4))
    assert [str(model[i].weight.format) for i in (0, 2, 4, 8)] == ["int4/g32", "int8/row", "int4/g32", "int4/g32"]


def test_chooser_and_mapping_decide_layer_by_layer(network):
    model = network()
    quantize_module(model, lambda name, layer: INT4 if isinstance(layer, nn.Linear) else None)
    assert [type(m) for m in (model[0], model[8])] == [nn.Conv2d, QLinear]
    model = network()
    quantize_module(model, {"0": INT8, "8": INT4})
    assert (model[0].format, type(model[4]), model[8].format) == (INT8, nn.Conv2d, INT4)


def test_transformers_encoders():
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    torch.manual_seed(0)
    bert = transformers.BertModel(transformers.BertConfig(vocab_size=60, **sizes)).eval()
    vit = transformers.ViTModel(transformers.ViTConfig(image_size=16, patch_size=4, **sizes)).eval()
    ids = torch.randint(0, 60, (2, 9))
    for model, batch in ((bert, {"input_ids": ids}), (vit, {"pixel_values": torch.randn(2, 3, 16, 16)})):
        with torch.no_grad():
            want = model(**batch).last_hidden_state
            quantize_module(model, lambda n, m: INT8, "gptq", [batch])
            got = model(**batch).last_hidden_state
        assert (got - want).norm() / want.norm() < 0.03
    assert isinstance(bert.embeddings.word_embeddings, QEmbedding)


class Experts(nn.Module):
    """Four experts of a linear layer, of which each sample takes one; the last never."""

    def __init__(self):
        super().__init__()
        self.choose = nn.Linear(16, 3)
        self.experts = nn.ModuleList(nn.Linear(16, 16) for _ in range(4))
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        picked = self.choose(x).argmax(-1)
        out = torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            mine = picked == number
            if mine.any():
                out[mine] = expert(x[mine])
        return self.head(torch.relu(out) + x)


PLAIN = [name for name, method in table.METHODS.items() if not method.transforms]
QUICK = {"steps": 10, "batch": 2}


def options(method):
    return {
        "gradient_ptq": QUICK,
        "distill": {**QUICK, "model_steps": 10},
        "matgptq_distill": {"model_steps": 5, "batch": 2},
    }.get(method, {})


@pytest.mark.parametrize("method", PLAIN)
def test_an_expert_without_tokens_is_rounded_and_the_others_are_not_spoilt(method):
    torch.manual_seed(2)
    data = torch.randn(64, 16)
    model = Experts().eval()
    with torch.no_grad():
        want = model(data)
    alone = quantize(model.experts[3].weight.detach(), INT4, "mse")
    fmt = TensorFormat.parse(table.get(method).weights or "int4/g32")
    reports = quantize_module(model, fmt, method, list(data.split(16)), options(method))
    assert set(reports) == {"choose", "head", *(f"experts.{i}" for i in range(4))}
    if table.get(method).weights is None:
        assert torch.equal(model.experts[3].weight.dequantize(), alone.dequantize())
    with torch.no_grad():
        got = model(data)
    assert bool(torch.isfinite(got).all()) and (got - want).norm() < 0.5 * want.norm()


def test_refusals(network):
    for method in ("smoothquant", "batquant", "itq3_s"):
        with pytest.raises(
            RecipeError, match=f"{method} rewrites what lies between.*of a Sequential; it takes rtn, gptq"
        ):
            quantize_module(network(), INT4, method, [torch.randn(2, 3, 12, 12)])
    with pytest.raises(RecipeError, match="reached none of the layers"):
        quantize_module(Experts(), {"experts.3": INT4}, "gptq", [torch.randn(4, 16)])

    class Two(nn.Linear):
        def forward(self, x):
            return {"logits": super().forward(x)}

    pair = nn.Sequential(Two(8, 4))
    with pytest.raises(RecipeError, match="one tensor; got dict"):
        quantize_module(pair, lambda name, layer: INT4, "gradient_ptq", [torch.randn(4, 8)])
    with pytest.raises(RecipeError, match="give at least one batch"):
        quantize_module(network(), INT4, "gptq")
    with pytest.raises(RecipeError, match="no Linear, Conv2d or Embedding layer 'head'"):
        quantize_module(network(), {"head": INT4})
    with pytest.raises(RecipeError, match="no layer of this Sequential was chosen"):
        quantize_module(network(), lambda name, layer: None)
    with pytest.raises(RecipeError, match="magic"):
        quantize_module(network(), INT4, "magic")


def test_resnet20_keeps_its_accuracy_at_8_bits_and_gptq_helps_at_3(shared_data):
    spec = importlib.util.spec_from_file_location("shared_reference", shared_data / "reference.py")
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    images, labels = reference.cifar10("test_first1000")
    x, y = reference.nchw(images[:300]), torch.from_numpy(labels[:300])
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    x = (x / 255 - mean) / std

    def logits(model):
        with torch.no_grad():
            return model(x)

    full = logits(resnet20(shared_data))
    assert (full.argmax(1) == y).float().mean() > 0.88
    eight = resnet20(shared_data)
    quantize_module(eight, INT8)
    assert (logits(eight).argmax(1) == full.argmax(1)).float().mean() > 0.98
    errors = {}
    for method in ("rtn", "gptq"):
        model = resnet20(shared_data)
        quantize_module(model, TensorFormat.parse("int3/row"), method, [x[i : i + 50] for i in range(0, 150, 50)])
        errors[method] = (logits(model)[150:] - full[150:]).norm().item()
    assert errors["gptq"] < 0.8 * errors["rtn"]


class Block(nn.Module):
    """Basic block with the parameter-free shortcut (option A of He et al.)."""

    def __init__(self, cin, cout, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(cin, cout, 3, stride, 1, bias=False), nn.BatchNorm2d(cout)
        self.conv2, self.bn2 = nn.Conv2d(cout, cout, 3, 1, 1, bias=False), nn.BatchNorm2d(cout)
        self.pad = (cout - cin) // 2
        self.stride = stride

    def forward(self, x):
        h = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        if self.stride == 2:
            x = nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad))
        return torch.relu(x + h)


def resnet20(data):
    from safetensors.torch import load_file

    model = nn.Module()
    model.conv1, model.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
    widths = [(16, 16, 1), (16, 32, 2), (32, 64, 2)]
    for i, (cin, cout, stride) in enumerate(widths, 1):
        blocks = [Block(cin, cout, stride), Block(cout, cout, 1), Block(cout, cout, 1)]
        setattr(model, f"layer{i}", nn.Sequential(*blocks))
    model.linear = nn.Linear(64, 10)

    def forward(x):
        h = torch.relu(model.bn1(model.conv1(x)))
        h = model.layer3(model.layer2(model.layer1(h)))
        return model.linear(h.mean((2, 3)))

    model.forward = forward
    model.load_state_dict(load_file(data / "resnet_cifar/resnet20.safetensors"), strict=False)
    return model.eval()
