"""The entry point: the table of commands, and what becomes of an error.

Exit codes: 0 done, 2 bad input (one sentence on stderr), 1 failure, 130 interrupted.
"""

from __future__ import annotations

import errno
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer

from anybit import __version__
from anybit.cli.commands import bench, demo, doctor, evaluate, formats, generate, quantize, reproduce, zoo
from anybit.errors import AnybitError

app = typer.Typer(
    name="anybit",
    help="Matrix multiplication at any precision, from the number format to silicon.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command("demo")(demo.demo)
app.command("quantize")(quantize.quantize)
app.command("eval")(evaluate.evaluate)
app.command("generate")(generate.generate)
app.add_typer(bench.app, name="bench")
app.command("doctor")(doctor.doctor)
app.add_typer(formats.app, name="formats")
app.add_typer(reproduce.app, name="reproduce")
app.add_typer(zoo.app, name="zoo")

BAD_INPUT, FAILURE, INTERRUPTED = 2, 1, 130

# What the operating system refuses because of what it was asked, not because of a fault in here.
REFUSALS = {
    errno.ENOENT,
    errno.EACCES,
    errno.EPERM,
    errno.EEXIST,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENOTEMPTY,
    errno.EROFS,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.ENAMETOOLONG,
    errno.ELOOP,
}


def show_version(wanted: bool) -> None:
    """Print the version and stop, where it was asked for."""
    if wanted:
        typer.echo(f"anybit {__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the whole traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Matrix multiplication at any precision, from the number format to silicon."""


def sentence(error: BaseException) -> str:
    """One line for a person: what was refused, and on which file."""
    if isinstance(error, OSError) and error.strerror:
        where = f": {error.filename}" if error.filename else ""
        if error.errno == errno.ENOSPC:
            return f"the disk is full{where}; free some space or choose another place"
        return f"{error.strerror.lower()}{where}"
    text = " ".join(str(error).split())
    return text or type(error).__name__


def exit_code(error: BaseException) -> int:
    """The exit code an error ends the command with."""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, AnybitError) or (isinstance(error, OSError) and error.errno in REFUSALS):
        return BAD_INPUT
    return FAILURE


def main(arguments: Sequence[str]) -> int:
    """Run one command line; returns the exit code. `--debug` may stand anywhere before a `--`."""
    before = list(arguments)
    debug = "--debug" in (before[: before.index("--")] if "--" in before else before)
    if debug:
        before.remove("--debug")
    try:
        app(args=before, prog_name="anybit")
    except SystemExit as stop:  # how the parser ends, also after a success
        return int(stop.code or 0) if isinstance(stop.code, int | None) else FAILURE
    except (Exception, KeyboardInterrupt) as error:
        code = exit_code(error)
        if debug:
            traceback.print_exc()
        if code == INTERRUPTED:
            print("interrupted", file=sys.stderr)
        elif code == FAILURE:
            hint = "" if debug else "; run it again with --debug to see where"
            print(f"failed: {type(error).__name__}: {sentence(error)}{hint}", file=sys.stderr)
        else:
            print(f"error: {sentence(error)}", file=sys.stderr)
        return code
    return 0


def run() -> None:
    """The console script `anybit`."""
    sys.exit(main(sys.argv[1:]))


if __name__ == "__main__":
    run()
