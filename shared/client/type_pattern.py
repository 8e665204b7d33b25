"""Patterns for event types: * is any run of characters, ? any one character; the whole type must match. Pure."""


def matches_pattern(pattern: str, event_type: str) -> bool:
    """Whether the type matches. Case matters. Takes at most len(pattern) * len(event_type) steps."""
    at, start = 0, 0
    star, resume = -1, 0
    while start < len(event_type):
        if at < len(pattern) and pattern[at] == "*":
            star, resume = at, start
            at += 1
        elif at < len(pattern) and pattern[at] in ("?", event_type[start]):
            at += 1
            start += 1
        elif star >= 0:  # let the last star take one character more
            resume += 1
            at, start = star + 1, resume
        else:
            return False
    return pattern[at:].strip("*") == ""
