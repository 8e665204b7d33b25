"""The secret that page tokens are signed with: made once for a log and kept in its directory.

Invariants: it is random, so nobody can work it out from what is known of the log; all processes that read the
directory have the same one, also after a restart. Without the file no event is lost: tokens given out before are
refused, and each reader signs with a secret of its own until the writer has made one again.
"""

import contextlib
import secrets

from shared.log.file_system import FileSystem
from shared.log.names import TOKEN_KEY
from shared.log.whole_file import write_whole_file

TOKEN_KEY_BYTES = 32


def ensure_token_key(fs: FileSystem) -> None:
    """Make the secret where there is none. For the log's one writer. Raises OSError."""
    if _stored(fs) is None:
        write_whole_file(fs, TOKEN_KEY, secrets.token_bytes(TOKEN_KEY_BYTES))


class TokenKey:
    """The secret as a reader knows it, from the first time it is needed."""

    def __init__(self, fs: FileSystem) -> None:
        self._fs = fs
        self._key = b""

    def get(self) -> bytes:
        """Return TOKEN_KEY_BYTES bytes."""
        if not self._key:
            self._key = _stored(self._fs) or secrets.token_bytes(TOKEN_KEY_BYTES)
        return self._key


def _stored(fs: FileSystem) -> bytes | None:
    """What the file holds; None where there is none, or it is not whole, or it cannot be read."""
    with contextlib.suppress(OSError):
        key = fs.read(TOKEN_KEY)
        if len(key) == TOKEN_KEY_BYTES:
            return key
    return None
