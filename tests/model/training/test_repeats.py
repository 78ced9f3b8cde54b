"""The repeat bias is where as many repeats are expected as there were."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.training.evidence import batch_evidence
from model.training.repeats import HIGHEST, LOWEST, fit, repeat_bias
from model.training.train import build_network
from tests.model.training.small_run import SMALL, Folders


@given(
    st.floats(-5, 5),
    st.lists(st.floats(-4, 4), min_size=1, max_size=50).map(np.array),
)
def test_the_fit_finds_the_bias_that_made_the_repeats(bias: float, odds: np.ndarray) -> None:
    assert fit(odds, 1 / (1 + np.exp(-odds - bias))) == pytest.approx(bias, abs=1e-4)


def test_nobody_and_everybody_repeats() -> None:
    odds = np.zeros(30)
    assert fit(odds, np.zeros(30, bool)) == pytest.approx(LOWEST)
    assert fit(odds, np.ones(30, bool)) == pytest.approx(HIGHEST)
    assert fit(np.full(3, -np.inf), np.zeros(3, bool)) == pytest.approx(LOWEST)


@torch.no_grad()
def test_it_is_what_maximum_likelihood_finds_by_brute_force(small_run: Folders) -> None:
    generator = np.random.default_rng(1)
    # A quarter of what is visited was there before.
    windows = []
    for _ in range(40):
        visited = generator.integers(100, size=2).tolist()
        for _ in range(5):
            again = generator.random() < 0.25
            visited.append(int(generator.choice(visited) if again else generator.integers(100)))
        windows.append(np.array(visited))
    data = replace(small_run.data(), windows=windows)
    torch.manual_seed(0)
    network = build_network(SMALL, data).eval()
    items = network.item_vectors()
    likelihood = {bias: 0.0 for bias in np.arange(-2, 8, 0.05)}
    for window in windows:
        h = network.history_encoder(items[torch.from_numpy(window[:-1])][None])[0]
        evidence = batch_evidence(network, data.transitions, [window], data.popularity)
        known = torch.zeros(len(h), len(items))
        position, leaf, logs = evidence.items(network.depth_start[-2])
        known[position, leaf] = network.head_evidence_weight * logs
        for place in range(len(window) - 1):
            logits = (items @ h[place] + known[place]).double()
            seen = torch.zeros(100, dtype=torch.double)
            seen[torch.from_numpy(window[: place + 1])] = 1
            for bias in likelihood:
                scores = torch.log_softmax(logits + bias * seen, dim=0)
                likelihood[bias] += float(scores[window[place + 1]])
    best = max(likelihood, key=lambda bias: likelihood[bias])
    assert repeat_bias(network, data) == pytest.approx(best, abs=0.051)


def test_in_a_shop_where_nobody_repeats_it_is_as_low_as_can_be(small_run: Folders) -> None:
    data = small_run.data()
    assert repeat_bias(build_network(SMALL, data).eval(), data) == pytest.approx(LOWEST)
