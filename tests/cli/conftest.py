"""A tiny random checkpoint with a tokenizer of bytes, and a way to run the command line in this process."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from anybit.cli.bench import shapes
from anybit.cli.main import main

WORDS = "the cat sat on a mat and looked at the moon while rain fell over hills far away "


@dataclass(frozen=True)
class Done:
    """What a command line did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def anybit(capsys) -> Callable[..., Done]:
    """Run a command line: anybit("eval", folder, "--json")."""

    def run(*arguments: object) -> Done:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return Done(code, out, err)

    return run


def write_tokenizer(folder: Path) -> None:
    """A tokenizer of single bytes: ids 0 to 255, and 256 for <|endoftext|>."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({symbol: index for index, symbol in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    tokenizer.save(str(folder / "tokenizer.json"))


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint; do not change it."""
    import torch
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("tiny")
    config = shapes.config("tiny") | {"max_position_embeddings": 256, "bos_token_id": 256, "eos_token_id": 256}
    (folder / "config.json").write_text(json.dumps(config))
    generator = torch.Generator().manual_seed(0)
    tensors = {
        name: (
            1 + 0.1 * torch.randn(shape, generator=generator)
            if len(shape) == 1
            else 0.1 * torch.randn(shape, generator=generator)
        ).to(torch.bfloat16)
        for name, shape in shapes.weights(config).items()
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    write_tokenizer(folder)
    (folder / "calibration.txt").write_text(WORDS * 60)
    (folder / "heldout.txt").write_text(WORDS[::-1] * 20)
    return folder


@pytest.fixture
def tiny(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "tiny"))
