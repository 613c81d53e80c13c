"""Bookkeeping of the matrix benchmark: shares and ratios of made-up times are worked out by hand."""

from __future__ import annotations

import json

import pytest

from anybit.cli.bench import matmul
from anybit.cli.bench.matmul import Entrant, Line, Setting, Shape
from anybit.cli.bench.rounds import Sample
from anybit.errors import AnybitError


def test_shape():
    assert Shape.parse("1x4096x11008") == Shape(1, 4096, 11008)
    assert str(Shape(2, 3, 4)) == "2x3x4"
    assert Shape(2, 3, 4).operations == 48


@pytest.mark.parametrize("text", ["", "1x2", "0x2x3", "ax2x3", "1x2x3x4", "-1x2x3"])
def test_bad_shape(text):
    with pytest.raises(AnybitError, match="MxNxK"):
        Shape.parse(text)


def test_copies():
    mebi = 1 << 20
    assert matmul.copies(20 * mebi, 9, cold=True) == 4  # as many as fit into 96 MiB
    assert matmul.copies(mebi, 9, cold=True) == 9
    assert matmul.copies(500 * mebi, 9, cold=True) == 2  # one to wake the threads, one to count
    assert matmul.copies(mebi, 9, cold=False) == 1


@pytest.mark.parametrize(("bits", "name"), [
    (1.0, "1–1.7"), (1.69, "1–1.7"), (2.06, "2"), (2.25, "2"), (2.625, "2.6"), (3.44, "3.4"), (4.5, "4–4.5"), (5.5, "5–6.6"),
    (8.5, "8"), (16, "16"), (32, "32"),
])  # fmt: skip
def test_classes(bits, name):
    assert matmul.CLASSES[matmul.bits_class(bits)][1] == name


def test_rates():
    line = Line(Shape(1, 1000, 1000), "anybit", "int4/row", 500_000, "int8", Sample((1e-3,)))
    assert line.bandwidth == pytest.approx(5e8)
    assert line.rate == pytest.approx(2e9)
    assert line.bits == 4
    assert line.floor is None and line.compute_share is None


class Fake:
    """A library whose products take given seconds, one after the other."""

    def __init__(self, answers: dict[str, dict]) -> None:
        self.about, self.answers, self.asked = {"formats": list(answers)}, answers, []

    def ask(self, request: str) -> dict:
        self.asked.append(json.loads(request))
        answer = self.answers[self.asked[-1]["format"]]
        return answer | {"seconds": answer["seconds"].pop(0)} if "seconds" in answer else answer


def answer(*seconds: float, size: int = 50, error: float = 0.1) -> dict:
    return {"seconds": list(seconds), "bytes": size, "arithmetic": "int8", "error": error}


def test_libraries_are_asked_for_every_format():
    library = Fake({"q4": answer(9.0, 6.0, 5.0, 7.0), "q3": {"lacks": "no such width"}, "q2": answer(1.0, error=1.4)})
    entrants, lacks, slow = matmul.theirs(Shape(2, 10, 20), {"ggml": library})
    assert lacks == {"ggml q3": "no such width", "ggml q2": "its product is off by 1.4 of its size"}
    (one,) = entrants
    assert (one.engine, one.name, one.bytes, one.arithmetic) == ("ggml", "ggml q4", 50, "int8")
    assert [one.sample(), one.sample()] == [5.0, 7.0]  # what it took to prepare is not counted
    assert library.asked[-1] == {"m": 2, "n": 10, "k": 20, "format": "q4"}
    assert slow == []


def test_the_hopelessly_slow_are_not_measured():
    # the first of three is lost to preparing, and the better of the other two counts
    fast, slow = answer(*[1.0] * 9), answer(9.0, 50.0, 3.9, 0.1, 4.1, 4.2, size=60)
    small = answer(*[3.0] * 9, size=40)
    library = Fake({"fast": fast, "slow": slow, "small": small})
    names = [one.name for one in matmul.theirs(Shape(1, 10, 20), {"x": library})[0]]
    assert names == ["x fast", "x slow", "x small"]  # 3.9 times; and nothing has fewer bits than the smallest
    found, lacks, hopeless = matmul.theirs(Shape(16, 10, 20), {"x": library})
    assert [one.name for one in found] == ["x fast", "x small"] and hopeless == ["x slow"]
    assert lacks == {"x slow": "4100000 us, 4 times as long as another with no more bits"}
    asked = len(library.asked)
    found, lacks, hopeless = matmul.theirs(Shape(64, 10, 20), {"x": library}, hopeless)
    assert {one["format"] for one in library.asked[asked:]} == {"fast", "small"} and hopeless == ["x slow"]
    assert lacks == {"x slow": "hopelessly slow with fewer rows already"}
    matmul.theirs(
        Shape(1, 10, 20), {"x": Fake({"slow": answer(1.0, 1.0, 1.0)})}, hopeless
    )  # with few rows all are tried


def test_what_takes_very_long_to_prepare_is_not_tried():
    fast, slow, busy = answer(0.2, 0.01), answer(4.1, size=60), answer(4.0, 0.02, size=60)
    library = Fake({"fast": fast, "slow": slow, "busy": busy})
    found, lacks, hopeless = matmul.theirs(Shape(16, 10, 20), {"x": library})
    assert [one.name for one in found] == ["x fast", "x busy"] and hopeless == ["x slow"]
    assert lacks == {"x slow": "4100000 us, 20 times as long as another with no more bits while all prepare"}
    short = Fake({"fast": answer(0.001, 0.001), "slow": answer(0.2, 0.002, size=60)})  # interrupted, perhaps
    assert len(matmul.theirs(Shape(16, 10, 20), {"x": short})[0]) == 2


