"""One thread, as in the stages: networks this small gain nothing from two, and lose much where the machine is busy."""

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
