"""Perceptual hashes that are nearly the same, found without comparing each with each."""

from itertools import combinations

import numpy as np

HASH_BITS = 64
_BLOCKS = 3
"""A hash has so many more blocks than bits may differ: near ones have at least this many in common."""


def near_pairs(hashes: np.ndarray, max_bits: int) -> np.ndarray:
    """Return the pairs (k, 2) of rows, the smaller first, in order, whose hashes (n,) uint64 differ in at
    most `max_bits` bits.

    Only hashes that share blocks are compared (multi-index hashing, Norouzi et al. 2012), so the time is
    hardly more than that of sorting them.
    """
    edges = np.linspace(0, HASH_BITS, max_bits + _BLOCKS + 1).astype(int)
    masks = [sum(1 << bit for bit in range(low, high)) for low, high in zip(edges, edges[1:])]
    found = [np.empty((0, 2), np.int64)]
    for chosen in combinations(masks, _BLOCKS):
        key = hashes & np.uint64(sum(chosen))
        order = np.argsort(key, kind="stable")
        key, step = key[order], 1
        same = np.flatnonzero(key[1:] == key[:-1])
        while len(same):  # pairs of neighbours among equal keys, then of those two apart...
            one, other = order[same], order[same + step]
            near = np.bitwise_count(hashes[one] ^ hashes[other]) <= max_bits
            found.append(np.column_stack([one, other])[near])
            step += 1
            same = same[same + step < len(key)]
            same = same[key[same] == key[same + step]]
    return np.unique(np.concatenate(found), axis=0)