def test_a_library_that_dies_while_it_prepares_lacks_everything():
    class Dying(Fake):
        def ask(self, request: str) -> dict:
            if self.asked:
                raise RuntimeError("the peer x ended: killed")
            return super().ask(request)

    libraries = {"x": Dying({"q4": answer(1.0), "q8": answer(1.0)}), "y": Fake({"q4": answer(1.0, 1.0)})}
    found, lacks, _ = matmul.theirs(Shape(1, 10, 20), libraries)
    assert [one.name for one in found] == ["y q4"]
    assert lacks == {"x q4": "the peer x ended: killed", "x q8": "the peer x ended: killed"}


def entrant(engine: str, name: str, size: int, *seconds: float, arithmetic: str = "int8") -> Entrant:
    values = list(seconds)
    return Entrant(engine, name, size, arithmetic, lambda: values.pop(0))


def test_shares_of_made_up_times():
    bandwidths, peaks, cleared = iter([1_200_000.0, 600_000.0]), iter([400_000.0, 200_000.0]), []
    probes = {"int8": lambda: next(peaks), "e8": lambda: 1 / 0}  # what nobody computes with is not measured
    setting = Setting(2, lambda: cleared.append(1), lambda: next(bandwidths), probes)
    shape = Shape(1, 10, 10)
    entrants = [
        entrant("anybit", "int4/row", 55, 0.001, 0.002),
        entrant("torch", "torch fp32", 400, 0.008, 0.016, arithmetic="fp32"),
        entrant("torch", "torch bf16", 200, 0.0004, 0.0008, arithmetic="bf16"),
        entrant("ggml", "ggml q8_0", 100, 0.0001, 0.0002),
        entrant("ggml", "ggml q4_0", 56, 0.003, 0.006),
        entrant("openvino", "openvino u2", 25, 0.004, 0.008),
    ]
    lines = matmul.measure(shape, entrants, setting)
    assert len(cleared) == 16  # ahead of each of the six, of reading and of the peak
    mine = lines[0]
    assert mine.read_share == pytest.approx(55 / 1200)  # 55 bytes in 1 ms of 1.2 MB/s, in 2 ms of 0.6 MB/s
    assert mine.compute_share == pytest.approx(0.5)  # in both rounds: half the peak, half the speed
    assert mine.over_fp32 == pytest.approx(8)
    assert mine.over_bf16 == pytest.approx(0.4)
    assert mine.read_floor == pytest.approx(55 / 900_000) and mine.compute_floor == pytest.approx(200 / 300_000)
    assert mine.floor == mine.compute_floor  # 200 operations at 0.3 MOP/s take longer than reading
    # the 8-bit product is faster but holds twice the bits; of those of 4 bits and fewer q4_0 is the fastest
    assert mine.best_peer == ("ggml q4_0", pytest.approx(0.0045)) and mine.over_peer == pytest.approx(3)
    assert all(line.best_peer is None for line in lines[1:])
    assert lines[1].compute_floor is None  # no peak of fp32 was given
    row = mine.as_dict()
    assert (row["format"], row["engine"], row["best_peer"], row["class"]) == (
        "int4/row",
        "anybit",
        "ggml q4_0",
        "4–4.5",
    )
    assert row["us"] == pytest.approx(1500) and row["best_peer_us"] == pytest.approx(4500)
    assert row["floor_us"] == pytest.approx(2000 / 3)


def test_no_peer_of_so_few_bits():
    lines = matmul.measure(
        Shape(1, 10, 10),
        [entrant("anybit", "int2/row", 27, 1.0), entrant("torch", "torch bf16", 200, 0.5)],
        Setting(1),
    )
    assert lines[0].best_peer is None and lines[0].floor is None and lines[0].as_dict()["best_peer_us"] is None


def test_our_side():
    specs = ["int4/g32", "nf4/g32", "e4m3fn/row", "int4/g32@bf16", "int8/row@none"]
    ours = matmul.Ours(specs, "int8/row", 3, cold=True)
    found = ours.entrants(Shape(2, 32, 64))
    assert [(one.engine, one.name, one.arithmetic, one.act) for one in found] == [
        ("anybit", "int4/g32", "int8", "int8/row"),
        ("anybit", "nf4/g32", "int8", "int8/row"),
        ("anybit", "nf4/g32 int8 levels", "int8", "int8/row"),
        ("anybit", "e4m3fn/row", "fp32", "int8/row"),  # no integers to multiply
        ("anybit", "int4/g32 by bf16", "bf16", "bf16"),
        ("anybit", "int8/row by none", "fp32", None),
        ("torch", "torch fp32", "fp32", None),
        ("torch", "torch bf16", "bf16", None),
    ]
    assert found[0].bytes == 32 * 32 + 32 * 2 * 2
    assert all(one.sample() > 0 for one in found)
    made = ours.forms
    assert len(ours.entrants(Shape(3, 32, 64))) == len(found) and ours.forms is made  # other rows, the same weights
    assert [one.bytes for one in ours.entrants(Shape(3, 16, 64))[:1]] == [16 * 32 + 16 * 2 * 2]
