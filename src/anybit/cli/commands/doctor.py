"""`anybit doctor`: what this machine can do, which kernels run here, what is missing."""

from __future__ import annotations

import math
import platform
from dataclasses import asdict
from importlib import metadata
from typing import TYPE_CHECKING, Annotated, Any

import typer

from anybit import __version__
from anybit.cli import numbers
from anybit.cli.console import Console
from anybit.cli.engines import JsonOption
from anybit.errors import AnybitError

if TYPE_CHECKING:
    from anybit.cli.bench.calibrate import Checked

PACKAGES = ("torch", "numpy", "scipy", "safetensors", "transformers", "tokenizers")

PROBLEMS = (
    ("decode, int4 weights", 1, 4096, 4096, "int4/g128", "int8/g128"),
    ("decode, int3 weights", 1, 4096, 4096, "int3/g64", "int8/g128"),
    ("decode, nf4 weights", 1, 4096, 4096, "nf4/g64", "int8/g128"),
    ("decode, exact activations", 1, 4096, 4096, "int4/g128", None),
    ("decode, bf16 weights", 1, 4096, 4096, "bf16", None),
    ("batch of 16, int4 weights", 16, 4096, 4096, "int4/g128", "int8/g128"),
    ("prefill of 512, int4 weights", 512, 4096, 4096, "int4/g128", "int8/g128"),
    ("prefill of 512, int8 weights", 512, 4096, 4096, "int8/row", "int8/row"),
)
"""What models ask for: name, m, n, k, weight format, activations."""


def doctor(
    quick: Annotated[bool, typer.Option("--quick", help="Leave out the measurements.")] = False,
    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate",
            help="Measure bandwidth, peaks and kernels with one thread and all (under a minute), and predict by that from now on.",
        ),
    ] = False,
    json: JsonOption = False,
) -> None:
    """What this machine can do, which kernels are active, what is missing and how to get it.

    --calibrate stores a table of costs for the active instruction set in the user's cache ($ANYBIT_CACHE, else $XDG_CACHE_HOME/anybit, else
    ~/.cache/anybit); ANYBIT_ISA=avx512 anybit doctor --calibrate measures another. Leave the machine alone meanwhile.
    """
    from anybit.cli.advice import advice
    from anybit.cli.machine import machine
    from anybit.zoo.data import checkout

    console = Console(json)
    if calibrate:
        if quick:
            raise AnybitError("--quick leaves out what --calibrate measures; give one of them")
        console.result({"anybit": __version__, "calibration": calibration(console)})
        return
    found = machine()
    sets, active, threads, native_error = native()
    measured = {} if quick or native_error else measure(found.cores)
    kernels = [] if native_error else explained()
    root = checkout()
    peers = root is not None and (root / ".venv-peers" / "bin" / "python").exists()
    lacks = advice(found, sets, native_error, peers)

    console.say(
        f"anybit {__version__}, Python {platform.python_version()}, "
        + ", ".join(f"{k} {v}" for k, v in versions().items())
    )
    console.say()
    rows: list[list[object]] = [
        ["processor", f"{found.processor} ({found.architecture})"],
        ["cores", f"{found.cores} that this process may use"],
        ["SIMD", ", ".join(found.simd) or "none known"],
        ["memory", f"{numbers.size(found.memory)}, {numbers.size(found.memory_available)} available"],
        ["largest cache", numbers.size(found.last_level_cache)],
        ["huge pages", found.huge_pages],
        ["native module", native_error or f"loaded; kernels for {active}, {threads} threads"],
        [
            "kernels built",
            ", ".join(f"{name} ({'usable' if usable else 'not here: needs ' + needs})" for name, needs, usable in sets),
        ],
    ]
    for count, limits in measured.items():
        several = "s" if int(count) > 1 else ""
        rows.append(
            [
                f"measured, {count} thread{several}",
                f"reads {limits['read_bytes_per_s'] / 1e9:.1f} GB/s, int8 {limits['int8_operations_per_s'] / 1e9:.0f} GOP/s",
            ]
        )
    console.table(["", ""], rows)
    if kernels:
        console.say()
        console.table(
            ["problem", "kernel", "predicted", "why"],
            [
                [
                    k["problem"],
                    k["kernel"],
                    numbers.seconds(k["predicted_seconds"]) if k["predicted_seconds"] else "–",
                    k["why"],
                ]
                for k in kernels
            ],
            title="kernels for typical problems (4096 × 4096 weights)",
        )
    console.say()
    if lacks:
        console.table(
            ["missing", "what for", "how to get it"], [[one.missing, one.matters, one.remedy] for one in lacks]
        )
    else:
        console.say("nothing is missing")
    console.result(
        {
            "anybit": __version__,
            "python": platform.python_version(),
            "versions": versions(),
            "machine": asdict(found),
            "native": {
                "error": native_error,
                "isa": active,
                "threads": threads,
                "isas": [{"name": name, "needs": needs, "usable": usable} for name, needs, usable in sets],
            },
            "measured": measured,
            "kernels": kernels,
            "missing": [asdict(one) for one in lacks],
        }
    )


