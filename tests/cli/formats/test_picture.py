"""What must hold for picture.py: the picture holds one colour a format, the same call gives the same SVG, nothing half-written stays."""

from __future__ import annotations

import pytest

from anybit.cli.formats.picture import draw
from anybit.errors import AnybitError
from anybit.formats import get


def test_a_png_shows_every_format(tmp_path):
    from matplotlib.image import imread

    draw(tmp_path / "deep" / "one.png", [get("e2m1")])
    draw(tmp_path / "two.png", [get("e2m1"), get("nf4")])
    one, two = imread(tmp_path / "deep" / "one.png"), imread(tmp_path / "two.png")

    def orange(image):
        return bool(((image[..., 0] > 0.95) & (abs(image[..., 1] - 0.5) < 0.03) & (image[..., 2] < 0.1)).any())

    assert orange(two) and not orange(one)
    assert two.shape[0] > one.shape[0]


def test_an_svg_names_every_format(tmp_path):
    draw(tmp_path / "a.svg", [get("e2m1"), get("fp16")])
    text = (tmp_path / "a.svg").read_text()
    assert "<svg" in text and "<!-- e2m1 -->" in text and "<!-- fp16 -->" in text


@pytest.mark.parametrize(
    ("file", "name", "message"), [("a.jpg", "e2m1", ".png or .svg"), ("a.png", "i2c", "up to 16 bits")]
)
def test_what_cannot_be_drawn_is_refused(tmp_path, file, name, message):
    with pytest.raises(AnybitError, match=message):
        draw(tmp_path / file, [get(name)])
    assert not list(tmp_path.iterdir())
