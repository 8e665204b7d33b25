"""Gathering acknowledgements: together, again where they fail, without those the service does not know."""

import asyncio

import grpc
import pytest

from shared.client.acknowledger import Acknowledger
from shared.client.back_off import BackOff
from shared.client.stream_options import StreamOptions
from shared.rpc.remote_error import RemoteError

TIMEOUT_S = 10
OPTIONS = StreamOptions(acknowledge_after_s=0.01, acknowledge_at_count=3, back_off=BackOff(0.001, 0.002))


class Service:
    """Takes acknowledgements, or refuses them."""

    def __init__(self) -> None:
        self.requests: list[list[int]] = []
        self.errors: list[RemoteError] = []
        self.stored: list[int] = []
        self._changed = asyncio.Event()

    async def send(self, positions: list[int]) -> None:
        """One request."""
        self.requests.append(list(positions))
        self._changed.set()
        if self.errors:
            raise self.errors.pop(0)
        self.stored += positions

    async def until_stored(self, count: int) -> None:
        """Wait until so many are stored."""
        async with asyncio.timeout(TIMEOUT_S):
            while len(self.stored) < count:
                self._changed.clear()
                await self._changed.wait()


def remote_error(reason, **metadata):
    """A refusal."""
    error = RemoteError("refused", reason=reason, **metadata)
    error.code = grpc.StatusCode.UNAVAILABLE
    return error


@pytest.fixture
async def service():
    """A service that takes everything."""
    return Service()


async def test_what_comes_together_goes_together(service):
    """Several are sent in one request, no more than the options say, and each once."""
    acknowledger = Acknowledger(service.send, OPTIONS)
    for position in range(1, 8):
        acknowledger.done(position)
    assert acknowledger.is_done(4)
    await service.until_stored(7)
    assert service.requests == [[1, 2, 3], [4, 5, 6], [7]]
    await acknowledger.close()
    assert not acknowledger.is_done(4)


async def test_failed_requests_are_sent_again(service):
    """While the service is away, nothing is lost and all stays known as done."""
    service.errors = [remote_error("DEPENDENCY_UNAVAILABLE") for _ in range(3)]
    acknowledger = Acknowledger(service.send, OPTIONS)
    acknowledger.done(1)
    await service.until_stored(1)
    assert service.requests == [[1]] * 4
    await acknowledger.close()


async def test_unknown_positions_are_left_out(service):
    """What a service that started anew does not know is dropped; the others are stored."""
    service.errors = [remote_error("POSITION_NOT_DELIVERED", position=2)]
    acknowledger = Acknowledger(service.send, OPTIONS)
    for position in (1, 2, 3):
        acknowledger.done(position)
    await service.until_stored(2)
    assert service.stored == [1, 3]
    await acknowledger.close()


async def test_closing_sends_what_waits(service):
    """A clean end loses no acknowledgement that was gathered."""
    acknowledger = Acknowledger(service.send, StreamOptions(acknowledge_after_s=60))
    acknowledger.done(1)
    acknowledger.done(2)
    await acknowledger.close()
    assert service.stored == [1, 2]


async def test_closing_says_what_cannot_be_sent(service):
    """Where the last ones cannot be stored, closing raises."""
    service.errors = [remote_error("DEPENDENCY_UNAVAILABLE")]
    acknowledger = Acknowledger(service.send, StreamOptions(acknowledge_after_s=60))
    acknowledger.done(1)
    with pytest.raises(RemoteError):
        await acknowledger.close()
