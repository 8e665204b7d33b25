"""The configuration: keys, words, layers, and what is refused."""

import os
import pickle
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from shared.config import EventConfig, IngestConfig, RetentionConfig, RotationConfig, load_config
from shared.config.problems import known_keys
from shared.config.words import format_duration, format_size, parse_duration, parse_size
from shared.errors import EventConfigException

ROOT = Path(__file__).parents[2]
SPECIFICATION = """
events:
  logging:
    buffer_size: 10000
    flush_interval: 1.0  # seconds
    async_writes: true

  storage:
    base_path: ./data/events/
    rotation:
      max_size: 100MB
      max_age: 30  # days
      compress: true
    index:
      enabled: true
      rebuild_interval: 3600  # seconds
    retention:
      default: 90  # days
      by_type:
        error: 365
        audit: 2555  # 7 years

  streaming:
    max_subscribers: 100
    default_buffer_size: 1000
    backpressure_threshold: 0.8
    slow_consumer_timeout: 30  # seconds

  replay:
    max_speed: 100.0
    checkpoint_dir: ./data/events/checkpoints/
    session_cache_size: 1000

  analysis:
    pattern_window: 3600  # seconds
    anomaly_sensitivity: 0.95
    statistics_cache_ttl: 300  # seconds
"""
DAY = 86400.0


@pytest.fixture
def load(tmp_path):
    """Load YAML text with an environment."""

    def _load(text, environ=None):
        path = tmp_path / "eventlog.yaml"
        path.write_text(text, encoding="utf-8")
        return load_config(path, environ or {})

    return _load


@pytest.fixture
def refusal(load):
    """The message with which YAML text and an environment are refused."""

    def _refusal(text, environ=None):
        with pytest.raises(EventConfigException) as caught:
            load(text, environ)
        return str(caught.value)

    return _refusal


def test_specification_example_is_the_default(load):
    """The specification's YAML loads, and says what the defaults say."""
    assert load(SPECIFICATION) == load_config(None, {}) == EventConfig()


def test_default_file_equals_defaults():
    """deploy/eventlog.yaml says what holds without it."""
    assert load_config(ROOT / "deploy/eventlog.yaml", {}) == EventConfig()


def test_default_file_has_every_key():
    """deploy/eventlog.yaml has each key, so an operator finds all of them there."""
    document = yaml.safe_load((ROOT / "deploy/eventlog.yaml").read_text(encoding="utf-8"))["events"]
    for path in known_keys():
        value = document
        for part in path:
            assert part in value, path
            value = value[part]


