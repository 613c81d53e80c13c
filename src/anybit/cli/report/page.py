"""The page around the pictures: one HTML document without a single outside reference, readable in light and dark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from anybit.cli import numbers
from anybit.cli.report import charts
from anybit.cli.report.data import Report, Variant

STYLE = """
:root { color-scheme: light dark; --page:#fbfbfa; --card:#ffffff; --ink:#1c1e21; --soft:#5c636b; --line:#e3e5e8;
  --original:#5c636b; --rtn:#c2570c; --gptq:#1f6fd0; --mixed:#0b8a6a; --on:#ffffff; }
@media (prefers-color-scheme: dark) { :root { --page:#121417; --card:#1a1d21; --ink:#e8eaed; --soft:#a2a9b1; --line:#2e3339;
  --original:#a2a9b1; --rtn:#f0883e; --gptq:#63a9ff; --mixed:#3fc79a; --on:#0c1411; } }
* { box-sizing: border-box; }
body { margin:0; background:var(--page); color:var(--ink); font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif; }
main { max-width:960px; margin:0 auto; padding:40px 20px 64px; }
h1 { font-size:30px; line-height:1.2; margin:0 0 8px; letter-spacing:-.01em; }
h2 { font-size:20px; margin:44px 0 4px; }
h3 { font-size:15px; margin:0 0 12px; }
p { margin:6px 0 12px; max-width:72ch; } .soft { color:var(--soft); }
.tiles { display:grid; grid-template-columns:repeat(auto-fit,minmax(190px,1fr)); gap:12px; margin:24px 0 8px; }
.tile, figure { background:var(--card); border:1px solid var(--line); border-radius:10px; }
.tile { padding:14px 16px; } .tile b { display:block; font-size:26px; line-height:1.25; font-variant-numeric:tabular-nums; }
.tile span { color:var(--soft); font-size:14px; }
figure { margin:12px 0; padding:18px; } figure svg { display:block; width:100%; height:auto; }
.legend { display:flex; flex-wrap:wrap; gap:6px 20px; font-size:14px; color:var(--soft); margin:0 0 10px; }
.legend span { display:inline-flex; align-items:center; gap:6px; }
.legend svg { width:16px; height:16px; }
svg text { font:13px system-ui,-apple-system,"Segoe UI",Roboto,sans-serif; fill:var(--ink); font-variant-numeric:tabular-nums; }
svg .tick { fill:var(--soft); } svg .axis { fill:var(--soft); font-size:13px; } svg .label { font-weight:600; }
svg .grid { stroke:var(--line); stroke-width:1; } svg .line { fill:none; stroke-width:1.75; opacity:.55; }
.point .cross { stroke-width:3; fill:none; stroke-linecap:round; }
.original { --c:var(--original); } .rtn { --c:var(--rtn); } .gptq { --c:var(--gptq); } .mixed { --c:var(--mixed); }
.point { fill:var(--c); stroke:var(--card); stroke-width:1.5; } .point .cross { stroke:var(--c); } .line { stroke:var(--c); }
svg .label { fill:var(--c); } .bar { fill:var(--c); }
.cell rect { fill:var(--mixed); } .cell text { font-size:12px; } .cell.deep text { fill:var(--on); }
.scroll { overflow-x:auto; }
table { border-collapse:collapse; width:100%; font-size:14.5px; margin:8px 0; font-variant-numeric:tabular-nums; }
th { text-align:left; font-weight:600; color:var(--soft); border-bottom:1px solid var(--line); padding:6px 12px 6px 0; white-space:nowrap; }
td { border-bottom:1px solid var(--line); padding:6px 12px 6px 0; white-space:nowrap; } td.n, th.n { text-align:right; }
tr.best td { font-weight:600; } td.key { color:var(--soft); white-space:normal; } td.text { white-space:normal; }
details { margin:8px 0; } summary { cursor:pointer; color:var(--soft); font-size:14.5px; }
blockquote { margin:12px 0; padding:16px 20px; background:var(--card); border:1px solid var(--line); border-left:4px solid var(--mixed);
  border-radius:6px; font-family:Georgia,"Times New Roman",serif; font-size:17px; white-space:pre-wrap; }
blockquote i { font-style:normal; color:var(--soft); }
dot { display:inline-block; width:10px; height:10px; border-radius:3px; margin-right:8px; background:var(--c); }
@media print { body { background:#fff; } figure, .tile { break-inside:avoid; } }
"""


def html(report: Report) -> str:
    """The whole document."""
    best, reference = report.chosen, report.reference
    sections = [
        f"<h1>{escape(report.model)} at fewer bits</h1>",
        f'<p class="soft">One model, {len(report.variants)} versions of it, all measured in one run of <code>anybit demo</code> '
        f"on this machine. The best of the few-bit versions is <b>{escape(best.name)}</b>.</p>",
        tiles(best, reference),
        "<h2>Size against perplexity</h2>",
        '<p class="soft">Lower is better in both directions. A point&rsquo;s label is its bits; sizes count everything that is stored: '
        "codes, scales, zero points, padding and the tensors left unquantized.</p>",
        f"<figure>{charts.legend(report.variants)}{charts.size_against_perplexity(report.variants)}</figure>",
        f'<div class="scroll">{variants_table(report.variants, reference, report.best)}</div>',
        *bits_sections(report.variants),
        *speed_sections(report.variants),
        "<h2>A story by the few-bit model</h2>",
        f'<p class="soft">Written by {escape(best.name)} ({best.bits_per_weight:.2f} bits a weight) from the words in grey.</p>',
        f"<blockquote><i>{escape(report.prompt)}</i>{escape(report.story)}</blockquote>",
        "<h2>How this was measured</h2>",
        facts_table(report.facts),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(report.model)} at fewer bits</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in sections if part)
        + "\n</main>\n</body>\n</html>\n"
    )


def tiles(best: Variant, reference: Variant) -> str:
    """The four figures to remember of the best version, against the original."""
    figures = [
        (f"{best.bits_per_weight:.2f}", "bits a weight, everything counted"),
        (
            f"{reference.bytes / best.bytes:.1f}× smaller",
            f"{numbers.size(reference.bytes)} → {numbers.size(best.bytes)}",
        ),
        (
            numbers.change(best.perplexity, reference.perplexity),
            f"perplexity, {numbers.perplexity(reference.perplexity)} → {numbers.perplexity(best.perplexity)}",
        ),
    ]
    if best.decode and reference.decode:
        figures.append(
            (
                f"{best.decode / reference.decode:.1f}× as fast",
                f"writing, {numbers.three(reference.decode)} → {numbers.three(best.decode)} tokens/s",
            )
        )
    return (
        f'<div class="tiles">{"".join(f"<div class=tile><b>{a}</b><span>{b}</span></div>" for a, b in figures)}</div>'
    )


def table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], numeric: Sequence[int], marks: Sequence[str] = ()
) -> str:
    """An HTML table of cells that are HTML already; `numeric` columns stand to the right, `marks` are classes of rows."""
    side = ['class="n"' if index in numeric else "" for index in range(len(columns))]
    head = "".join(f"<th {side[index]}>{name}</th>" for index, name in enumerate(columns))
    body = []
    for index, row in enumerate(rows):
        mark = f' class="{marks[index]}"' if marks and marks[index] else ""
        body.append(f"<tr{mark}>" + "".join(f"<td {side[i]}>{cell}</td>" for i, cell in enumerate(row)) + "</tr>")
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"


def variants_table(variants: Sequence[Variant], reference: Variant, best: str) -> str:
    """Every version with its exact figures."""
    rows = [
        [
            f'<dot class="{variant.method}"></dot>{escape(variant.name)}',
            f"{variant.perplexity:.3f}" if variant.perplexity < 1e4 else numbers.perplexity(variant.perplexity),
            numbers.change(variant.perplexity, reference.perplexity) if variant is not reference else "",
            f"{variant.bytes:,}",
            f"{variant.bits_per_weight:.3f}",
            f"{variant.prefill:,.0f}" if variant.prefill else "–",
            f"{variant.decode:,.1f}" if variant.decode else "–",
        ]
        for variant in variants
    ]
    columns = ["version", "perplexity", "change", "bytes", "bits a weight", "prefill, tokens/s", "decode, tokens/s"]
    return table(columns, rows, range(1, 7), ["best" if variant.name == best else "" for variant in variants])


def bits_sections(variants: Sequence[Variant]) -> list[str]:
    """Where the mixed versions put their bits: a picture and the exact list for each."""
    mixed = [variant for variant in variants if variant.method == "mixed" and variant.layers]
    if not mixed:
        return []
    parts = [
        "<h2>Bits per layer</h2>",
        '<p class="soft">What the allocation gave each weight matrix, scales counted: deeper colour is more bits. It solves exactly '
        "for the smallest predicted loss within the budget.</p>",
    ]
    most = min(max(layer.bits for variant in mixed for layer in variant.layers), 8.5)
    for variant in mixed:
        picture = charts.bits_per_layer(variant.layers, f"Bits per layer of {variant.name}", most)
        rows = [
            [escape(layer.name), escape(layer.spec), f"{layer.bits:.3f}", f"{layer.parameters:,}"]
            for layer in variant.layers
        ]
        exact = table(["weight", "format", "bits a weight", "weights"], rows, (2, 3))
        parts.append(
            f"<figure><h3>{escape(variant.name)}</h3>{picture}"
            f'<details><summary>exact figures</summary><div class="scroll">{exact}</div></details></figure>'
        )
    return parts


def speed_sections(variants: Sequence[Variant]) -> list[str]:
    """Bars of the speeds that were measured."""
    pictures = [(which, charts.speed_bars(variants, which)) for which in ("prefill", "decode")]
    titles = {"prefill": "Reading a prompt (prefill), tokens a second", "decode": "Writing (decode), tokens a second"}
    figures = [f"<figure><h3>{titles[which]}</h3>{picture}</figure>" for which, picture in pictures if picture]
    if not figures:
        return []
    return [
        "<h2>Speed</h2>",
        '<p class="soft">Longer is faster. Medians of interleaved runs; exact figures in the table above.</p>',
        *figures,
    ]


def facts_table(facts: Mapping[str, str]) -> str:
    """Label and value pairs."""
    rows = [
        f'<tr><td class="key">{escape(key)}</td><td class="text">{escape(value)}</td></tr>'
        for key, value in facts.items()
    ]
    return f"<table><tbody>{''.join(rows)}</tbody></table>"
