"""Validation while training ranks as a reader of its description would."""

import numpy as np
import pytest
import torch

from model.training.evaluation.metrics import ndcg_at
from model.training.evidence import history_evidence
from model.training.histories import HeldOut
from model.training.losses import Positions, generator_loss, path_choices
from model.training.validation import FUSION_WEIGHTS, validate
from model.transitions import Transitions
from tests.model.training.small_network import small_network

ITEMS = 40


def held_out(users: int = 30, longest: int = 10) -> HeldOut:
    generator = np.random.default_rng(0)
    lengths = generator.integers(1, longest, size=users)
    drawn = [generator.permutation(ITEMS)[: length + 1] for length in lengths]
    return HeldOut(
        np.arange(users),
        [row[:-1].astype(np.int32) for row in drawn],
        np.array([row[-1] for row in drawn], dtype=np.int32),
    )


def followed() -> Transitions:
    """Transitions of other histories."""
    return Transitions.count([row[::2] for row in held_out(60, 20).inputs], ITEMS)


def place(scores: torch.Tensor, target: int) -> int:
    return int((scores > scores[target]).sum()) + 1


@torch.no_grad()
def test_it_ranks_as_brute_force_does() -> None:
    network, _ = small_network(ITEMS)
    task = held_out()
    found = validate(network, followed(), task, beam_width=ITEMS)
    network.eval()
    items = network.item_vectors()
    tree = network.tree(items)
    leaves = torch.arange(ITEMS)
    ranks: dict[str, list[int]] = {name: [] for name in ("head", *map(str, FUSION_WEIGHTS))}
    for history, target in zip(task.inputs, task.targets.tolist(), strict=True):
        newest = torch.from_numpy(history[-network.shape.history_length :].astype(np.int64))
        h = network.history_encoder(items[newest][None])[0, -1]
        evidence = history_evidence(network, followed(), [history])
        _, known, logs = evidence.items(network.depth_start[-2])
        scores = items @ h
        scores[known] += network.head_evidence_weight * logs
        hidden = torch.zeros(ITEMS)
        hidden[torch.from_numpy(history.astype(np.int64))] = -torch.inf
        log_probs = torch.stack(
            [
                -generator_loss(
                    network,
                    Positions(h[None], leaf[None], evidence),
                    tree,
                    path_choices(network, leaf[None], tree),
                )
                for leaf in leaves
            ]
        )
        ranks["head"].append(place(scores + hidden, target))
        for weight in FUSION_WEIGHTS:
            fused = log_probs + weight * scores + hidden
            ranks[str(weight)].append(place(fused, target))
    ndcg = {name: ndcg_at(np.array(places), 10) for name, places in ranks.items()}
    assert found.item_head == pytest.approx(ndcg["head"])
    assert found.generator == pytest.approx(ndcg["0.0"])
    fused = {weight: ndcg[str(weight)] for weight in FUSION_WEIGHTS}
    assert found.served == pytest.approx(max(fused.values()))
    assert fused[found.fusion_weight] == pytest.approx(max(fused.values()))


def test_a_seen_target_is_a_miss() -> None:
    network, _ = small_network(ITEMS)
    task = held_out()
    targets = np.array([history[0] for history in task.inputs], dtype=np.int32)
    found = validate(network, followed(), task._replace(targets=targets), beam_width=ITEMS)
    assert found.generator == found.item_head == found.served == 0


def test_dropout_is_off_while_ranking_and_on_again_afterwards() -> None:
    network, _ = small_network(ITEMS, dropout=0.5)
    network.train()
    task = held_out()
    assert validate(network, followed(), task, 10) == validate(network, followed(), task, 10)
    assert network.training


def test_the_item_head_ranks_everything_whatever_the_beam() -> None:
    network, _ = small_network(ITEMS)
    task = held_out()
    scores = [validate(network, followed(), task, width).item_head for width in (10, 20, 40)]
    assert len(set(scores)) == 1
