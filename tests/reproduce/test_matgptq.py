"""The pieces of the experiment; the whole quick run is slow."""

import pytest
from tests.recipes.conftest import write_model

from anybit.models.slices import at_bits, sliceable
from anybit.reproduce import matgptq, subject
from anybit.reproduce.experiment import Context


def test_wrong_codes_and_slices_are_counted(monkeypatch):
    assert matgptq._envelope(2000) == {"codes": 0, "slices": 0}
    real = matgptq.slice_codes
    monkeypatch.setattr(matgptq, "slice_codes", lambda codes, bits: real(codes, bits) + (codes == 7) * (bits == 3))
    assert matgptq._envelope(2000)["slices"] == 1


def test_widths_of_single_matrices_keep_the_average_and_gain_on_what_they_are_chosen_by(tmp_path, monkeypatch):
    text = "once upon a time there was a fox who had a house " * 30
    (tmp_path / "text.txt").write_text(text)
    monkeypatch.setattr(subject, "WINDOW", 32)
    of = subject.Subject(write_model(tmp_path / "model"), tmp_path / "text.txt", text, scored=120, samples=4)
    of.windows = [window.tolist() for window in of.calibration_windows()]
    master = of.quantized({"weights": "int8/g16", "method": "matgptq"}, tmp_path / "work")
    found = matgptq._mixed(of, master)
    able = sliceable(master)
    assert sum(found["matrices"].values()) == len(able) and found["tried"] == 1 + 4 * len(able)
    assert found["average"] <= 3 and found["matrices"]["at3"] < len(able)
    assert found["kl"] < matgptq._scored(of, at_bits(master, 3))["kl"]


@pytest.mark.slow
def test_the_quick_run(tmp_path, shared_data):
    figures = matgptq.run(Context(shared_data, tmp_path), quick=True)
    outcomes = {check.description: check.apply(figures).passed for check in matgptq.EXPERIMENT.checks}
    assert all(passed for name, passed in outcomes.items() if "better than" in name or "error" in name)
