"""`Recipe`: what to do with a model, as one validated document."""

from __future__ import annotations

import fnmatch
import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from anybit.errors import FormatError, RecipeError
from anybit.formats import TensorFormat
from anybit.formats.codebook import Codebook
from anybit.formats.integer import Int
from anybit.ops import StaticFormat
from anybit.ops.static import activations
from anybit.quantize import table
from anybit.quantize.magnitudes import StaticRule
from anybit.transforms import table as transforms

KEEP = "keep"
"""In place of a format: leave the tensor as it is stored."""

DEFAULT_CHOICES = (
    *(f"int{bits}/{group}:e4m3fn+t" for bits in (2, 3, 4) for group in ("g64", "g32")),
    *(f"int{bits}/g64:e4m3fn+t" for bits in (5, 6, 8)),
)
"""What a budget chooses from where the recipe does not say. One-byte scales: they lose less than the eighth of a bit that two-byte
scales of 64 weights cost more, at any budget (benchmarks/NOTES-quantization.md, 2026-11-25)."""

FINE_CHOICES = (
    "int5/g64:e4m3fn+t",
    *(f"int{bits}/{group}:e4m3fn+t" for bits in (6, 7, 8) for group in ("g64", "g32")),
    "int8/g16:e4m3fn+t",
    "fp16",
)
"""The same for budgets above FINE_ABOVE. Whole bits are too coarse there: at eight bits smaller groups lose less for what they cost, down
to 16 weights, and from nine on some matrices in 16 bits do (benchmarks/NOTES-quantization.md, 2026-11-28)."""

FINE_ABOVE = 6.0
"""Bits a weight."""

DEFAULT_EMBEDDINGS = "int8/row"
"""Embedding and output matrix of a uniform recipe that does not say."""

SMALLEST_BITS, LARGEST_BITS = 1.0, 16.0


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def check_spec(spec: str) -> str:
    """The spec in its canonical form, or "keep". FormatError where it is unknown or would quantize without a scale."""
    if spec == KEEP:
        return spec
    fmt = TensorFormat.parse(spec)
    if fmt.scale is None and isinstance(fmt.element, (Int, Codebook)):
        raise FormatError(
            f"{spec!r} has no scale, so weights would round to whole numbers; write {spec}/g128 or {spec}/row"
        )
    return str(fmt)


class Calibration(_Strict):
    """Text for methods that need to see inputs. text: a UTF-8 file, the model's own calibration text where None.

    samples: windows taken, spread evenly over the text from a start drawn with `seed`; length: tokens a window.
    """

    text: Path | None = None
    samples: Annotated[int, Field(ge=1, le=100_000)] = 64
    length: Annotated[int, Field(ge=8, le=1_000_000)] = 512
    seed: int = 0


class Override(_Strict):
    """weights: the format (or "keep") of tensors whose name matches `pattern`, a shell pattern; the first match
    counts.
    """

    pattern: str
    weights: str

    @field_validator("weights")
    @classmethod
    def _known(cls, spec: str) -> str:
        return check_spec(spec)


class Step(_Strict):
    """A transform by name with its options (`transforms.table`); a name alone stands for the defaults."""

    name: str
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _named(cls, given: Any) -> Any:
        return {"name": given} if isinstance(given, str) else given

    @model_validator(mode="after")
    def _known(self) -> Step:
        transforms.get(self.name).parse(self.options)
        return self


class Tried(_Strict):
    """What `recipes.auto` tried before it chose: the candidate in words, bits a weight, KL divergence in nats a token (None: refused)."""

    candidate: str
    bits_per_weight: float | None = None
    kl: float | None = None
    refused: str | None = None