def test_documentation_has_every_key_with_its_default(load):
    """docs/configuration.md has one row for each key, and its default column says the default."""
    text = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z_.]+)` \| `([^|]*)` \|", text, flags=re.MULTILINE)
    assert sorted(path for path, _ in rows) == sorted(".".join(path) for path in known_keys())
    for path, default in rows:
        section, *keys = path.split(".")
        nested = f"{section}: " + "".join(f"{{{key}: " for key in keys) + default + "}" * len(keys)
        loaded = load(f"events:\n  {nested}\n")
        assert loaded == EventConfig(), path
        # The row must not merely be ignored: a value of another shape is refused there.
        if default not in {"[]", "true", "false", '""'} and "{" not in default:
            with pytest.raises(EventConfigException, match=re.escape(path)):
                load(f"events:\n  {nested.replace(default, '[]')}\n")


def test_sizes_and_durations_are_read_in_words(load):
    """Words become bytes and seconds."""
    config = load("events:\n  storage:\n    rotation: {max_size: 64MiB, max_age: 12h}\n")
    assert config.storage.rotation.max_size == 64 * 1024 * 1024
    assert config.storage.rotation.max_age == 12 * 3600
    config = load("events: {logging: {flush_interval: 500ms}, streaming: {slow_consumer_timeout: 1.5s}}")
    assert config.logging.flush_interval == 0.5
    assert config.streaming.slow_consumer_timeout == 1.5


def test_bare_numbers_take_the_unit_of_their_key(load):
    """Days for max_age and retention, in the file and in the environment; seconds and bytes elsewhere."""
    text = "events: {storage: {rotation: {max_age: 7, max_size: 70000}, retention: {by_type: {a: 0.5}}}}"
    environ = {"EVENTLOG__STORAGE__RETENTION__DEFAULT": "10", "EVENTLOG__LOGGING__FLUSH_INTERVAL": "2"}
    config = load(text, environ)
    assert config.storage.rotation.max_age == 7 * DAY
    assert config.storage.rotation.max_size == 70000
    assert config.storage.retention.default == 10 * DAY
    assert config.storage.retention.by_type["a"] == 0.5 * DAY
    assert config.logging.flush_interval == 2.0


def test_numbers_from_code_are_seconds():
    """Whoever makes a section in Python gives the field's own unit, and words still work."""
    assert RotationConfig(max_age=3600.0).max_age == 3600.0
    assert RetentionConfig(default="30d").default == 30 * DAY


def test_configuration_survives_its_own_dump():
    """Validating a dump gives the same configuration: no unit is applied twice."""
    config = EventConfig()
    assert EventConfig.model_validate(config.model_dump()) == config


def test_environment_overrides_the_file(load):
    """A variable wins over the file, and leaves the keys beside it alone."""
    text = "events: {storage: {rotation: {max_size: 200MB, max_events: 5}, base_path: /a}}"
    config = load(text, {"EVENTLOG__STORAGE__ROTATION__MAX_SIZE": "50MB", "OTHER": "x", "EVENTLOG_PORT": "y"})
    assert config.storage.rotation.max_size == 50_000_000
    assert config.storage.rotation.max_events == 5
    assert config.storage.base_path == Path("/a")


def test_environment_text_is_not_read_as_yaml_scalars():
    """A version that looks like a number stays the text it is; true, numbers and lists are understood."""
    environ = {
        "EVENTLOG__INGEST__VERSION": "1.10",
        "EVENTLOG__LOGGING__ASYNC_WRITES": "False",
        "EVENTLOG__LOGGING__BUFFER_SIZE": "7",
        "EVENTLOG__ANALYSIS__ANOMALY_SENSITIVITY": "0.5",
        "EVENTLOG__STORAGE__PROMOTED_PATHS": '[payload.a, payload."case:id".b]',
        "EVENTLOG__STORAGE__RETENTION__BY_TYPE": "{debug: 1}",
    }
    config = load_config(None, environ)
    assert config.ingest.version == "1.10"
    assert config.logging.async_writes is False
    assert config.logging.buffer_size == 7
    assert config.analysis.anomaly_sensitivity == 0.5
    assert config.storage.promoted_paths == ("payload.a", 'payload."case:id".b')
    assert config.storage.retention.by_type["debug"] == DAY


def test_process_environment_is_used_when_none_is_given(monkeypatch):
    """Without an explicit environment the process's own counts."""
    for name in [name for name in os.environ if name.startswith("EVENTLOG__")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("EVENTLOG__QUERY__LISTEN", "127.0.0.1:0")
    assert load_config(None).query.listen == "127.0.0.1:0"
    assert load_config(None, {}).query.listen == "127.0.0.1:50052"


def test_sections_made_in_code_do_not_read_the_environment(monkeypatch):
    """Only load_config reads the environment."""
    monkeypatch.setenv("EVENTLOG__LOGGING__BUFFER_SIZE", "7")
    monkeypatch.setenv("LOGGING__BUFFER_SIZE", "7")
    monkeypatch.setenv("LOGGING", '{"buffer_size": 7}')
    assert EventConfig().logging.buffer_size == 10_000
    assert load_config(None, {}).logging.buffer_size == 10_000


def test_retention_by_type_adds_to_the_default_entries(load):
    """Naming another type does not shorten the retention of error and audit."""
    config = load("events: {storage: {retention: {by_type: {debug: 1d, error: 10d}}}}")
    assert config.storage.retention.by_type == {"debug": DAY, "error": 10 * DAY, "audit": 2555 * DAY}
    assert RetentionConfig().by_type == {"error": 365 * DAY, "audit": 2555 * DAY}


@pytest.mark.parametrize("text", ["", "# nothing\n", "events:\n", "events:\n  storage:\n    rotation:\n"])
def test_empty_files_and_sections_are_the_defaults(load, text):
    """A section whose keys are all commented out is no mistake."""
    assert load(text) == EventConfig()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "events: {storage: {rotation: {max_sise: 1MB}}}",
            "events.storage.rotation.max_sise is not known; did you mean max_size?",
        ),
        ("events: {storge: {}}", "events.storge is not known; did you mean storage?"),
        (
            "events: {storage: {max_events: 5}}",
            "events.storage.max_events is not known; did you mean events.storage.rotation.max_events?",
        ),
        ("evnts: {}", "evnts is not known at the top; did you mean events?"),
        ("events: {5: 1}", "events.5 is not known; known are logging, storage"),
        ("events: {query: 5}", "events.query is 5; write keys below it: listen, metrics_listen, grace"),
        ("events: 5", "events is 5; write sections"),
        ("[1]", "is no mapping; write `events:`"),
    ],
)
def test_unknown_keys_are_refused_with_the_nearest_known(refusal, text, expected):
    """What is not known is refused with its path and what it may have meant."""
    assert expected in refusal(text)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("storage.rotation.max_size", "100M", "is '100M'; write a size from 64KiB to 1TiB"),
        ("storage.rotation.max_size", "100", "is 100; write a size from 64KiB"),
        ("storage.rotation.max_size", "1.3B", "write a size"),
        ("storage.rotation.max_size", "70000.5", "write a size"),
        ("storage.rotation.max_age", "30D", "is '30D'; write a duration from 1s"),
        ("storage.rotation.max_age", "-1", "is -1; write a duration"),
        ("storage.rotation.max_age", ".inf", "is inf; write a duration"),
        ("storage.rotation.max_age", ".nan", "is nan; write a duration"),
        ("storage.rotation.max_age", "true", "is True; write a duration"),
        ("storage.rotation.max_age", "40000", "a bare number is days"),
        ("storage.rotation.max_events", "1.5", "is 1.5; write a whole number from 1 to 100000000"),
        ("storage.rotation.max_events", "true", "is True; write a whole number"),
        ("storage.rotation.max_events", "0", "is 0; write a whole number"),
        ("storage.rotation.compress", "1", "is 1; write true or false"),
        ("storage.base_path", "5", "is 5; write the path of a directory"),
        ("storage.base_path", '""', "is ''; write the path of a directory"),
        ("storage.base_path", "/var/[abc]/events", "without *, ? and ["),
        ("storage.base_path", "'/var/event*'", "without *, ? and ["),
        ("storage.promoted_paths", "[payload.a, payload.a]", "different paths"),
        ("storage.promoted_paths", "[duration_ms]", "write a list of at most 64 different paths"),
        ("storage.promoted_paths", "['payload.\"*\"']", "write a list of at most 64 different paths"),
        ("storage.retention.by_type", "5", "is 5; write entries below it"),
        ("storage.retention.by_type", "{a b: 5}", "a b is no pattern; write a type"),
        ("storage.retention.by_type", "{a: forever}", ".a is 'forever'; write a duration"),
        ("ingest.listen", "50051", "is 50051; write a host and a port"),
        ("ingest.listen", "localhost:70000", "write a host and a port"),
        ("ingest.version", "1.10", "in quotes where it looks like a number"),
        ("ingest.batch_events_max", "10001", "write a whole number from 1 to 10000"),
        ("ingest.metrics_listen", "127.0.0.1:50051", "write another address than listen"),
        ("ingest.buffered_bytes_max", "1MiB", "write at least 16MiB, or lower batch_bytes_max"),
        ("streaming.backpressure_threshold", "80", "is 80; write a number from 0.01 to 1"),
        ("telemetry.log_level", "trace", "is 'trace'; write one of debug, info, warning, error"),
        ("telemetry.log_level", "[info]", "write one of debug"),
        ("telemetry.log_level", "", "is None; write one of debug"),
    ],
)
def test_bad_values_are_refused_with_what_to_write(refusal, key, value, expected):
    """The message names the key, the value and what to write instead."""
    *sections, last = ["events", *key.split(".")]
    text = "".join(f"{'  ' * depth}{name}:\n" for depth, name in enumerate(sections))
    message = refusal(f"{text}{'  ' * len(sections)}{last}: {value}\n")
    assert f"events.{key}" in message
    assert expected in message
    assert "has 1 problem" in message


def test_all_problems_are_in_one_message(refusal):
    """The operator corrects everything at once, and sees what came from the environment."""
    message = refusal(
        "events: {logging: {buffer_size: x}, query: {grce: 1}, ingest: {buffered_bytes_max: 2MiB}}\nmore: 1\n",
        {
            "EVENTLOG__TELEMETRY__LOG_LEVEL": "loud",
            "EVENTLOG__STORGE__BASE_PATH": "/x",
            "EVENTLOG____X": "1",
            "EVENTLOG__REPLAY": "{}",
            "EVENTLOG__REPLAY__MAX_SPEED": "1",
        },
    )
    for part in (
        "events.logging.buffer_size is 'x'",
        "events.query.grce is not known; did you mean grace?",
        "events.ingest.buffered_bytes_max",
        "more is not known",
        "events.telemetry.log_level (from EVENTLOG__TELEMETRY__LOG_LEVEL) is 'loud'",
        "events.storge (from EVENTLOG__STORGE__BASE_PATH) is not known; did you mean storage?",
        "EVENTLOG____X names no key",
        "EVENTLOG__REPLAY__MAX_SPEED is given, and so is what it is a part of",
        "events.replay (from EVENTLOG__REPLAY) is '{}'; write keys below it",
    ):
        assert part in message
    assert "has 9 problem(s)" in message


def test_files_that_cannot_be_read_are_named(tmp_path, refusal):
    """A missing file, a directory, broken YAML, a doubled key and a huge file are errors that name the file."""
    missing = tmp_path / "missing.yaml"
    with pytest.raises(EventConfigException, match=re.escape(f"{missing} does not exist")):
        load_config(missing, {})
    with pytest.raises(EventConfigException, match=re.escape(f"{tmp_path} cannot be read")):
        load_config(tmp_path, {})
    assert "eventlog.yaml is not valid YAML" in refusal("events: [1")
    assert "query is given twice, in lines 2 and 3" in refusal("events:\n  query: {}\n  query: {}\n")
    assert "is larger than 1000000 bytes" in refusal("#" * 1_000_001)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(EventConfigException, match=r"binary\.yaml"):
        load_config(tmp_path / "binary.yaml", {})


def test_yaml_cannot_make_objects(refusal):
    """Tags that construct Python objects are refused."""
    assert "not valid YAML" in refusal("events: !!python/object/apply:os.getcwd []")


def test_configuration_is_frozen_and_travels_between_processes():
    """Nobody changes it after loading; a sealing process may be handed it."""
    config = load_config(None, {})
    with pytest.raises(ValidationError):
        config.logging.buffer_size = 1
    assert pickle.loads(pickle.dumps(config)) == config


def test_same_address_with_port_zero_is_allowed():
    """The system chooses two different ports."""
    assert IngestConfig(listen="127.0.0.1:0", metrics_listen="127.0.0.1:0").listen == "127.0.0.1:0"


@settings(deadline=None)
@given(st.integers(0, 10**18))
def test_size_words_round_trip(size):
    """A size in words means the same size."""
    assert parse_size(format_size(size)) == size


@settings(deadline=None)
@given(st.integers(0, 10**14))
def test_duration_words_round_trip(milliseconds):
    """A duration in words means the same duration."""
    assert parse_duration(format_duration(milliseconds / 1000)) == milliseconds / 1000


@settings(deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["", " "]), st.sampled_from("KMGT"), st.booleans())
def test_sizes_scale_with_their_unit(number, space, letter, binary):
    """Units are powers of 1000 or 1024, and ignore case."""
    unit = f"{letter}{'iB' if binary else 'B'}"
    factor = (1024 if binary else 1000) ** ("KMGT".index(letter) + 1)
    assert parse_size(f"{number}{space}{unit}") == number * factor == parse_size(f"{number}{unit.lower()}")


@settings(deadline=None)
@given(st.text(max_size=20))
def test_any_other_text_is_refused_as_words(text):
    """No text makes the parsers do anything but answer or raise ValueError."""
    for parse in (parse_size, parse_duration):
        try:
            assert parse(text) >= 0
        except ValueError:
            continue
