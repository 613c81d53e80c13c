"""Exit codes and sentences for every kind of error; nothing heavy is loaded for help."""

from __future__ import annotations

import errno
import json
import subprocess
import sys

import pytest

from anybit.cli import main as cli
from anybit.errors import AnybitError, FormatError


def broken(monkeypatch, error: BaseException) -> None:
    """Make `anybit formats list` raise."""

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("anybit.cli.commands.formats.described", fail)


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (AnybitError("the file x\n is bad"), 2, "error: the file x is bad\n"),
        (FormatError("no such format"), 2, "error: no such format\n"),
        (
            FileNotFoundError(errno.ENOENT, "No such file or directory", "a.txt"),
            2,
            "error: no such file or directory: a.txt\n",
        ),
        (
            OSError(errno.ENOSPC, "No space left on device", "out"),
            2,
            "error: the disk is full: out; free some space or choose another place\n",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "out"), 2, "error: permission denied: out\n"),
        (RuntimeError("boom"), 1, "failed: RuntimeError: boom; run it again with --debug to see where\n"),
        (
            OSError(errno.EIO, "Input/output error"),
            1,
            "failed: OSError: input/output error; run it again with --debug to see where\n",
        ),
        (ValueError("boom"), 1, "failed: ValueError: boom; run it again with --debug to see where\n"),
    ],
)
def test_exit_code_and_sentence(error, code, text, monkeypatch, capsys):
    broken(monkeypatch, error)
    assert cli.main(["formats", "list"]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err == text


def test_interrupt(monkeypatch, capsys):
    broken(monkeypatch, KeyboardInterrupt())
    assert cli.main(["formats", "list"]) == 130


@pytest.mark.parametrize("arguments", [["--debug", "formats", "list"], ["formats", "list", "--debug"]])
def test_debug_shows_the_traceback(arguments, monkeypatch, capsys):
    broken(monkeypatch, RuntimeError("boom"))
    assert cli.main(arguments) == 1
    assert "Traceback" in capsys.readouterr().err


def test_usage_errors_are_bad_input(capsys):
    assert cli.main(["formats", "list", "--no-such-option"]) == 2
    assert cli.main(["no-such-command"]) == 2
    assert cli.main(["eval"]) == 2
    assert capsys.readouterr().out == ""


def test_help_and_version(capsys):
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    for command in ("demo", "quantize", "eval", "generate", "bench", "doctor", "formats", "reproduce"):
        assert command in text
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("anybit 0.")


@pytest.mark.parametrize(
    "command", ["demo", "quantize", "eval", "generate", "bench", "bench model", "bench matmul", "doctor"]
)
def test_every_command_has_help(command, capsys):
    assert cli.main([*command.split(), "--help"]) == 0
    assert "--help" in capsys.readouterr().out


def test_help_loads_nothing_heavy():
    code = (
        "import sys\nfrom anybit.cli.main import main\nassert main(['--help']) == 0\n"
        "heavy = {'torch', 'numpy', 'scipy', 'transformers', 'pydantic', 'matplotlib', 'psutil', 'yaml'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_success_is_zero(capsys):
    assert cli.main(["formats", "show", "int4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["element"]["name"] == "int4"
