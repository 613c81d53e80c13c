import threading
import time

import pytest
import torch

from anybit.recipes.threads import each_on_a_thread


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_results_come_in_order_and_the_setting_is_restored(threads: int) -> None:
    seen = set()

    def work(i: int) -> int:
        seen.add((threading.get_ident(), torch.get_num_threads()))
        time.sleep(0.002 * (5 - i))
        return i * i

    assert list(each_on_a_thread(work, range(5))) == [0, 1, 4, 9, 16]
    assert torch.get_num_threads() == threads
    assert {count for _, count in seen} == {1}
    assert len(seen) == threads


def test_an_error_stops_what_has_not_begun(threads: int) -> None:
    begun = []

    def work(i: int) -> int:
        begun.append(i)
        if i == 1:
            raise ValueError("broken")
        time.sleep(0.005)
        return i

    with pytest.raises(ValueError, match="broken"):
        list(each_on_a_thread(work, range(100)))
    assert len(begun) < 100
    assert torch.get_num_threads() == threads
