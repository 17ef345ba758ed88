"""A machine's speed is measured each time it is asked for, and the highest is kept."""

import pytest

from tasks.training.plan import speed


@pytest.fixture
def speeds(monkeypatch, tmp_path):
    import torch

    def ask(*seconds, cache=tmp_path / "speeds"):
        told = iter(seconds)
        monkeypatch.setattr(speed, "_seconds_of_a_product", lambda *_: next(told))
        place = (torch.device("cpu"), torch.float32)
        return [speed.flops_per_second((64, 128), 1_024, place, cache) for _ in seconds]

    return ask


def test_an_estimate_heals_after_a_measurement_that_other_work_disturbed(speeds):
    flops = 2 * 64 * 128 * 1_024
    assert speeds(4.0, 1.0, 2.0) == [flops / 4, flops, flops]
    assert speeds(3.0) == [flops], "another process finds it"


def test_without_a_place_to_keep_it_a_speed_is_what_is_measured(speeds):
    first, second = speeds(1.0, 2.0, cache=None)
    assert first == 2 * second
