"""The aliases every signature uses; shape letters are given in the docstrings that use them."""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

IntArray: TypeAlias = npt.NDArray[np.int32] | npt.NDArray[np.int64]
FloatArray: TypeAlias = npt.NDArray[np.float32]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
AnyArray: TypeAlias = npt.NDArray[Any]

ItemId: TypeAlias = str
"""A catalogue's own name of an item."""

Leaf: TypeAlias = int
"""An item's number in a bundle: its rank in (semantic ID, item id) order."""

CategoryPath: TypeAlias = tuple[str, ...]
"""Category names from coarse to fine."""

SemanticId: TypeAlias = tuple[int, ...]
"""One code per level, coarse to fine."""
