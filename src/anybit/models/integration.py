"""Checkpoints of anybit through `AutoModelForCausalLM.from_pretrained`, by transformers' own registry of quantizers.

`config.json` carries {"quantization_config": {"quant_method": "anybit", "formats": {"X.weight": spec, …}}}.  Before the weights are
read, every module named there is replaced by its quantized twin of `anybit.nn`, whose buffers have the checkpoint's names.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from anybit.errors import CheckpointError
from anybit.formats import TensorFormat
from anybit.models.module import replace_layer
from anybit.models.online import AFFINE, KEY, Affine, KeyOrder, Online, Split
from anybit.models.online import read as read_online
from anybit.models.weights import INPUT_SCALE
from anybit.nn import Holder, QEmbedding, QLinear
from anybit.ops import StaticFormat
from anybit.ops.static import activations
from anybit.transforms.block_affine import BlockAffine

METHOD = "anybit"

Turn = Callable[[torch.Tensor], torch.Tensor]


@register_quantization_config(METHOD)
class AnybitConfig(QuantizationConfigMixin):
    """The object under `quantization_config` in config.json: the spec of each quantized tensor by its logical name.

    act: format of the activations while multiplying, such as "int8/g128", or int8/static with scales beside the weights; None (the
    default) multiplies with exact activations.
    online: transforms left to run time, as `models.online` writes them.
    """

    def __init__(
        self,
        formats: dict[str, str] | None = None,
        act: str | None = None,
        online: list[dict[str, Any]] | None = None,
        **_: Any,
    ) -> None:
        self.quant_method = METHOD  # type: ignore[assignment]
        self.formats = formats or {}
        self.act = act
        self.online = online or []
        at_run_time = read_online({KEY: self.online})
        if any(isinstance(each, KeyOrder) and each.pairs for each in at_run_time):
            raise CheckpointError(
                "the checkpoint keeps key channels in an order of each head, for which transformers has no angles; run it with anybit"
            )
        if any(isinstance(each, Split) for each in at_run_time):
            raise CheckpointError(
                "the checkpoint keeps outlier columns in matrices of their own, which transformers has no place for; run it with anybit"
            )
        if not self.formats:
            raise CheckpointError("config.json: quantization_config of anybit lists no formats")


@register_quantizer(METHOD)
class AnybitQuantizer(HfQuantizer):
    """Puts the quantized modules in place of the plain ones before transformers loads the checkpoint."""

    quantization_config: AnybitConfig
    requires_calibration = True  # from_pretrained loads what `anybit quantize` made; it does not quantize

    def validate_environment(self, *args: Any, **kwargs: Any) -> None:
        if not self.pre_quantized:
            raise CheckpointError(
                "from_pretrained loads quantized checkpoints only; make one with `anybit quantize MODEL OUT`"
            )

    def get_new_dtype(self, converter: Any, param: Any, dtype: torch.dtype | None) -> torch.dtype | None:
        """Stored dtypes mean something here (fp16 scales, bf16 gains): nothing is cast but what belongs to plain modules."""
        return dtype

    def _process_model_before_weight_loading(self, model: Any, **kwargs: Any) -> Any:
        config = self.quantization_config
        act = activations(config.act) if config.act else None
        for weight, spec in config.formats.items():
            name = weight.removesuffix(".weight")
            fmt = TensorFormat.parse(spec)
            replace_layer(model, name, _empty_twin(_submodule(model, name), name, fmt, act))
        for each in read_online({KEY: config.online}):
            if isinstance(each, Affine):
                _add_factors(model, each)
        embedding = model.get_input_embeddings()
        if isinstance(embedding, QEmbedding) and model.config.get_text_config().tie_word_embeddings:
            # transformers ties parameters, of which a quantized table has none; the head shares the buffers instead
            model._tied_weights_keys = None
            model.all_tied_weights_keys = {}
            if isinstance(act, StaticFormat):  # stored beside the table, which only looks rows up
                embedding.register_buffer(INPUT_SCALE, torch.zeros(()))
            head = QLinear(embedding.weight, None, act, input_scale=getattr(embedding, INPUT_SCALE, None))
            model.set_output_embeddings(head)
            model._keys_to_ignore_on_load_missing = [
                *(model._keys_to_ignore_on_load_missing or []),
                r"lm_head\.(codes|scale|zero|tensor_scale|input_scale)",
            ]
        return model

    def _process_model_after_weight_loading(self, model: Any, **kwargs: Any) -> Any:
        embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
        tied = model.config.get_text_config().tie_word_embeddings
        if tied and isinstance(embedding, QEmbedding) and isinstance(head, QLinear):
            scale = getattr(embedding, INPUT_SCALE, None)
            model.set_output_embeddings(QLinear(embedding.weight, None, head.act, input_scale=scale))
            if scale is not None:
                delattr(embedding, INPUT_SCALE)  # the head has it; here it would follow the model's dtype
        for each in read_online({KEY: self.quantization_config.online}):
            if isinstance(each, Affine):
                holder = _submodule(model, each.before[0].removesuffix(".weight"))
                turn: Turn = _AffineTurn(holder, each.clip and holder.act is not None)
            elif isinstance(each, Online):
                turn = each.rotation.inverse if each.inverse else each.rotation.forward
            else:  # residuals of activations, which are exact here, and orders behind RoPE, which change nothing; others are refused before
                continue
            for weight in each.before:
                _submodule(model, weight.removesuffix(".weight")).register_forward_pre_hook(_TurnInput(turn))
            for weight in each.after:
                _submodule(model, weight.removesuffix(".weight")).register_forward_hook(_TurnOutput(turn))
        return model

    def is_serializable(self, *args: Any, **kwargs: Any) -> bool:
        return True

    @property
    def is_trainable(self) -> bool:
        return False


class _AffineTurn:
    """A block-affine transform whose factors are buffers of the first module that reads it."""

    def __init__(self, holder: nn.Module, clip: bool) -> None:
        self.holder, self.clip = holder, clip

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        given = [getattr(self.holder, ending[1:]) for ending in AFFINE if hasattr(self.holder, ending[1:])]
        affine = BlockAffine(*given)
        turned = affine.forward(x)
        return affine.clip(turned) if self.clip else turned


class _TurnInput:
    """A hook before a module: its first input is transformed."""

    def __init__(self, turn: Turn) -> None:
        self.turn = turn

    def __call__(self, module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (self.turn(inputs[0]), *inputs[1:])


class _TurnOutput:
    """A hook behind a module: its output is transformed."""

    def __init__(self, turn: Turn) -> None:
        self.turn = turn

    def __call__(self, module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        return self.turn(output)


def _add_factors(model: Any, affine: Affine) -> None:
    """Empty buffers beside the first weight, for the checkpoint's tensors to be read into."""
    layer = _submodule(model, affine.before[0].removesuffix(".weight"))
    if not isinstance(layer, QLinear):
        raise CheckpointError(f"config.json lists a transform before {affine.before[0]}, which is not quantized")
    for name, shape in affine.shapes(layer.shape[1]).items():
        layer.register_buffer(name.rsplit(".", 1)[1], torch.empty(shape, dtype=torch.float16))


def _submodule(model: nn.Module, name: str) -> nn.Module:
    try:
        return model.get_submodule(name)
    except AttributeError:
        raise CheckpointError(
            f"config.json lists {name}.weight as quantized; this {type(model).__name__} has no {name}"
        ) from None


def _empty_twin(layer: nn.Module, name: str, fmt: TensorFormat, act: TensorFormat | StaticFormat | None) -> Holder:
    if isinstance(layer, nn.Linear):
        bias, dtype, device = layer.bias is not None, layer.weight.dtype, layer.weight.device
        return QLinear.empty(layer.out_features, layer.in_features, fmt, bias, dtype, device, act)
    if isinstance(layer, nn.Embedding):
        # a subclass may scale its rows (Gemma)
        scale = getattr(layer, "embed_scale", None)
        if scale is not None:
            raise CheckpointError(
                f"{name}: scaled embeddings cannot stay quantized in transformers; run the model with anybit"
            )
        return QEmbedding.empty(layer.num_embeddings, layer.embedding_dim, fmt, layer.weight.dtype, layer.weight.device)
    raise CheckpointError(f"config.json lists {name}.weight as quantized; a {type(layer).__name__} cannot be")
