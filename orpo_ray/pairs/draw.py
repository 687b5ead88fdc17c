"""Random draws without state: each is a function of the run's seed and of what it is drawn for.

A generator would have to be wound forward to resume in mid-stream; a hash of (seed, epoch, prompt id) does not.
"""

import hashlib

_MASK = (1 << 64) - 1


def draw(seed: int, *what: int | str) -> int:
    """64 uniform bits for `what`, as ("coin", epoch, prompt_id)."""
    text = "\x1f".join(map(str, (seed, *what)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def uniform(seed: int, *what: int | str) -> float:
    """A uniform number in [0, 1) for `what`."""
    return (draw(seed, *what) >> 11) / (1 << 53)


def mix(bits: int) -> int:
    """Scramble 64 bits (the finaliser of splitmix64, Steele et al. 2014)."""
    bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & _MASK
    return bits ^ (bits >> 31)


def permuted(place: int, size: int, key: int) -> int:
    """Where the `key`-th pseudo-random permutation of range(size) sends `place`.

    A Feistel network over the smallest even number of bits that holds `size`, walked until it lands inside: any place
    of an epoch's order is found without making the order, so memory does not grow with the data.

    Args:
        place: 0 ≤ place < size.
    """
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    while True:
        left, right = place >> half, place & mask
        for turn in range(4):
            left, right = right, left ^ (mix(key + turn * 0x9E3779B97F4A7C15 + right) & mask)
        place = (left << half) | right
        if place < size:
            return place


def shuffled(count: int, seed: int, *what: int | str) -> list[int]:
    """range(count) in a random order for `what`."""
    key = draw(seed, *what)
    return sorted(range(count), key=lambda item: mix(key + item * 0x9E3779B97F4A7C15))
