"""Which problems are held out: decided by a hash of the text, so it never changes and needs no list."""

from hashlib import blake2b


def fraction(text: str) -> float:
    """A number in [0, 1) that depends on the text alone: the same on every machine, in every run.

    >>> round(fraction("rev(ab)="), 4)
    0.2118
    """
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=6).digest()) / 2**48


def held_out(text: str, share: float) -> bool:
    """True for about `share` of all texts."""
    return fraction(text) < share
