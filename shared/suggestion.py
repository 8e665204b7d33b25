"""The nearest known word to one that is not known, for error messages. Pure."""

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Words to end a message with: "; did you mean x?", or "; known are a, b" where no known word is near.

    At most 12 known words are listed, in their order.
    """
    words = list(dict.fromkeys(known))
    near = get_close_matches(word[:200].lower(), words, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {near[0]}?"
    listed = ", ".join(words[:12]) + (", …" if len(words) > 12 else "")
    return f"; known are {listed}" if listed else ""
