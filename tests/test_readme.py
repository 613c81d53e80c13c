"""The Python of the README and of the guide runs, and their command lines are ones that the parser knows."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {"README.md": README} | {
    f"docs/{page.name}": page.read_text(encoding="utf-8") for page in (ROOT / "docs").glob("*.md")
}


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


PYTHON = blocks(README, "python")


@pytest.mark.parametrize("index", range(len(PYTHON)))
def test_python_runs(index):
    code = PYTHON[index]
    if "anybit-tiny" in code and not (ROOT / "src/anybit/zoo/weights/anybit-tiny/config.json").exists():
        pytest.skip("the bundled model anybit-tiny is not in this checkout")
    exec(compile(code, f"README.md, block {index}", "exec"), {"__name__": "readme"})


def test_there_is_python_to_run():
    assert len(PYTHON) >= 3


@pytest.mark.parametrize("page", PAGES)
def test_commands_exist(page):
    from typer.main import get_command

    from anybit.cli.main import app

    commands = get_command(app).commands
    text = PAGES[page]
    code = "\n".join([*blocks(text, "sh"), *blocks(text, "console"), *re.findall(r"^ {4}(.*)$", text, re.MULTILINE)])
    for line in re.findall(r"^(?:\$ )?(?:\.venv/bin/)?(anybit [a-z].*)$", code, re.MULTILINE):
        words = shlex.split(line, comments=True)
        command = commands.get(words[1])
        assert command is not None, f"{page}: there is no command {line!r}"
        if words[2:] and words[2] in getattr(command, "commands", {}):
            command = command.commands[words[2]]
        known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        for word in words[2:]:
            if word.startswith("--"):
                assert word in known, f"{page}: {words[1]} has no option {word}"


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#:]+)\)", PAGES[page]):
        assert ((ROOT / page).parent / target).exists(), f"{page} links to {target}"


def test_recipe_of_the_guide_is_valid():
    from anybit.recipes import Recipe

    documents = blocks(PAGES["docs/quantize.md"], "yaml")
    assert documents
    for text in documents:
        assert Recipe.parse(yaml.safe_load(text)).bits == 3.5


def test_formats_of_the_guide_are_known():
    from anybit import formats

    for spec, bits in (("int4/g128", 4.125), ("int4/g64", 4.25), ("mxfp4", 4.25), ("nvfp4", 4.5)):
        fmt = formats.TensorFormat.parse(spec)
        assert spec in PAGES["docs/formats.md"]
        # the tensor factor, one for all weights, is left out of the guide's figure
        assert 8 * fmt.nbytes((4096, 4096)) / 4096**2 == pytest.approx(bits, abs=1e-4)
