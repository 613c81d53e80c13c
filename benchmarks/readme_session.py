"""Run the commands of the README's session and put what they print into it: `.venv/bin/python benchmarks/readme_session.py`.

Run it on a quiet machine after anything changed that the session shows.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = (
    "anybit demo",
    "anybit quantize anybit-tiny small --bits 3.5",
    "anybit eval small",
    'anybit generate small --prompt "Once upon a time there was a king who" --max-tokens 60',
    "anybit formats show mxfp4",
)


def printed(command: str, folder: Path) -> str:
    """What a command writes to stdout in `folder`; the paths of this machine are shortened. Raises where it fails."""
    code = f"import sys; sys.argv = __import__('shlex').split({command!r}); from anybit.cli.main import run; run()"
    environment = os.environ | {"COLUMNS": "110", "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    text = done.stdout.replace(f"{folder}/", "").replace(f"{ROOT}/", "")
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        parts = [f"$ {command}\n{printed(command, Path(folder))}\n" for command in COMMANDS]
    block = "<!-- session -->\n```console\n" + "\n".join(parts) + "```\n<!-- /session -->"
    readme = ROOT / "README.md"
    text, found = re.subn(
        r"<!-- session -->.*<!-- /session -->", lambda _: block, readme.read_text(encoding="utf-8"), flags=re.DOTALL
    )
    if found != 1:
        raise SystemExit("README.md has no place for the session between <!-- session --> and <!-- /session -->")
    readme.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
