"""The secret of page tokens: random, made once, the same for everybody who reads the directory."""

from pathlib import Path

import pytest

from shared.log.file_system import LocalFileSystem
from shared.log.names import TOKEN_KEY
from shared.log.token_key import TOKEN_KEY_BYTES, TokenKey, ensure_token_key


def test_all_readers_have_the_secret_that_the_writer_made(tmp_path: Path) -> None:
    """Also those that start after a restart of the writer."""
    fs = LocalFileSystem(tmp_path)
    ensure_token_key(fs)
    key = TokenKey(fs).get()
    ensure_token_key(fs)
    assert len(key) == TOKEN_KEY_BYTES
    assert TokenKey(fs).get() == key


def test_two_logs_have_different_secrets(tmp_path: Path) -> None:
    """Nothing of the log or the machine decides it."""
    keys = set()
    for name in ("one", "other"):
        fs = LocalFileSystem(tmp_path / name)
        ensure_token_key(fs)
        keys.add(TokenKey(fs).get())
    assert len(keys) == 2


def test_a_reader_without_the_file_signs_for_itself(tmp_path: Path) -> None:
    """Its tokens hold as long as it runs; others cannot guess its secret."""
    fs = LocalFileSystem(tmp_path)
    reader = TokenKey(fs)
    assert reader.get() == reader.get() != TokenKey(fs).get()


@pytest.mark.parametrize("content", [b"", b"short", b"x" * (TOKEN_KEY_BYTES + 1)])
def test_a_file_of_another_length_is_made_anew(tmp_path: Path, content: bytes) -> None:
    """A crash or a disk may have left a part of it."""
    fs = LocalFileSystem(tmp_path)
    fs.path(TOKEN_KEY).write_bytes(content)
    ensure_token_key(fs)
    assert len(fs.read(TOKEN_KEY)) == TOKEN_KEY_BYTES
