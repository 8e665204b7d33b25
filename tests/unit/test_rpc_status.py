"""Exceptions become statuses and statuses become the same exceptions."""

import grpc
import pytest
from eventlog.v1 import error_reason_pb2
from google.rpc import error_details_pb2
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import (
    BufferFull,
    EventException,
    EventFilterException,
    EventStorageException,
    EventStreamException,
    EventValidationException,
    FieldViolation,
    LogCorrupted,
    PositionTrimmed,
    StorageUnavailable,
)
from shared.rpc.reasons import all_reasons
from shared.rpc.remote_error import CLASS_BY_REASON, RemoteError, from_rpc_error
from shared.rpc.status import STATUS_BYTES_MAX, rich_status, to_status

ANY_TEXT = st.text(st.characters(codec=None))


def received(error: EventException) -> RemoteError:
    """What a client makes of the status that a service makes of an exception."""
    status = to_status(error)
    return from_rpc_error(
        grpc.aio.AioRpcError(
            status.code, grpc.aio.Metadata(), grpc.aio.Metadata(*status.trailing_metadata), status.details
        )
    )


def plain(code: grpc.StatusCode, *trailing: tuple[str, bytes]) -> RemoteError:
    """What a client makes of a status without details of ours."""
    return from_rpc_error(grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*trailing), "plain words"))


def test_every_reason_has_a_grpc_code_and_a_class():
    """No value of ErrorReason lacks its annotation or its place in the exception tree."""
    names = {name.removeprefix("ERROR_REASON_") for name in error_reason_pb2.ErrorReason.keys()}  # noqa: SIM118
    assert set(all_reasons()) == set(CLASS_BY_REASON) == names - {"UNSPECIFIED"}
    assert grpc.StatusCode.OK not in {reason.code for reason in all_reasons().values()}


