"""The nearest known word to one that is not known, for error messages. Pure."""

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Words to end a message with: "; did you mean x?", or "; known are a, b" where no known word is near.

    At most 12 known words are listed, in their order.
    """
    words = list(dict.fromkeys(known))
    if near := nearest(word, words):
        return f"; did you mean {near}?"
    listed = ", ".join(words[:12]) + (", …" if len(words) > 12 else "")
    return f"; known are {listed}" if listed else ""


def nearest(word: str, known: Iterable[str]) -> str:
    """Return the known word that is nearest to another; empty where none is near."""
    near = get_close_matches(word[:200].lower(), list(known), n=1, cutoff=0.6)
    return near[0] if near else ""
