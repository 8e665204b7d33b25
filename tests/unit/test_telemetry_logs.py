"""What a log line looks like, whatever is logged."""

import io
import logging
import re
import warnings

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import EventConfigException
from shared.telemetry.logs import JsonFormatter, TextFormatter, configure_logging
from shared.telemetry.request_id import accepted_request_id, current_request_id, new_request_id

ANY_TEXT = st.text(st.characters(codec=None))
ANY_VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT | st.integers(), inner, max_size=3),
    max_leaves=5,
)


class Unprintable:
    """Fails wherever it is shown."""

    def __str__(self) -> str:
        raise ValueError("no")

    __repr__ = __str__


@pytest.fixture
def root_logging():
    """Restore the root logger, and those of libraries, after a test that configures them."""
    loggers = [logging.getLogger(name) for name in ("", "asyncio", "grpc")]
    saved = [(logger, logger.level, logger.handlers[:]) for logger in loggers]
    yield
    logging.captureWarnings(capture=False)
    for logger, level, handlers in saved:
        logger.setLevel(level)
        logger.handlers[:] = handlers


def record(message: object = "it happened", *args: object, **extra: object) -> logging.LogRecord:
    """A record as logging makes it."""
    made = logging.makeLogRecord(
        {"name": "eventlog.test", "levelno": logging.INFO, "levelname": "INFO", "msg": message, "args": args}
    )
    made.__dict__.update(extra)
    return made


def line(*args: object, **extra: object) -> dict:
    """A record as its JSON line, parsed."""
    text = JsonFormatter("test_service").format(record(*args, **extra))
    assert "\n" not in text
    return orjson.loads(text)


def test_line_has_time_level_logger_event_and_extra():
    """The fields of a plain line, and those that the call adds."""
    made = line("%d of %s", 3, "many", position=7, paths=["a", "b"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", made.pop("time"))
    assert made == {
        "level": "info",
        "logger": "eventlog.test",
        "event": "3 of many",
        "service": "test_service",
        "position": 7,
        "paths": ["a", "b"],
    }


def test_line_has_the_request_id_inside_a_request():
    """The id that is bound to the task is in each of its lines, and in no other."""
    token = current_request_id.set("abc")
    try:
        assert line()["request_id"] == "abc"
        assert "request_id=abc" in TextFormatter().format(record())
    finally:
        current_request_id.reset(token)
    assert "request_id" not in line()


def test_line_has_the_traceback():
    """An exception's traceback is one field of the one line."""
    with pytest.raises(ValueError, match="broken") as caught:
        raise ValueError("broken\nin two")
    made = line(exc_info=caught._excinfo)
    assert made["traceback"].endswith("ValueError: broken\nin two")


def test_extra_cannot_hide_what_every_line_has():
    """An extra field named as one of ours does not replace it."""
    made = line(service="other", level="other", event="other")
    assert (made["service"], made["level"], made["event"]) == ("test_service", "info", "it happened")


@given(message=ANY_TEXT, extra=st.dictionaries(st.from_regex(r"[a-z]{9}_[a-z]", fullmatch=True), ANY_VALUE))
def test_any_value_makes_a_line(message, extra):
    """Lone surrogates, huge integers, bytes, NaN and nesting never raise and never break the line."""
    assert line(message, **extra)["level"] == "info"
    assert len(TextFormatter().format(record(message, **extra)).splitlines()) == 1


def test_broken_objects_make_a_line():
    """Objects that cannot be shown, cycles and arguments that do not fit lose neither line nor process."""
    cycle: list = []
    cycle.append(cycle)
    assert line("x", thing=Unprintable(), cycle=cycle)["thing"] == "<Unprintable>"
    assert "do not fit" in line("%d", "text")["event"]
    assert line(Unprintable())["level"] == "info"
    assert "<Unprintable>" in TextFormatter().format(record("x", thing=Unprintable()))


def test_text_format_is_for_people():
    """Time, level, logger, message, then key=value, with line breaks escaped."""
    text = TextFormatter().format(record("two\nlines", position=7))
    assert re.fullmatch(r"\S+Z INFO    eventlog\.test two\\nlines position=7", text)


@pytest.mark.usefixtures("root_logging")
def test_configured_logging_writes_lines_from_its_level_up():
    """Records and warnings go to the stream in the format chosen; those below the level do not."""
    stream = io.StringIO()
    configure_logging(level="WARNING", log_format="json", service="test_service", stream=stream)
    logging.getLogger("eventlog.test").info("not this")
    logging.getLogger("eventlog.test").warning("this")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("and this", UserWarning, stacklevel=1)
    lines = [orjson.loads(each) for each in stream.getvalue().splitlines()]
    assert [each["level"] for each in lines] == ["warning", "warning"]
    assert lines[0]["event"] == "this"
    assert "and this" in lines[1]["event"]


@pytest.mark.usefixtures("root_logging")
def test_configuring_twice_writes_each_line_once():
    """The second configuration replaces the first."""
    first, second = io.StringIO(), io.StringIO()
    configure_logging(level="info", log_format="json", service="a", stream=first)
    configure_logging(level="debug", log_format="text", service="a", stream=second)
    logging.getLogger("eventlog.test").info("once")
    assert first.getvalue() == ""
    assert second.getvalue().count("once") == 1


@pytest.mark.usefixtures("root_logging")
@pytest.mark.parametrize(("level", "log_format"), [("loud", "json"), ("info", "xml")])
def test_unknown_level_or_format_is_refused(level, log_format):
    """The error names what may be written instead."""
    with pytest.raises(EventConfigException, match="write"):
        configure_logging(level=level, log_format=log_format, service="a", stream=io.StringIO())


def test_new_request_ids_differ_and_are_accepted():
    """Ids of ours are unique, and sane by our own rule."""
    made = {new_request_id() for _ in range(1000)}
    assert len(made) == 1000
    assert all(accepted_request_id(each) == each for each in made)


@pytest.mark.parametrize("proposed", ["", "a b", "a\n", "x" * 129, "é", b"abc", None, 5])
def test_odd_request_ids_are_not_accepted(proposed):
    """What could break a log line or a header is no id."""
    assert accepted_request_id(proposed) is None
