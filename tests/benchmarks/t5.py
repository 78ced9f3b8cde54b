"""What users would run instead: a T5 that writes semantic IDs, with a trie against inventions.

TIGER's sizes are those of its published code (d 128, d_ff 1024, 6 heads of 64, 4 + 4 layers). The
weights are random: the time does not depend on them. Every item of a history is L tokens.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache, T5Config, T5ForConditionalGeneration

from model.training.histories import ItemRows
from model.training.training_set import padded
from model.trie import Trie
from model.types import AnyArray, IntArray

FIRST_TOKEN = 2
"""After padding, which also starts a decoding, and the end."""


def tiger(tokens: int) -> T5ForConditionalGeneration:
    """TIGER's size."""
    return _t5(tokens, width=128, inner=1024, heads=6, head=64, layers=4)


def slim(tokens: int, *, width: int, layers: int) -> T5ForConditionalGeneration:
    """As wide and deep as our own network."""
    return _t5(tokens, width=width, inner=4 * width, heads=4, head=width // 4, layers=layers)


def _t5(
    tokens: int, *, width: int, inner: int, heads: int, head: int, layers: int
) -> T5ForConditionalGeneration:
    torch.manual_seed(0)
    config = T5Config(  # type: ignore[call-arg]
        vocab_size=tokens,
        d_model=width,
        d_ff=inner,
        num_heads=heads,
        d_kv=head,
        num_layers=layers,
        num_decoder_layers=layers,
        decoder_start_token_id=0,
    )
    model = T5ForConditionalGeneration(config)
    model.train(mode=False)
    return model


class Tokens:
    """Semantic IDs as tokens, a range of them per level."""

    def __init__(self, codes: AnyArray) -> None:
        """Number the `codes` [N, L] of the catalogue, leaf order."""
        sizes = codes.max(axis=0).astype(np.int64) + 1
        self.first = FIRST_TOKEN + np.concatenate([[0], np.cumsum(sizes)])
        self.items: IntArray = codes.astype(np.int64) + self.first[:-1]
        """[N, L]"""

    @property
    def count(self) -> int:
        return int(self.first[-1])

    def history(self, leaves: IntArray) -> Tensor:
        return torch.from_numpy(self.items[leaves].reshape(1, -1))

    def batch(self, histories: Sequence[IntArray | ItemRows]) -> tuple[Tensor, Tensor]:
        """Histories of leaves as tokens [U, T L], padded right, and which of these are real."""
        leaves, real = padded(histories)
        real = real.repeat_interleave(self.items.shape[1], dim=1)
        return torch.from_numpy(self.items[leaves.numpy()]).flatten(1) * real, real


class PrefixTree:
    """Hugging Face's `prefix_allowed_tokens_fn`: the tokens that may follow a prefix."""

    def __init__(self, tokens: Tokens) -> None:
        self._tree: dict[int, dict] = {}  # type: ignore[type-arg]
        for item in tokens.items.tolist():
            node = self._tree
            for token in item:
                node = node.setdefault(token, {})

    def __call__(self, _batch: int, ids: Tensor) -> list[int]:
        node = self._tree
        for token in ids.tolist()[1:]:
            node = node.get(token, {})
        return list(node) or [0]


@torch.inference_mode()
def generate(
    model: T5ForConditionalGeneration, history: Tensor, tree: PrefixTree, beams: int, levels: int
) -> Tensor:
    """Hugging Face's own constrained beam search: sequences [beams, L + 1]."""
    found: Tensor = model.generate(  # type: ignore[misc, assignment]
        history,
        num_beams=beams,
        num_return_sequences=beams,
        max_new_tokens=levels,
        min_new_tokens=levels,
        prefix_allowed_tokens_fn=tree,
        do_sample=False,
    )
    return found


class StaticSearch:
    """STATIC's masks (arXiv 2602.22647): dense tables for two levels, compressed rows below.

    One vectorised look-up per step in place of Python code per beam; log-softmax over the whole
    vocabulary, then the mask, as there. The key-value cache is Hugging Face's.
    """

    def __init__(self, model: T5ForConditionalGeneration, trie: Trie, tokens: Tokens) -> None:
        self._model, self._levels = model, trie.levels
        self._child_start = torch.from_numpy(trie.child_start.astype(np.int64))
        self._branching = trie.branching
        # The token that leads to each node: that of any item below it.
        token = np.zeros(trie.node_count, dtype=np.int64)
        paths = trie.paths(np.arange(trie.item_count))
        for depth in range(1, trie.levels + 1):
            token[paths[:, depth]] = tokens.items[:, depth - 1]
        self._token = torch.from_numpy(token)
        self._dense = [self._table(trie, depth, tokens.count) for depth in (0, 1)]

    def _table(self, trie: Trie, depth: int, vocabulary: int) -> Tensor:
        """[nodes of `depth`, V] child of each, 0 where there is none."""
        first, end = trie.depth_start[depth], trie.depth_start[depth + 1]
        table = torch.zeros(end - first, vocabulary, dtype=torch.long)
        children = np.arange(trie.depth_start[depth + 1], trie.depth_start[depth + 2])
        parents = np.searchsorted(trie.child_start[first:end], children, side="right") - 1
        table[torch.from_numpy(parents), self._token[children]] = torch.from_numpy(children)
        return table

    def _children(self, nodes: Tensor, depth: int) -> tuple[Tensor, Tensor]:
        """Children [U, W, C] of `nodes` [U, W], 0 where there is none, and their tokens."""
        if depth < 2:
            first = 1 if depth else 0
            children = self._dense[depth][nodes - first]
            return children, torch.arange(children.shape[-1]).expand_as(children)
        slots = torch.arange(self._branching[depth])
        children = self._child_start[nodes].unsqueeze(-1) + slots
        children = children * (children < self._child_start[nodes + 1].unsqueeze(-1))
        return children, self._token[children]

    @torch.inference_mode()
    def __call__(
        self,
        histories: Tensor,
        beams: int,
        *,
        real: Tensor | None = None,
        closed: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Search for many users at once.

        Args:
            histories: tokens [U, T], padded right.
            beams: W, of each user.
            real: which tokens are no padding, bool [U, T]; all when not given.
            closed: nodes that a user's search may not enter, bool [U, M]; none when not given.

        Returns:
            The nodes of full semantic IDs [U, <= W], best first, and their log-probabilities, -inf
            where a user has no more.
        """
        encoded = self._model.get_encoder()(histories, attention_mask=real).last_hidden_state
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        users = torch.arange(len(histories)).unsqueeze(1)
        nodes, last = torch.zeros_like(users), torch.zeros_like(users)
        totals = torch.zeros(users.shape)
        for depth in range(self._levels):
            width = nodes.shape[1]
            answer = self._model(
                encoder_outputs=(encoded.repeat_interleave(width, dim=0),),
                attention_mask=None if real is None else real.repeat_interleave(width, dim=0),
                decoder_input_ids=last.reshape(-1, 1),
                past_key_values=cache,
                use_cache=True,
            )
            log_probs = torch.log_softmax(answer.logits[:, -1], dim=-1).view(*nodes.shape, -1)
            children, tokens = self._children(nodes, depth)
            illegal = children == 0
            if closed is not None:
                illegal |= closed[users.unsqueeze(-1), children]
            scores = totals.unsqueeze(-1) + log_probs.gather(-1, tokens)
            scores = scores.masked_fill(illegal, float("-inf")).flatten(1)
            totals, index = scores.topk(min(beams, scores.shape[1]))
            rows = (users * width + index // children.shape[-1]).flatten()
            # The beams of a user read one history: only their number matters to its part.
            kept = cache if index.shape[1] != width else cache.self_attention_cache
            kept.reorder_cache(rows)  # type: ignore[arg-type]
            nodes, last = (per.flatten(1).gather(1, index) for per in (children, tokens))
        return nodes, totals