@pytest.mark.parametrize("name", sorted(all_reasons()))
def test_each_reason_round_trips(name):
    """Code, reason, message, metadata and class of an exception survive the wire; RetryInfo where retryable."""
    error = received(EventException("it is so", reason=name, first_position=7))
    reason = all_reasons()[name]
    assert (error.reason, error.code, str(error)) == (name, reason.code, "it is so")
    assert error.metadata == {"first_position": "7"}
    assert isinstance(error, CLASS_BY_REASON[name])
    assert error.retryable is reason.retryable
    assert (error.retry_delay_s is not None) is reason.retryable


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (StorageUnavailable("a"), grpc.StatusCode.UNAVAILABLE),
        (BufferFull("b", bytes=5), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (LogCorrupted("c", first_position=1, last_position=2), grpc.StatusCode.DATA_LOSS),
        (PositionTrimmed("d"), grpc.StatusCode.OUT_OF_RANGE),
        (EventFilterException("e", line=1), grpc.StatusCode.INVALID_ARGUMENT),
        (EventStreamException("f", reason="SUBSCRIPTION_NOT_FOUND"), grpc.StatusCode.NOT_FOUND),
        (EventStorageException("g", reason="EVENT_NOT_FOUND"), grpc.StatusCode.NOT_FOUND),
        (EventValidationException("h", violations=[FieldViolation("x", "y")]), grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
def test_exceptions_arrive_as_the_same_class(error, code):
    """What a service raises is what its client catches."""
    remote = received(error)
    assert isinstance(remote, type(error))
    assert (remote.code, str(remote), remote.reason, remote.metadata) == (
        code,
        str(error),
        error.reason,
        error.metadata,
    )
    assert remote.violations == getattr(error, "violations", ())


def test_remote_errors_are_named_as_their_class():
    """A traceback of a remote error names the class that the documentation names."""
    assert type(received(StorageUnavailable("a"))).__name__ == "StorageUnavailable"


def test_remote_errors_can_be_sent_on():
    """A service that passes another's error on keeps its reason, violations and retry delay."""
    first = BufferFull("full")
    first.retry_delay_s = 2.5
    assert received(received(first)).retry_delay_s == 2.5
    invalid = EventValidationException("no", violations=[FieldViolation("events[3].type", "is empty")])
    assert received(received(invalid)).violations == invalid.violations


def test_unknown_reason_of_ours_is_internal():
    """A reason that the protos do not know never reaches a client."""
    error = received(EventException("odd", reason="NO_SUCH_REASON"))
    assert (error.reason, error.code) == ("INTERNAL", grpc.StatusCode.INTERNAL)


def test_many_violations_are_cut_to_what_metadata_carries():
    """10,000 violations leave the first ones and the number of those left out."""
    violations = [FieldViolation(f"events[{index}].type", "must not be empty") for index in range(10_000)]
    status = rich_status(EventValidationException("bad", violations=violations))
    assert status.ByteSize() <= STATUS_BYTES_MAX
    kept = received(EventValidationException("bad", violations=violations))
    assert kept.violations == tuple(violations[: len(kept.violations)])
    assert len(kept.violations) >= 30
    assert int(kept.metadata["violations_omitted"]) == 10_000 - len(kept.violations)


@given(
    message=ANY_TEXT,
    metadata=st.dictionaries(ANY_TEXT, ANY_TEXT, max_size=5),
    violations=st.lists(st.tuples(ANY_TEXT, ANY_TEXT), max_size=5),
    repeat=st.sampled_from([1, 100, 5000]),
)
def test_any_text_makes_a_status_that_fits(message, metadata, violations, repeat):
    """Lone surrogates, control characters and long texts make no status that a peer would refuse."""
    error = EventValidationException(
        message * repeat, violations=[FieldViolation(field * repeat, told) for field, told in violations]
    )
    error.metadata = {key: value * repeat for key, value in metadata.items()}
    status = rich_status(error)
    assert status.ByteSize() <= STATUS_BYTES_MAX
    assert received(error).reason == "INVALID_EVENT"


def test_short_texts_are_kept_whole():
    """What fits is not touched."""
    text = "größer als 5 €, immer"
    assert str(received(EventException(text, reason="INTERNAL", note=text))) == text
    assert received(EventException(text, reason="INTERNAL", note=text)).metadata == {"note": text}


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_plain_status_becomes_an_exception(code):
    """A status of gRPC itself has a reason of its code, and no details."""
    error = plain(code)
    assert (error.code, str(error), error.metadata, error.violations) == (code, "plain words", {}, ())
    expected = {"UNAVAILABLE": "DEPENDENCY_UNAVAILABLE", "UNIMPLEMENTED": "NOT_IMPLEMENTED"}
    assert error.reason == expected.get(code.name, code.name)
    assert error.retryable is (code is grpc.StatusCode.UNAVAILABLE)


@pytest.mark.parametrize("details", [b"", b"\xff\xff\xff", b"\x1a\x05\x0a\x01x\x12\xff"])
def test_damaged_details_do_not_hide_the_error(details):
    """A proxy's damaged details leave code and message."""
    error = plain(grpc.StatusCode.ABORTED, ("grpc-status-details-bin", details))
    assert (error.code, error.reason) == (grpc.StatusCode.ABORTED, "ABORTED")


def test_reason_of_another_domain_is_not_ours():
    """ErrorInfo of a proxy is not taken for one of eventlog's."""
    status = rich_status(EventException("x", reason="BUFFER_FULL"))
    info = error_details_pb2.ErrorInfo(reason="BUFFER_FULL", domain="proxy.example")
    status.details[0].Pack(info)
    error = plain(grpc.StatusCode.RESOURCE_EXHAUSTED, ("grpc-status-details-bin", status.SerializeToString()))
    assert error.reason == "RESOURCE_EXHAUSTED"
    assert not isinstance(error, BufferFull)


def test_bare_rpc_error_becomes_an_exception():
    """An RpcError without code and details is still an answer."""
    error = from_rpc_error(grpc.RpcError())
    assert error.code is grpc.StatusCode.UNKNOWN
    assert "did not say why" in str(error)