class Recipe(_Strict):
    """Either `weights`, one format for every linear layer, or `bits`, a budget of bits a weight over the whole model.

    bits: held over every stored byte and all parameters; each linear layer, the embedding and the output matrix get
    one of `choices` (DEFAULT_CHOICES or FINE_CHOICES where there are none), the whole at the least expected loss; a budget that allows
    more than all of them take is one that everything keeps.
    transforms: rewrites of the model before anything is measured or rounded, in order; None: those of the method, most of which have
    none.  method, options: the quantizer and its options (`quantize.table`).  embeddings, lm_head: their format in a
    uniform recipe (int8/row where None); with a budget, a format here fixes them instead of letting the budget decide.
    cost: what an allocation measures its candidates with; "rtn" is much quicker for large models. None: the method
    itself. activations: a static format such as int8/static gives every quantized matrix a scale of its inputs, measured on the
    calibration text and kept beside the weight, by which the checkpoint is run; other formats, and kv (of the KV cache), are hints on how.
    activation_rule: how such a scale is found (`quantize.magnitudes`).
    tried: what `--method auto` compared, for the record.
    """

    weights: str | None = None
    bits: float | None = None
    choices: tuple[str, ...] = DEFAULT_CHOICES
    transforms: tuple[Step, ...] | None = None
    method: str = "gptq"
    options: dict[str, Any] = Field(default_factory=dict)
    cost: Literal["rtn", "gptq"] | None = None
    calibration: Calibration = Calibration()
    overrides: tuple[Override, ...] = ()
    embeddings: str | None = None
    lm_head: str | None = None
    activations: str | None = None
    activation_rule: StaticRule = "absmax"
    kv: str | None = None
    tried: tuple[Tried, ...] = ()

    @field_validator("weights", "embeddings", "lm_head")
    @classmethod
    def _known(cls, spec: str | None) -> str | None:
        return None if spec is None else check_spec(spec)

    @field_validator("activations")
    @classmethod
    def _known_activations(cls, spec: str | None) -> str | None:
        return None if spec is None else str(activations(spec))

    @field_validator("kv")
    @classmethod
    def _known_hint(cls, spec: str | None) -> str | None:
        return None if spec is None else str(TensorFormat.parse(spec))

    @field_validator("choices")
    @classmethod
    def _known_choices(cls, choices: tuple[str, ...]) -> tuple[str, ...]:
        if not choices:
            raise RecipeError("a budget needs at least one format to choose from")
        return tuple(dict.fromkeys(check_spec(choice) for choice in choices))

    @model_validator(mode="before")
    @classmethod
    def _of_the_method(cls, given: Any) -> Any:
        """A method made for one format stands for it."""
        if isinstance(given, dict) and given.get("weights") is None and given.get("bits") is None:
            method = table.METHODS.get(given.get("method", ""))
            if method is not None and method.weights is not None:
                return {**given, "weights": method.weights}
        return given

    @model_validator(mode="before")
    @classmethod
    def _of_the_budget(cls, given: Any) -> Any:
        """The choices for the budget, where there are none."""
        if isinstance(given, dict) and "choices" not in given:
            bits = given.get("bits")
            if isinstance(bits, int | float) and bits > FINE_ABOVE:
                return {**given, "choices": FINE_CHOICES}
        return given

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if (self.weights is None) == (self.bits is None):
            raise RecipeError(
                "a recipe names either weights (one format, such as int4/g128) or bits (a budget, such as 3.5)"
            )
        if self.bits is not None and not SMALLEST_BITS <= self.bits <= LARGEST_BITS:
            raise RecipeError(
                f"bits must be between {SMALLEST_BITS:g} and {LARGEST_BITS:g} a weight, got {self.bits:g}"
            )
        table.get(self.method).parse(self.options)
        if self.static is not None and any(step.name == "residual" for step in self.steps):
            raise RecipeError(
                f"activations {self.activations} leave no residual that the transform residual could add; take a format of few bits "
                "with dynamic scales, or other transforms"
            )
        if self.static is None and self.activation_rule != "absmax":
            raise RecipeError(
                f"activation_rule {self.activation_rule} is for static activations; write activations: int8/static, or leave it out"
            )
        return self

    @property
    def static(self) -> StaticFormat | None:
        """The format of static activations; None for dynamic or exact ones."""
        fmt = None if self.activations is None else activations(self.activations)
        return fmt if isinstance(fmt, StaticFormat) else None

    @property
    def steps(self) -> tuple[Step, ...]:
        """The transforms: the recipe's own, else those its method comes with."""
        if self.transforms is not None:
            return self.transforms
        own = table.get(self.method).transforms
        return tuple(Step(name=name, options=dict(options)) for name, options in own.items())

    @property
    def uniform(self) -> bool:
        """One format for all linear layers, rather than a budget."""
        return self.weights is not None

    def override(self, name: str) -> str | None:
        """The format that an override gives the tensor `name`, if any does."""
        return next((o.weights for o in self.overrides if fnmatch.fnmatchcase(name, o.pattern)), None)

    def fingerprint(self) -> str:
        """sha256 over what the recipe means: options and transforms that are left out as they are by default in this version, and not where
        the calibration text lies."""
        settled = self.model_copy(
            update={
                "options": asdict(table.get(self.method).parse(self.options)),
                "transforms": tuple(
                    Step(name=step.name, options=asdict(transforms.get(step.name).parse(step.options)))
                    for step in self.steps
                ),
                "calibration": self.calibration.model_copy(update={"text": None}),
            }
        )
        return hashlib.sha256(settled.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """Canonical JSON: every field but an empty `tried` and the default rule of static activations, sorted keys."""
        left_out = {
            name
            for name in ("tried", "activation_rule")
            if getattr(self, name) == type(self).model_fields[name].default
        }
        document = self.model_dump(mode="json", exclude=left_out)
        return json.dumps(document, sort_keys=True, separators=(",", ":"))

    @classmethod
    def parse(cls, data: Any, *, source: str = "recipe") -> Recipe:
        """A recipe from a mapping. RecipeError with one sentence naming `source`, the field, and what is wrong."""
        if not isinstance(data, dict):
            raise RecipeError(
                f"{source}: a recipe is a mapping of fields, such as 'weights: int4/g128'; got {type(data).__name__}"
            )
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise RecipeError(f"{source}: {_sentence(error)}") from None

    @classmethod
    def read(cls, path: Path | str) -> Recipe:
        """A recipe from a YAML or JSON file (JSON is YAML); RecipeError where it cannot be read or is not valid."""
        try:
            data = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(f"cannot read the recipe {path}: {error}") from None
        except yaml.YAMLError as error:
            raise RecipeError(f"{path}: not a YAML or JSON document: {' '.join(str(error).split())}") from None
        return cls.parse(data, source=str(path))


def _sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"unknown field {where!r}; fields are {', '.join(Recipe.model_fields)}"
    cause = first.get("ctx", {}).get("error")
    message = (
        str(cause) if cause is not None else f"{first['msg'][:1].lower()}{first['msg'][1:]}, got {first['input']!r}"
    )
    return f"{where}: {message}" if where else message
