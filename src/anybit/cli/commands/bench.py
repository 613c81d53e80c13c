"""`anybit bench`: speed, measured in interleaved rounds and given as ratios and as shares of what the machine can do."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from anybit.cli import engines, numbers
from anybit.cli.arguments import listed, model_folder, positive
from anybit.cli.console import Console
from anybit.errors import AnybitError

if TYPE_CHECKING:
    from anybit.cli.bench.formats import Line as FormatLine
    from anybit.cli.bench.matmul import Line
    from anybit.cli.bench.model import Measured
    from anybit.cli.bench.quality import Verdict

app = typer.Typer(
    help="Measure speed: matrix products, roundings to number formats, or whole models, against other libraries and engines.",
    no_args_is_help=True,
)

SHAPES = "1x4096x4096,1x11008x4096,4x4096x4096,16x4096x4096,256x4096x4096"
FORMATS = "int8/row@int8/row,int4/g128,int3/g128,int2/g64,nf4/g64,ternary/row"
QUICK_SHAPES, QUICK_ROUNDS, QUICK_COPIES = "1x4096x4096,64x4096x4096", 3, 3
ThreadList = Annotated[
    str | None, typer.Option("--threads", help="Threads, or a list such as 1,2; all cores by default.")
]
RoundsOption = Annotated[int, typer.Option("--rounds", help="Interleaved rounds; figures are medians over them.")]


def percent(share: float | None) -> str:
    """A share as a whole percentage."""
    return "–" if share is None else f"{100 * share:.0f} %"


def thread_counts(text: str | None) -> list[int]:
    """The thread counts to measure with."""
    from anybit.cli.machine import cores

    counts = listed(text, "--threads", int) if text else [cores()]
    for count in counts:
        if not 1 <= count <= 1024:
            raise AnybitError(f"--threads must be between 1 and 1024; got {count}")
    return counts


def dynamic(act: str) -> str | None:
    """The spec of activations whose scales are found in x, None for exact ones; AnybitError for static ones, FormatError for no format."""
    from anybit.formats import is_static

    rounded = engines.activation(act)
    if rounded is not None and is_static(rounded):
        raise AnybitError(f"products are measured with scales that are found in x, such as int8/row; got {act!r}")
    return rounded


@app.command("matmul")
def matmul(
    shapes: Annotated[str | None, typer.Option("--shapes", help=f"MxNxK, several with commas; {SHAPES}.")] = None,
    formats: Annotated[
        str, typer.Option("--formats", help="Weight formats, several with commas; WEIGHTS@ACTIVATIONS where not --act.")
    ] = FORMATS,
    act: engines.ActOption = engines.DEFAULT_ACTIVATION,
    threads: ThreadList = None,
    rounds: RoundsOption = 11,
    peers: Annotated[
        str,
        typer.Option(
            "--peers",
            help="Libraries to measure in turns with ours: all, or ggml, onnxruntime, openvino, torch, torchao.",
        ),
    ] = "",
    warm: Annotated[
        bool, typer.Option("--warm", help="Let weights stay in cache; by default each is read from memory.")
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help=f"{QUICK_SHAPES} (or your own shapes) and at most {QUICK_ROUNDS} rounds.")
    ] = False,
    picture: Annotated[
        Path | None, typer.Option("--picture", help="Draw all of it under the machine's roofline: a PNG or SVG file.")
    ] = None,
    json: engines.JsonOption = False,
) -> None:
    """y = x W^T in every format, against torch in fp32 and bf16, other libraries, and the machine's limits.

    "read" is the time of reading the weight at the bandwidth measured in the same run, "compute" that of the operations at the peak of
    the vector instructions for int8, bf16 or fp32 (tile units go beyond it). The best peer of a row is the fastest other library
    whose weights have at most as many bits (in the classes 1-1.7, 2, 2.6, 3.4, 4-4.5, 5-6.6, 8, 16, 32 bits a weight). Libraries run in
    processes of their own, in .venv-peers (`make peers`).
    """
    from anybit.cli.bench import libraries, limits, roofline_picture
    from anybit.cli.bench import matmul as bench
    from anybit.formats import TensorFormat
    from anybit.zoo.data import checkout

    wanted = listed(shapes or (QUICK_SHAPES if quick else SHAPES), "--shapes", bench.Shape.parse)
    specs = listed(formats, "--formats", str)
    counts = thread_counts(threads)
    positive(rounds, "--rounds")
    rounded = dynamic(act)
    for spec in specs:  # an unknown format is refused before anything is measured
        of_weights, _, own = spec.partition("@")
        TensorFormat.parse(of_weights)
        if own:
            dynamic(own)
    chosen = libraries.MATMUL.wanted(peers)
    if picture is not None:
        roofline_picture.check(picture)
    rounds, copies = (min(rounds, QUICK_ROUNDS), QUICK_COPIES) if quick else (rounds, limits.MOST_COPIES)
    console = Console(json)
    document: list[dict[str, Any]] = []
    drawn: list[roofline_picture.Panel] = []
    versions: dict[str, str] = {}
    absent: dict[str, str] = {}
    ours = bench.Ours(specs, rounded, copies, not warm)
    for count in counts:
        with ExitStack() as stack:
            job = {"threads": count, "copies": 1 if warm else copies, "copy_bytes": limits.COPY_BYTES, "quick": quick}
            # libraries start while weights are made for the first shape
            started = stack.enter_context(ThreadPoolExecutor(1)).submit(
                libraries.MATMUL.start, chosen, checkout(), job, stack
            )
            stack.enter_context(limits.threads(count))
            with console.progress(f"{wanted[0]}, {count} threads") as tell:
                tell("preparing weights", 0, 0)
                ours.prepare(wanted[0].n, wanted[0].k)
                found = started.result()
            versions |= found.versions
            absent |= found.absent
            evict = limits.pause if warm else limits.evictor()
            peaks = limits.peaks(count)
            probes = {kind: partial(limits.peak, kind, count) for kind in limits.VECTOR_KINDS if kind in peaks}
            read = partial(limits.read_bandwidth, count, 1) if warm else limits.reader()
            setting = bench.Setting(rounds, evict, read, probes)
            lines: list[Line] = []
            hopeless: dict[tuple[int, int], list[str]] = {}
            for shape in wanted:
                with console.progress(f"{shape}, {count} threads") as tell:
                    tell("preparing weights", 0, 0)
                    entrants = ours.entrants(shape)
                    slow = hopeless.get((shape.n, shape.k), [])
                    others, lacks, hopeless[shape.n, shape.k] = bench.theirs(shape, found.running, slow, evict)
                    measured = bench.measure(shape, [*entrants, *others], setting, tell)
                    del entrants, others  # and their weights, before those of another shape are made
                lines += measured
                title = f"{shape} (m x n x k), {count} thread{'s' * (count > 1)}, activations {act} where no others are named"
                console.table(MATMUL_COLUMNS, [matmul_row(line) for line in measured], title=title)
                for label, reason in lacks.items():
                    if "form of" not in reason:
                        console.say(f"{label}: {reason}")
                console.say()
                document += [line.as_dict() | {"threads": count} for line in measured]
            drawn.append(roofline_picture.Panel(count, tuple(lines), peaks))
        limits_said = ", ".join(f"{kind} {numbers.three(rate / 1e9)}" for kind, rate in peaks.items())
        console.say(f"peaks measured, {count} thread{'s' * (count > 1)}: {limits_said} GOP/s")
    for reason in absent.values():
        console.say(reason)
    if picture is not None:
        roofline_picture.draw(picture, drawn)
        console.say(f"wrote {picture}")
    console.result({"versions": versions, "absent": absent, "results": document})


MATMUL_COLUMNS = (
    "weights",
    "bits",
    "median",
    "spread",
    "read",
    "of read",
    "compute",
    "of peak",
    "× fp32",
    "× bf16",
    "best peer",
    "×",
)


def matmul_row(line: Line) -> list[object]:
    """The cells of `MATMUL_COLUMNS`."""
    return [
        line.name,
        f"{line.bits:.2f}",
        numbers.seconds(line.seconds.median),
        f"{100 * line.seconds.spread:.0f} %",
        None if line.read_floor is None else numbers.seconds(line.read_floor),
        percent(line.read_share),
        None if line.compute_floor is None else numbers.seconds(line.compute_floor),
        percent(line.compute_share),
        f"{line.over_fp32:.2f}" if line.over_fp32 else None,
        f"{line.over_bf16:.2f}" if line.over_bf16 else None,
        f"{line.best_peer[0]} {numbers.seconds(line.best_peer[1])}" if line.best_peer else None,
        f"{line.over_peer:.2f}" if line.over_peer else None,
    ]


@app.command("model")
def model(
    model: Annotated[str | None, typer.Argument(help="A model directory or the name of a bundled model.")] = None,
    synthetic: Annotated[
        str | None, typer.Option("--synthetic", help="Random weights of a shape: tiny, 135m, 0.5b or 1.1b.")
    ] = None,
    format: Annotated[str, typer.Option("--format", help="Weight format of a synthetic model.")] = "int4/g128",
    head: Annotated[
        str | None,
        typer.Option("--head", help="Format of its embedding and output matrix; that of the weights by default."),
    ] = None,
    threads: ThreadList = None,
    prefill: Annotated[int, typer.Option("--prefill", help="Tokens of the prompt.")] = 512,
    decode: Annotated[int, typer.Option("--decode", help="Tokens to write.")] = 128,
    rounds: RoundsOption = 5,
    peers: Annotated[
        str, typer.Option("--peers", help="Engines to measure in turns with ours: llama.cpp, transformers.")
    ] = "",
    act: engines.ActOption = engines.DEFAULT_ACTIVATION,
    levels: engines.LevelsOption = "exact",
    kv: engines.CacheOption = None,
    json: engines.JsonOption = False,
) -> None:
    """Tokens a second of a whole model, reading a prompt and writing, against other engines."""
    from anybit.cli.bench import peers as other

    if (model is None) == (synthetic is None):
        raise AnybitError("name one model: a directory or bundled model, or --synthetic with tiny, 135m, 0.5b or 1.1b")
    for option, value in (("--prefill", prefill), ("--decode", decode), ("--rounds", rounds)):
        positive(value, option)
    cache = engines.cache("native", kv)
    engines.check("native", act, cache, None, levels)
    counts = thread_counts(threads)
    names = listed(peers, "--peers", str) if peers.strip() else []
    from anybit.zoo.data import checkout

    root = checkout()
    commands = {name: other.command(name, root) for name in names}
    from anybit.cli.bench import limits, subjects
    from anybit.cli.bench import model as bench

    console = Console(json)
    with console.progress("preparing") as job:
        subject = (
            subjects.synthetic(synthetic, format, head, job) if synthetic else subjects.real(model_folder(str(model)))
        )
    console.say(
        f"{subject.name}: {numbers.count(subject.parameters)} parameters, {numbers.size(subject.bytes)} of weights ({subject.format})"
    )
    document: list[dict[str, Any]] = []
    for count in counts:
        with ExitStack() as stack, console.progress(f"{count} threads") as job:
            ours = engines.executor(subject.plan, subject.weights, act, cache, count, job, levels)
            running: dict[str, bench.Engine] = {"anybit": bench.Ours(ours, subject.plan.vocab_size, prefill, decode)}
            labels, read = {"anybit": subject.format}, {"anybit": subject.bytes_per_token}
            for name, arguments in commands.items():
                settings = {"config": subject.config, "threads": count, "prefill": prefill, "decode": decode}
                settings |= {
                    "format": other.PEERS[name].format,
                    "work": str(root / "benchmarks" / "work") if root else ".",
                }
                job(f"starting {name}", 0, 0)
                peer = stack.enter_context(other.Peer(name, arguments, settings))
                running[name], labels[name] = peer, str(peer.about["format"])
                read[name] = int(peer.about["bytes"])
            measured = bench.measure(running, rounds, partial(limits.read_bandwidth, count), read, job)
        over = bench.ratios(measured, "anybit")
        title = f"{count} thread{'s' * (count > 1)}, prefill {prefill}, decode {decode}, medians of {rounds} interleaved rounds"
        columns = MODEL_COLUMNS if over else MODEL_COLUMNS[:-2]
        rows = [model_row(one, labels[one.name], over.get(one.name))[: len(columns)] for one in measured]
        console.table(columns, rows, title=title)
        console.say()
        document += [
            {
                "threads": count,
                "engine": one.name,
                "format": labels[one.name],
                "prefill_tokens_per_s": one.prefill.as_dict(),
                "decode_tokens_per_s": one.decode.as_dict(),
                "share_of_read_bandwidth": one.share,
                "anybit_over_it": over.get(one.name),
            }
            for one in measured
        ]
    console.result(
        {
            "model": subject.name,
            "parameters": subject.parameters,
            "bytes": subject.bytes,
            "prefill": prefill,
            "decode": decode,
            "act": act,
            "kv": cache,
            "results": document,
        }
    )


MODEL_COLUMNS = (
    "engine",
    "weights",
    "prefill tok/s",
    "spread",
    "decode tok/s",
    "spread",
    "of read bandwidth",
    "anybit is faster: prefill",
    "decode",
)


def model_row(one: Measured, label: str, over: Mapping[str, float] | None) -> list[object]:
    """The cells of `MODEL_COLUMNS`."""
    return [
        one.name,
        label,
        numbers.three(one.prefill.median),
        f"{100 * one.prefill.spread:.0f} %",
        numbers.three(one.decode.median),
        f"{100 * one.decode.spread:.0f} %",
        percent(one.share),
        f"{over['prefill']:.2f} ×" if over else None,
        f"{over['decode']:.2f} ×" if over else None,
    ]


@app.command("formats")
def formats(
    peers: Annotated[
        str,
        typer.Option(
            "--peers", help="Libraries to measure in turns with ours: all, or pychop, qtorch, gfloat, ml_dtypes, torch."
        ),
    ] = "torch",
    formats: Annotated[
        str | None,
        typer.Option("--formats", help="Number formats, mxfp4 or nvfp4, with commas; all that are compared."),
    ] = None,
    modes: Annotated[str | None, typer.Option("--modes", help="Rounding modes, with commas; all by default.")] = None,
    threads: ThreadList = None,
    rounds: RoundsOption = 5,
    quick: Annotated[
        bool, typer.Option("--quick", help="1024 x 1024 numbers and at most 3 rounds instead of 4096 x 4096.")
    ] = False,
    json: engines.JsonOption = False,
) -> None:
    """Rounding float32 numbers to formats in every mode, against libraries that do the same and the time of moving the bytes.

    Figures are milliseconds for all numbers, medians over interleaved rounds; "× pychop" is how many times as fast anybit is. Every
    sample is of calls one after another, behind at least one and 50 ms that are not counted.
    Where a library would take longer than 0.4 s (0.15 s with --quick) it rounds a part of the numbers and its time is scaled
    up: "of 1/64" says which part. The floor is bytes read and written over the read bandwidth measured before each case.
    Libraries run in processes of their own, in .venv-peers (`make peers`); qtorch compiles its kernels when it is first started.
    """
    from anybit.cli.bench import formats as bench
    from anybit.cli.bench import libraries as other
    from anybit.cli.bench import limits
    from anybit.formats import MODES, TensorFormat
    from anybit.formats.rounding import check_mode
    from anybit.zoo.data import checkout

    positive(rounds, "--rounds")
    names = tuple(listed(formats, "--formats", str)) if formats else bench.FORMATS
    chosen = tuple(listed(modes, "--modes", str)) if modes else MODES
    for name in names:
        TensorFormat.parse(name)
    for mode in chosen:
        check_mode(mode, 0)
    libraries = other.FORMATS.wanted(peers)
    side, rounds = (1024, min(rounds, 3)) if quick else (4096, rounds)
    console = Console(json)
    document: list[dict[str, Any]] = []
    for count in thread_counts(threads):
        job = {"rows": side, "cols": side, "threads": count, "seconds": 0.15 if quick else 0.4}
        with ExitStack() as stack, limits.threads(count), console.progress(f"{count} threads") as tell:
            tell("starting the libraries", 0, 0)
            found = other.FORMATS.start(libraries, checkout(), job, stack)
            read = partial(limits.read_bandwidth, count)
            lines = bench.measure(bench.cases(names, chosen), (side, side), rounds, found.running, read, tell)
        title = f"{side} x {side} float32, {count} thread{'s' * (count > 1)}, medians of {rounds} interleaved rounds"
        running = list(found.running)
        columns = [*FORMAT_COLUMNS, *(f"× {name} {found.versions[name]}" for name in running)]
        console.table(columns, [format_row(line, running) for line in lines], title=title)
        console.say()
        for verdict in bench.verdicts(lines):
            bar = f", {verdict.met} of {verdict.cases} reach {verdict.bar:g} ×" if verdict.bar else ""
            console.say(
                f"{verdict.library}: median {verdict.median:.3g} ×, least {verdict.least:.3g} × "
                f"({verdict.worst.format}, {verdict.worst.mode}){bar}"
            )
        for line in lines:
            if line.case.block and line.case.mode == "nearest_even":
                word = "within" if line.per_element <= bench.BLOCK_BAR else "above"
                console.say(
                    f"{line.case.format}: {1e9 * line.per_element:.2f} ms for 10^6 numbers, {word} {1e9 * bench.BLOCK_BAR:g} ms"
                )
        for reason in found.absent.values():
            console.say(reason)
        document.append(
            {
                "threads": count,
                "rows": side,
                "cols": side,
                "versions": found.versions,
                "absent": found.absent,
                "cases": [line.as_dict() for line in lines],
            }
        )
    console.result({"results": document})


FORMAT_COLUMNS = ("format", "rounding", "median", "spread", "floor", "of floor")


def format_row(line: FormatLine, libraries: list[str]) -> list[object]:
    """The cells of `FORMAT_COLUMNS` and of the libraries."""
    cells: list[object] = [
        line.case.format,
        line.case.mode,
        numbers.seconds(line.seconds.median),
        f"{100 * line.seconds.spread:.0f} %",
        None if line.floor is None else numbers.seconds(line.floor),
        percent(line.floor_share),
    ]
    for name in libraries:
        one = line.theirs.get(name)
        part = round(line.elements / one.elements) if one else 1
        cells.append(f"{one.ratio:.3g}{f' of 1/{part}' if part > 1 else ''}" if one else None)
    return cells


@app.command("quality")
def quality(
    subjects: Annotated[
        str, typer.Option("--models", help="Decoders of the zoo and stories260k, several with commas.")
    ] = "anybit-tiny,stories260k,lm-outliers",
    peers: Annotated[
        str | None,
        typer.Option(
            "--peers",
            help="Libraries to compare with: llama.cpp, torchao, quanto, hqq, bitsandbytes, auto-round, gptqmodel, llm-compressor, or all.",
        ),
    ] = None,
    budgets: Annotated[
        str, typer.Option("--bits", help="Budgets of ours, bits a weight, several with commas.")
    ] = "2.5,3,3.5,4,4.5,5,6,8",
    methods: Annotated[
        str | None,
        typer.Option(
            "--methods",
            help="Of ours, with commas: rtn, gptq, gradient_ptq, gradient_ptq rotated, distill; all by default.",
        ),
    ] = None,
    tokens: Annotated[int, typer.Option("--tokens", help="Tokens that are scored, about.")] = 4096,
    work: Annotated[
        Path, typer.Option("--work", help="Where ours and figures of theirs are kept, so that a second run goes on.")
    ] = Path("quality-work"),
    picture: Annotated[Path | None, typer.Option("--picture", help="A .png or .svg of all figures.")] = None,
    json: engines.JsonOption = False,
) -> None:
    """Perplexity and KL divergence against bits a weight: the same model, text and accounting for ours and other libraries."""
    from anybit.cli.bench import quality as bench

    names = listed(subjects, "--models", str)
    libraries = bench.selected(peers)
    wanted = listed(budgets, "--bits", float)
    ours = bench.selected_methods(methods)
    positive(tokens, "--tokens")
    if picture is not None:
        bench.check_picture(picture)
    from anybit.reproduce.experiment import Context
    from anybit.reproduce.subject import Subject
    from anybit.zoo.data import data_folder

    console = Console(json)
    opened = [Subject.open(Context(data_folder(), work / name), name, tokens) for name in names]
    found = []
    for name, subject in zip(names, opened, strict=True):
        with console.progress(name) as job:
            found.append(bench.compare(subject, libraries, wanted, work / name, thread_counts(None)[0], job, ours))
        each = found[-1]
        ordered = sorted(each.points, key=lambda point: (point.bits, point.kl))
        rows = [
            [
                p.library,
                p.format,
                f"{p.bits:.3f}",
                f"{p.kl:.4f}",
                f"{p.stderr:.4f}",
                f"{p.perplexity:.3f}",
                percent(p.agreement),
            ]
            for p in ordered
        ]
        title = f"{name}, {each.tokens:,} tokens, perplexity {each.perplexity:.3f} unquantized"
        console.table(QUALITY_COLUMNS, rows, title=title)
        console.table(VERDICT_COLUMNS, [_beside(verdict) for verdict in bench.verdicts(each.points)])
        for why, what in bench.reasons(each.absent).items():
            console.say(f"not measured: {'; '.join(what)}: {why}")
        console.say()
    if picture is not None:
        bench.draw(picture, found)
        console.say(f"drawn: {picture}")
    console.result({"results": [each.as_dict() for each in found]})


VERDICT_COLUMNS = ("against", "format", "bits a weight", "KL divergence", "ours", "bits a weight", "KL divergence", "×")
QUALITY_COLUMNS = ("library", "format", "bits a weight", "KL divergence", "±", "perplexity", "same choice")


def _beside(verdict: Verdict) -> list[object]:
    """A row of VERDICT_COLUMNS: how many times as much the best of ours that is no larger diverges."""
    theirs, ours = verdict.theirs, verdict.ours
    row: list[object] = [theirs.library, theirs.format, f"{theirs.bits:.3f}", f"{theirs.kl:.4f}"]
    if ours is None:
        return [*row, "none is as small", "–", "–", "–"]
    ratio = "–" if verdict.ratio is None else f"{verdict.ratio:.2f}"
    return [*row, ours.format, f"{ours.bits:.3f}", f"{ours.kl:.4f}", ratio]
