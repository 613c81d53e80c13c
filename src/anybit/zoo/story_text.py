"""The text the story models are trained on: books, which of them are for children, and the tales inside collections of tales.

A text file holds one paragraph a line and a line `<|endoftext|>` between books.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

END = "<|endoftext|>"
# Credits of the people who prepared the e-texts; they are not part of the stories.
CREDIT = re.compile(
    r"^(Produced by|Transcribed (by|from)|This eBook|HTML version|E-text prepared|Images of the original)|Proofread"
)
# Words in a book's first lines that mark it as a book of stories for children.
STORY = re.compile(
    r"fairy|\boz\b|alice|peter pan|dolittle|raggedy|goose|aesop|grimm|andersen|heidi|looking-glass|jungle|pinocchio|tales|"
    r"just so|wind in the willows|enchanted|five children|railway children|phoenix|goblin|wonderland|little princess|nursery|"
    r"fables|folk|bedtime|rabbit|pooh|stories",
    re.IGNORECASE,
)
OPENING_CHARACTERS = 1500
# The same for collections of tales that stand for themselves; the Oz books also speak of fairy tales in their prefaces.
COLLECTION = re.compile(
    r"fairy (book|tales)|fables|folk-lore|just so stories|prose tales|popular stories", re.IGNORECASE
)
NOT_A_COLLECTION = re.compile(r"\bOz\b", re.IGNORECASE)
# Editors' notes between a tale's heading and its first sentence.
NOTE = re.compile(r"^(\(\d+\)|\[?(Source|Parallel|Remarks|Translated|From the|Adapted|Footnote))")
SHORTEST_TALE = 400


def read_books(path: Path) -> list[str]:
    """The books of a text file (plain or .gz), without the credits of the e-text's preparers."""
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    books = []
    for book in raw.decode("utf-8").split(END):
        lines = [line for line in book.strip().split("\n") if line and not CREDIT.match(line)]
        if lines:
            books.append("\n".join(lines))
    return books


def for_children(book: str) -> bool:
    """Whether a book's opening says that it holds stories for children."""
    return STORY.search(book[:OPENING_CHARACTERS]) is not None


def is_heading(line: str) -> bool:
    """A short line in capitals, or with every longer word capitalised and no full stop, comma or quotation mark behind it."""
    words = re.findall(r"[A-Za-z']+", line)
    if not words or len(line) > 70:
        return False
    if not any(c.islower() for c in line):
        return True
    return line[-1] not in ".!?,;:\"'" and all(word[0].isupper() for word in words if len(word) > 3)


def tales(book: str) -> list[str]:
    """The tales of a collection, one text each, without headings and editors' notes; none where the book is no collection."""
    opening = book[:OPENING_CHARACTERS]
    if not COLLECTION.search(opening) or NOT_A_COLLECTION.search(opening):
        return []
    found: list[str] = []
    lines: list[str] = []
    for line in [*book.split("\n"), "THE END"]:
        if not is_heading(line):
            if not NOTE.match(line):
                lines.append(line)
            continue
        tale = "\n".join(lines)
        if len(tale) >= SHORTEST_TALE:
            found.append(tale)
        lines = []
    return found[1:]  # what stands before the first tale is contents and preface


def tokenize(texts: Sequence[str], tokenizer: Path) -> tuple[np.ndarray, np.ndarray]:
    """All texts as one uint16 array, each behind the end token (id 0); and the text each token belongs to (int32 indices)."""
    from tokenizers import Tokenizer

    tok = Tokenizer.from_file(str(tokenizer))
    ids = [np.array([0, *tok.encode(text, add_special_tokens=False).ids], dtype=np.uint16) for text in texts]
    return np.concatenate(ids), np.repeat(np.arange(len(texts), dtype=np.int32), [len(one) for one in ids])
