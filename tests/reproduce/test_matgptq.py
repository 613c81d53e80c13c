"""The pieces of the experiment; the whole quick run is slow."""

import pytest

from anybit.reproduce import matgptq
from anybit.reproduce.experiment import Context


def test_wrong_codes_and_slices_are_counted(monkeypatch):
    assert matgptq._envelope(2000) == {"codes": 0, "slices": 0}
    real = matgptq.slice_codes
    monkeypatch.setattr(matgptq, "slice_codes", lambda codes, bits: real(codes, bits) + (codes == 7) * (bits == 3))
    assert matgptq._envelope(2000)["slices"] == 1


@pytest.mark.slow
def test_the_quick_run(tmp_path, shared_data):
    figures = matgptq.run(Context(shared_data, tmp_path), quick=True)
    outcomes = {check.description: check.apply(figures).passed for check in matgptq.EXPERIMENT.checks}
    assert all(passed for name, passed in outcomes.items() if "better than" in name or "error" in name)
