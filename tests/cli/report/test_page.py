"""The page is whole, harmless and complete: well-formed, nothing from outside, every exact figure in a table."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from anybit.cli.report import html, page

VOID = {"meta"}


class Strict(HTMLParser):
    """Fails where a tag is closed that is not the one open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)
        self.links += [value for key, value in attrs if key in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_well_formed_and_self_contained(report):
    text = html(report)
    parser = Strict()
    parser.feed(text)
    assert parser.open == []
    assert parser.links == []
    assert not re.search(r"https?:|url\(|@import|<script", text)


def test_every_exact_figure_is_in_the_table(report):
    text = page.variants_table(report.variants, report.reference, report.best)
    for variant in report.variants:
        for cell in (
            f"{variant.perplexity:.3f}",
            f"{variant.bytes:,}",
            f"{variant.bits_per_weight:.3f}",
            f"{variant.decode:,.1f}",
        ):
            assert f">{cell}<" in text


def test_every_layer_of_mixed_versions_is_listed(report):
    text = html(report)
    for variant in report.variants[-2:]:
        for layer in variant.layers:
            assert f"<td >{layer.name}</td><td >{layer.spec}</td>" in text


def test_text_is_escaped(report):
    text = html(report)
    assert "Once upon a &lt;time&gt;" in text
    assert ", a girl &amp; a dog." in text
    assert "80 kB of &lt;books&gt;" in text


def test_readable_in_light_and_dark(report):
    style = page.STYLE
    assert "prefers-color-scheme: dark" in style
    light, dark = re.findall(r":root \{([^}]*)\}", style)
    names = set(re.findall(r"--\w+", light))
    assert names == set(re.findall(r"--\w+", dark))
    assert set(re.findall(r"var\((--\w+)\)", style)) - {"--c"} <= names
    for block in (light, dark):
        colours = dict(re.findall(r"(--\w+):(#\w{6})", block))
        # WCAG 2.1, success criterion 1.4.3: text contrast of at least 4.5; 1.4.11: graphics of at least 3
        assert contrast(colours["--ink"], colours["--page"]) >= 4.5
        assert contrast(colours["--soft"], colours["--card"]) >= 4.5
        for method in ("--original", "--rtn", "--gptq", "--mixed"):
            assert contrast(colours[method], colours["--card"]) >= 3


def contrast(one: str, other: str) -> float:
    """Contrast ratio of WCAG 2.1 of two colours #rrggbb."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        r, g, b = (p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_without_speeds_or_mixed_versions(report):
    from dataclasses import replace

    variants = tuple(replace(variant, prefill=None, decode=None) for variant in report.variants[:5])
    text = html(replace(report, variants=variants, best="GPTQ 4 bits"))
    assert "<h2>Speed</h2>" not in text
    assert "<h2>Bits per layer</h2>" not in text
