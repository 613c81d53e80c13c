"""Books and tales are cut where a reader would cut them."""

import gzip

import numpy as np
import pytest

from anybit.zoo.story_text import for_children, is_heading, read_books, tales, tokenize

LONG = "Once there was a fox who wanted the cheese of a crow, and he told her how well she sang. " * 6
BOOK = "THE GREEN FAIRY BOOK\nEdited by a careful hand\n" + (
    f"{LONG}\nTHE FOX\n(1) From the Polish.\n{LONG}fox\n{LONG}\nThe Crow\n{LONG.strip()}crow\nA NOTE\nshort"
)


@pytest.mark.parametrize("packed", [False, True])
def test_credits_are_dropped_and_books_separated(tmp_path, packed):
    text = b"Produced by a careful hand\nFAIRY TALES\n\nOne.\n<|endoftext|>\nA TREATISE\nTwo.\n<|endoftext|>\n"
    path = tmp_path / ("books.txt.gz" if packed else "books.txt")
    path.write_bytes(gzip.compress(text) if packed else text)
    assert read_books(path) == ["FAIRY TALES\nOne.", "A TREATISE\nTwo."]


def test_books_for_children():
    assert for_children("ALICE IN WONDERLAND")
    assert not for_children("A TREATISE ON BOILERS")
    assert not for_children("A TREATISE\n" + "x" * 1500 + "fairy")


@pytest.mark.parametrize(
    ("line", "heading"),
    [
        ("THE FOX AND THE CROW", True),
        ("The Fox and the Crow", True),
        ("XIV. JACK!", True),
        ("The Fox Came Home.", False),
        ("The fox and the crow went on", False),
        ('"Come In," Said the Fox', True),
        ("* * *", False),
        ("THE FOX " * 20, False),
    ],
)
def test_headings(line, heading):
    assert is_heading(line) is heading


def test_tales_of_a_collection():
    found = tales(BOOK)
    assert [tale.split()[-1] for tale in found] == ["sang.", "sang.crow"]
    assert not any("Polish" in tale or "FOX" in tale for tale in found)
    assert "\n" in found[0]  # both paragraphs


def test_other_books_hold_no_tales():
    assert tales(BOOK.replace("FAIRY", "COOKERY")) == []
    assert tales("OZMA OF OZ\n" + BOOK) == []


def test_tokens_know_their_text(tmp_path):
    from anybit.zoo.train_lm import train_tokenizer

    train_tokenizer([LONG], 300, tmp_path)
    ids, text = tokenize(["a fox", "a crow"], tmp_path / "tokenizer.json")
    assert ids.dtype == np.uint16
    assert list(np.flatnonzero(ids == 0)) == [0, int(np.flatnonzero(text == 1)[0])]
    assert len(ids) == len(text)
