"""docs/zoo.md is what the table makes of it."""

from pathlib import Path

from anybit.zoo.members import MEMBERS
from anybit.zoo.page import page


def test_the_page_is_up_to_date():
    stored = Path(__file__).resolve().parents[2] / "docs" / "zoo.md"
    assert stored.read_text(encoding="utf-8") == page(), "run python -m anybit.zoo.page docs/zoo.md"


def test_every_member_has_a_line_with_as_many_cells():
    lines = [line for line in page().splitlines() if line.startswith("| ")]
    assert len(lines) == len(MEMBERS) + 1 and len({line.count("|") for line in lines}) == 1
    for member, line in zip(MEMBERS, lines[1:], strict=True):
        assert line.startswith(f"| `{member.name}` |") and member.licence in line
