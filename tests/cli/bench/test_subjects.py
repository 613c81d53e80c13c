"""What a decoded token reads: everything but an embedding that is only looked up."""

from __future__ import annotations

from anybit.cli.bench import shapes, subjects


def test_tied_embedding_is_read_whole():
    subject = subjects.synthetic("tiny", "int4/g64", "int8/row")
    assert subject.bytes_per_token == subject.bytes
    assert subject.parameters == shapes.parameters(shapes.config("tiny"))
    assert subject.format == "int4/g64, head int8/row"


def test_untied_embedding_is_only_looked_up(monkeypatch):
    monkeypatch.setitem(shapes.SHAPES, "tiny", shapes.SHAPES["tiny"] | {"tie_word_embeddings": False})
    subject = subjects.synthetic("tiny", "int4/g64")
    embedding = 512 * 128 // 2 + 512 * 128 // 64 * 2
    assert subject.bytes - subject.bytes_per_token == embedding


def test_checkpoint(tiny_folder):
    subject = subjects.real(tiny_folder)
    assert subject.format == "bfloat16"
    assert subject.bytes == 2 * subject.parameters
    assert subject.name == tiny_folder.name