def calibration(console: Console) -> list[dict[str, Any]]:
    """Measure, store and check a table of costs for one thread and for all; what is printed as plain values."""
    from anybit.cli.bench import calibrate, limits
    from anybit.cli.machine import cores
    from anybit.ops import costs

    _, active, _, error = native()
    if error:
        raise AnybitError(f"there are no kernels to measure: the native module could not be loaded ({error})")
    document = []
    for count in sorted({1, cores()}):
        shapes = calibrate.CHECK if count == cores() else calibrate.CHECK_ONE
        with limits.threads(count):
            with console.progress("measuring") as tell:
                measured = calibrate.measure(count, tell)
            file = costs.store(measured)
            with console.progress("checking") as tell:
                checked = calibrate.check(shapes, tell)
            read, peak = calibrate.bandwidth(limits.evictor()), limits.peak("int8", count)
        several = "s" * (count > 1)
        rates = ", ".join(f"{kind} {numbers.three(rate / 1e9)}" for kind, rate in measured.peaks.items())
        console.say(
            f"{active}, {count} thread{several}: reads {measured.bandwidth / 1e9:.1f} GB/s; peaks {rates} GOP/s; written to {file}"
        )
        title = f"predicted against measured, {count} thread{several}, shapes that were not fitted to"
        console.table(CHECK_COLUMNS, [check_row(one) for one in checked], title=title)
        within = sum(one.holds for one in checked)
        console.say(f"{within} of {len(checked)} predictions are within {100 * calibrate.TOLERANCE:.0f} %")
        changes = read / measured.bandwidth, peak / measured.peaks.get("int8", peak)
        if max(abs(math.log(change)) for change in changes) > math.log(1 + DRIFT):
            now = f"reads {read / 1e9:.1f} GB/s and computes {numbers.three(peak / 1e9)} GOP/s of int8"
            console.say(f"the machine's speed changed, it now {now}: measure again when nothing else runs on it")
        console.say()
        document.append(
            {
                "file": str(file),
                "isa": active,
                "threads": count,
                "bandwidth": measured.bandwidth,
                "peaks": dict(measured.peaks),
                "bandwidth_after": read,
                "int8_peak_after": peak,
                "tolerance": calibrate.TOLERANCE,
                "within": within,
                "checked": [asdict(one) | {"error": one.error} for one in checked],
            }
        )
    return document


DRIFT = 0.15
"""How far the machine's speed may be from the measured one at the end of the check before the user is told."""
CHECK_COLUMNS = ("m", "n", "k", "weights", "activations", "predicted", "measured", "error")


def check_row(one: Checked) -> list[object]:
    """The cells of `CHECK_COLUMNS`."""
    error = f"{100 * one.error:+.0f} %{'' if one.holds else ' (missed)'}"
    return [
        one.m,
        one.n,
        one.k,
        one.weights,
        one.act or "exact",
        numbers.seconds(one.predicted),
        numbers.seconds(one.measured),
        error,
    ]


def versions() -> dict[str, str]:
    """Installed versions of the packages that results depend on."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def native() -> tuple[list[tuple[str, str, bool]], str, int, str | None]:
    """(instruction sets built, the active one, threads of the pool, why the module could not be loaded or None)."""
    try:
        from anybit import _native
    except ImportError as error:
        return [], "", 0, str(error)
    return list(_native.isas()), str(_native.isa()), int(_native.threads()), None


def measure(cores: int) -> dict[str, dict[str, float]]:
    """Read bandwidth and int8 peak on one thread and on all cores."""
    from anybit.cli.bench import limits

    return {
        str(count): {
            "read_bytes_per_s": limits.read_bandwidth(count, 5),
            "int8_operations_per_s": limits.peak("int8", count),
        }
        for count in sorted({1, cores})
    }


def explained() -> list[dict[str, Any]]:
    """The kernel that `ops.explain` chooses for each of `PROBLEMS`."""
    from anybit import ops

    return [
        {"problem": name} | ops.explain("matmul", (m, n, k, weights, act)) for name, m, n, k, weights, act in PROBLEMS
    ]
