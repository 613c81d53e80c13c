"""Which channels are outliers."""

import pytest
import torch

from anybit.transforms.split import Options, outlier_columns


def test_channels_above_the_threshold_and_far_above_the_median() -> None:
    largest = torch.ones(100)
    largest[[3, 50, 7]] = torch.tensor([20.0, 6.0, 5.9])
    assert outlier_columns(largest, Options()).tolist() == [3, 50]
    assert outlier_columns(largest * 2, Options()).tolist() == [3, 7, 50]
    largest = torch.full((100,), 5.0)  # all are large: none is an outlier among them
    largest[9] = 19.0
    assert outlier_columns(largest, Options()).tolist() == []
    assert outlier_columns(largest, Options(ratio=2.0)).tolist() == [9]


def test_only_the_largest_share() -> None:
    largest = torch.ones(40)
    largest[:4] = torch.tensor([10.0, 30.0, 20.0, 40.0])
    assert outlier_columns(largest, Options()).tolist() == [1, 3]
    assert outlier_columns(largest[:10], Options()).tolist() == []  # a twentieth of 10 is none
    assert outlier_columns(torch.zeros(40), Options(threshold=0.0, ratio=0.0)).tolist() == []


def test_refusals() -> None:
    with pytest.raises(ValueError, match="share of outlier channels"):
        Options(most=0.0)
    with pytest.raises(ValueError, match="0 or more"):
        Options(threshold=-1.0)
