"""How the tokenizers that learn an encoder are trained."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from model.training.tokenizers.config import TokenizeConfig
from model.training.tokenizers.networks import fit_network


class Mean(nn.Module):
    """Learns the mean of the rows, and notes with how many threads."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(2))
        self.threads: set[int] = set()

    def loss(self, rows: Sequence[Tensor], progress: float) -> Tensor:
        del progress
        self.threads.add(torch.get_num_threads())
        return (rows[0] - self.mean).square().mean()


def test_networks_are_fitted_in_one_thread_whatever_there_are() -> None:
    network, before = Mean(), torch.get_num_threads()
    settings = TokenizeConfig(epochs=50, learning_rate=0.1)
    try:
        torch.set_num_threads(2)
        fit_network(network, [np.array([[1, 2], [3, 2]], dtype=np.float32)], settings, "mean")

        assert network.threads == {1}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(network.mean.data, torch.tensor([2.0, 2.0]), rtol=0, atol=0.2)
    assert not network.training
