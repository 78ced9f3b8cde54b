"""From what a user did to what the encoder reads: known items, newest `length`, oldest first."""

from model.types import IntArray

DISLIKE = "dislike"
"""The one type of event with a meaning of its own: it excludes the item and is no history."""


def truncate(leaves: IntArray, length: int) -> IntArray:
    """The newest `length` entries of a history; training and serving cut at this one place."""
    return leaves[max(0, len(leaves) - length) :]
