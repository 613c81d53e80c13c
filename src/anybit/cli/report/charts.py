"""The three pictures of the page, as inline SVG. Colours are classes that the page's style sheet gives for light and dark."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

from anybit.cli import numbers
from anybit.cli.report.data import LayerBits, Variant

METHODS = {"original": "original", "rtn": "RTN, uniform", "gptq": "GPTQ, uniform", "mixed": "mixed bits"}
"""Label of every method, in the order of legends."""


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) that cover [low, high], about `wanted` of them."""
    span = (high - low) or abs(high) or 1.0
    step = 10.0 ** math.floor(math.log10(span / wanted))
    step *= next(factor for factor in (1, 2, 5, 10) if factor * step * wanted >= span)
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2, 5 times powers of ten that cover [low, high], thinned to powers of ten over a long range."""
    factors = (1, 2, 5) if high / low < 1000 else (1,)
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    values = [factor * 10.0**exponent for exponent in exponents for factor in factors]
    below = max((value for value in values if value <= low), default=values[0])
    above = min((value for value in values if value >= high), default=values[-1])
    return [value for value in values if below <= value <= above]


def marker(method: str, x: float, y: float, title: str) -> str:
    """A point whose shape as well as its colour tells the method; `title` shows under the pointer."""
    shapes = {
        "original": f'<path d="M{x - 6:.1f} {y:.1f}h12M{x:.1f} {y - 6:.1f}v12" class="cross"/>',
        "rtn": f'<rect x="{x - 5:.1f}" y="{y - 5:.1f}" width="10" height="10" rx="1"/>',
        "gptq": f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5.5"/>',
        "mixed": f'<path d="M{x:.1f} {y - 7:.1f}L{x + 7:.1f} {y:.1f}L{x:.1f} {y + 7:.1f}L{x - 7:.1f} {y:.1f}Z"/>',
    }
    return f'<g class="point {method}"><title>{escape(title)}</title>{shapes[method]}</g>'


def legend(variants: Sequence[Variant]) -> str:
    """The methods that occur, each with its marker, as HTML."""
    present = [method for method in METHODS if any(variant.method == method for variant in variants)]
    items = [
        f'<span><svg viewBox="0 0 16 16" width="16" height="16" aria-hidden="true">{marker(method, 8, 8, METHODS[method])}</svg>'
        f"{escape(METHODS[method])}</span>"
        for method in present
    ]
    return f'<p class="legend">{"".join(items)}</p>'


def short(variant: Variant) -> str:
    """The label beside a point: the name without its method where the colour tells it."""
    return variant.name.removeprefix("RTN ").removeprefix("GPTQ ").removeprefix("mixed ").removesuffix(" bits")


def size_against_perplexity(variants: Sequence[Variant], width: int = 880, height: int = 420) -> str:
    """Size (x) against perplexity (y, logarithmic where the range asks for it); a line joins the points of a method by size."""
    right, top, bottom = 24, 20, 52
    sizes = [variant.bytes / 1e6 for variant in variants]
    scores = [variant.perplexity for variant in variants if math.isfinite(variant.perplexity)]
    logarithmic = max(scores) > 3 * min(scores)
    x_ticks = ticks(min(0.0, min(sizes)), max(sizes), 8)
    # some room below the best, so that no label meets the axis
    lowest = min(scores) / 1.1 if logarithmic else min(scores) - 0.08 * ((max(scores) - min(scores)) or min(scores))
    y_ticks = log_ticks(lowest, max(scores)) if logarithmic else ticks(lowest, max(scores), 6)
    left = 44 + 8 * max(len(f"{value:g}") for value in y_ticks)
    scale: Callable[[float], float] = math.log10 if logarithmic else float
    low, high = scale(y_ticks[0]), scale(y_ticks[-1])

    def px(size: float) -> float:
        return left + (size - x_ticks[0]) / (x_ticks[-1] - x_ticks[0]) * (width - left - right)

    def py(score: float) -> float:
        share = (scale(score) - low) / (high - low) if high > low else 0.5
        return height - bottom - share * (height - top - bottom)

    parts = []
    for value in y_ticks:
        y = py(value)
        parts.append(f'<line class="grid" x1="{left}" x2="{width - right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{left - 10}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    for value in x_ticks:
        x = px(value)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{height - bottom}"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{height - bottom + 20}" text-anchor="middle">{value:g}</text>')
    parts.append(
        f'<text class="axis" x="{(left + width - right) / 2}" y="{height - 8}" text-anchor="middle">size, MB</text>'
    )
    kind = "perplexity (logarithmic)" if logarithmic else "perplexity"
    middle = (top + height - bottom) / 2
    parts.append(
        f'<text class="axis" transform="translate(16 {middle}) rotate(-90)" text-anchor="middle">{kind}</text>'
    )
    shown = [variant for variant in variants if math.isfinite(variant.perplexity)]
    for method in METHODS:
        group = sorted((v for v in shown if v.method == method), key=lambda variant: variant.bytes)
        points = " ".join(f"{px(v.bytes / 1e6):.1f},{py(v.perplexity):.1f}" for v in group)
        if len(group) > 1:
            parts.append(f'<polyline class="line {method}" points="{points}"/>')
    # a side for every method, so that labels of near points do not meet: dx, dy, anchor
    sides = {
        "rtn": (12, 4, "start"),
        "gptq": (-12, 4, "end"),
        "mixed": (0, 23, "middle"),
        "original": (0, 23, "middle"),
    }
    for variant in shown:
        x, y = px(variant.bytes / 1e6), py(variant.perplexity)
        title = f"{variant.name}: {numbers.size(variant.bytes)}, perplexity {numbers.perplexity(variant.perplexity)}"
        parts.append(marker(variant.method, x, y, title))
        dx, dy, anchor = sides[variant.method]
        parts.append(
            f'<text class="label {variant.method}" x="{x + dx:.1f}" y="{y + dy:.1f}" text-anchor="{anchor}">'
            f"{escape(short(variant))}</text>"
        )
    return svg(width, height, "Size of every version of the model against its perplexity", parts)


def bits_per_layer(layers: Sequence[LayerBits], title: str, most: float = 8.5, width: int = 880) -> str:
    """A cell a weight: columns are blocks, rows the roles within a block; deeper colour is more bits, which the cell also names.

    most: the bits of the deepest colour; give pictures that are compared the same.
    """
    blocks = sorted({layer.block for layer in layers if layer.block is not None})
    roles = list(dict.fromkeys(layer.part for layer in layers if layer.block is not None))
    outside = [layer for layer in layers if layer.block is None]
    left, row, gap = 108, 30, 3
    cell = (width - left) / max(len(blocks), 1)
    lines = len(roles) + len(outside)
    height = row * lines + 34
    parts = []

    def draw(layer: LayerBits, x: float, y: float, wide: float) -> None:
        # shade from 12 % (1 bit) to 100 % (`most` bits and above) of the accent over the page
        share = min(max((layer.bits - 1) / (max(most, 2.0) - 1), 0.0), 1.0)
        title = f"{layer.name}: {layer.spec}, {layer.bits:.3f} bits a weight, {layer.parameters:,} weights"
        shade = "deep" if share > 0.55 else "pale"
        parts.append(
            f'<g class="cell {shade}"><title>{escape(title)}</title>'
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{wide - gap:.1f}" height="{row - gap}" rx="3" '
            f'style="fill-opacity:{0.12 + 0.88 * share:.2f}"/>'
            f'<text x="{x + (wide - gap) / 2:.1f}" y="{y + row / 2 + 3:.1f}" text-anchor="middle">{layer.bits:.3g}</text></g>'
        )

    for index, layer in enumerate(outside):
        y = index * row
        parts.append(
            f'<text class="tick" x="{left - 10}" y="{y + row / 2 + 3}" text-anchor="end">{escape(layer.part)}</text>'
        )
        draw(layer, left, y, cell * max(len(blocks), 1))
    for index, role in enumerate(roles):
        y = (index + len(outside)) * row
        parts.append(
            f'<text class="tick" x="{left - 10}" y="{y + row / 2 + 3}" text-anchor="end">{escape(role)}</text>'
        )
        for column, block in enumerate(blocks):
            for layer in layers:
                if layer.block == block and layer.part == role:
                    draw(layer, left + column * cell, y, cell)
    for column, block in enumerate(blocks):
        parts.append(
            f'<text class="tick" x="{left + (column + 0.5) * cell - gap / 2:.1f}" y="{lines * row + 16}" '
            f'text-anchor="middle">{block}</text>'
        )
    parts.append(f'<text class="axis" x="{left - 10}" y="{lines * row + 16}" text-anchor="end">block</text>')
    return svg(width, height, title, parts)


def speed_bars(variants: Sequence[Variant], which: str, width: int = 880) -> str:
    """Horizontal bars of tokens a second; `which` is `prefill` or `decode`. Versions that were not measured are left out."""
    values = [(variant, getattr(variant, which)) for variant in variants if getattr(variant, which) is not None]
    if not values:
        return ""
    left, right, row = 128, 96, 30
    top = max(value for _, value in values) or 1.0
    parts = []
    for index, (variant, value) in enumerate(values):
        y = index * row
        long = (width - left - right) * value / top
        parts.append(
            f'<text class="tick" x="{left - 10}" y="{y + row / 2 + 3}" text-anchor="end">{escape(variant.name)}</text>'
        )
        parts.append(
            f'<g class="bar {variant.method}"><title>{escape(variant.name)}: {value:.1f} tokens/s</title>'
            f'<rect x="{left}" y="{y + 5}" width="{max(long, 1):.1f}" height="{row - 10}" rx="3"/></g>'
        )
        parts.append(
            f'<text class="value" x="{left + long + 8:.1f}" y="{y + row / 2 + 4}">{numbers.three(value)}</text>'
        )
    return svg(width, len(values) * row, f"{which} speed of every version, tokens a second", parts)


def svg(width: float, height: float, title: str, parts: Sequence[str]) -> str:
    """The parts as one scaling picture with a name for screen readers."""
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(title, quote=True)}">'
        f"{''.join(parts)}</svg>"
    )
