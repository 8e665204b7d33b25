"""Names of requests: unique without asking anybody, so that a repeated one is recognised."""

import secrets
from dataclasses import dataclass, field


@dataclass(slots=True)
class RequestIds:
    """Makes "<16 random hexadecimal digits>-<number>". Each sender has its own, also after a fork."""

    producer: str = field(default_factory=lambda: secrets.token_hex(8))
    _last: int = 0

    def __call__(self) -> str:
        """The next one."""
        self._last += 1
        return f"{self.producer}-{self._last}"
