"""The delays between attempts."""

from hypothesis import given
from hypothesis import strategies as st

from shared.client.back_off import BackOff


@given(
    failures=st.integers(1, 10_000),
    jitter=st.floats(0, 1, exclude_max=True),
    at_least_s=st.floats(0, 100),
)
def test_delay_stays_in_its_range(failures, jitter, at_least_s):
    """Never shorter than the server asks, never longer than the maximum unless it asks for more."""
    back_off = BackOff(first_s=0.1, max_s=5.0, jitter=lambda: jitter)
    delay_s = back_off.delay_s(failures, at_least_s=at_least_s)
    assert delay_s >= at_least_s
    assert delay_s >= 0.05
    assert delay_s <= max(5.0, at_least_s * 1.1)


def test_delays_double_up_to_the_maximum():
    """Without jitter: 1, 2, 4, 8, 8 seconds."""
    back_off = BackOff(first_s=1.0, max_s=8.0, jitter=lambda: 1.0)
    assert [back_off.delay_s(failures) for failures in range(1, 6)] == [1.0, 2.0, 4.0, 8.0, 8.0]
