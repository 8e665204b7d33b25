"""Flipped bits, cut and deleted files in a real directory: reported, never hidden, and everything else readable."""

import random
import shutil
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from eventlog.v1 import ingest_service_pb2, log_admin_service_pb2

from shared.log.segment_scan import SEGMENT_HEADER_BYTES, scan_frames
from tests.support.cluster import (
    CALL_S_MAX,
    failure_of,
    get_event,
    metrics,
    read_all,
    read_around_damage,
    wait_until,
)
from tests.support.producers import Ledger, Sent

pytestmark = pytest.mark.cluster

SEALED_SEGMENTS = 3
REQUESTS_PER_SEGMENT = 6
EVENTS_PER_REQUEST = 40


@dataclass(frozen=True)
class Original:
    """A stopped log with sealed segments, a rotated one and an active one, and what is in it."""

    path: Path
    # Serialised events by position.
    events: dict[int, bytes]
    # First position by request id.
    requests: dict[str, int]

    @property
    def last(self):
        return len(self.events)

    def logs(self):
        """The .log files: the rotated one and the active one."""
        return sorted(self.path.glob("segments/*.log"))

    def frames(self, log):
        """Where the frames of a .log file lie."""
        first = int(log.stem)
        return scan_frames(log.read_bytes()[SEGMENT_HEADER_BYTES:], base=SEGMENT_HEADER_BYTES, first=first).frames

    def copy(self, to):
        """A copy to be spoiled."""
        shutil.copytree(self.path, to / "events")
        return to / "events"


@pytest.fixture(scope="module")
def original(module_cluster):
    """The log that each test spoils a copy of."""
    with module_cluster() as cluster:
        ledger = Ledger()
        for number in range(SEALED_SEGMENTS):
            log_some(cluster, ledger, f"sealed{number}")
            cluster.rotate()
        cluster.wait_until_sealed()
        attempt = 0
        # It is sealed within a second; the service must be stopped before.
        while len(list(cluster.log.glob("segments/*.log"))) < 2:
            if not cluster.ingest.running:
                cluster.ingest.start()
            log_some(cluster, ledger, f"rotated{attempt}")
            cluster.rotate()
            log_some(cluster, ledger, f"active{attempt}")
            assert cluster.ingest.terminate() == 0
            attempt += 1
        events = {event.position: event.SerializeToString(deterministic=True) for event in read_all_stopped(cluster)}
    return Original(cluster.log, events, {sent.name: sent.position for sent in ledger.acknowledged})


def log_some(cluster, ledger, name):
    """Log some requests, one after the other, so that each is a frame."""
    for number in range(REQUESTS_PER_SEGMENT):
        sent = ledger.open(f"{name}-{number}", EVENTS_PER_REQUEST)
        ledger.acknowledge(sent, cluster.appends.LogBatch(sent.batch(), timeout=CALL_S_MAX))


def read_all_stopped(cluster):
    """The whole log, while only query runs."""
    return read_all(cluster)


def serialised(events):
    return {event.position: event.SerializeToString(deterministic=True) for event in events}


def flip(path, offset, chance):
    """Flip one bit of a byte."""
    data = bytearray(path.read_bytes())
    data[offset] ^= 1 << chance.randrange(8)
    path.write_bytes(data)


def check_damage(cluster, original, lost):
    """Everything but the positions in `lost` is there as it was; those are reported as lost by everyone asked."""
    events, damaged = read_around_damage(cluster)
    found = serialised(events)
    told = {position for first, last in damaged for position in range(first, last + 1)}
    assert told == lost, f"told of {len(told)} positions, {len(lost)} are lost"
    assert found == {position: event for position, event in original.events.items() if position not in lost}
    for position in sorted({*list(lost)[:2], *list(lost)[-2:]}):
        error = failure_of(lambda at=position: get_event(cluster, at))
        assert error is not None, f"a damaged event was returned for {position}"
        assert (error.reason, error.code) == ("LOG_CORRUPTED", grpc.StatusCode.DATA_LOSS)
        assert int(error.metadata["first_position"]) <= position <= int(error.metadata["last_position"])
    for position in {1, original.last // 2, original.last, *(first - 1 for first, _ in damaged)} - lost - {0}:
        assert get_event(cluster, position).SerializeToString(deterministic=True) == original.events[position]


def check_reports(cluster, lost, *, file=None):
    """VerifyLog, GetLogStatus and the metric say what is lost; VerifyLog names the file, also where nothing is."""
    summary = cluster.verify()
    reported = positions_of(summary.damage)
    assert reported == lost
    if file is not None:
        assert file in {damage.file for damage in summary.damage}, f"VerifyLog says nothing of {file}"
    if lost:
        assert positions_of(cluster.status().damage) == lost
        assert metrics(cluster.ingest)["eventlog_ingest_damaged_positions"] == len(lost)


def positions_of(damage):
    return {position for each in damage for position in range(each.first_position, each.last_position + 1)}


def check_goes_on(cluster, original, *, forgotten=False):
    """New events come after all old positions, damaged ones too; repeated requests are known, unless forgotten."""
    new = Sent("after the damage", 3)
    answer = cluster.appends.LogBatch(new.batch(), timeout=CALL_S_MAX)
    assert answer.first_position == original.last + 1
    assert [get_event(cluster, original.last + 1 + row).payload_json for row in range(3)] == [
        new.payload(row) for row in range(3)
    ]
    if not forgotten:
        for name in ("sealed0-0", f"sealed{SEALED_SEGMENTS - 1}-{REQUESTS_PER_SEGMENT - 1}"):
            again = Sent(name, EVENTS_PER_REQUEST)
            answer = cluster.appends.LogBatch(again.batch(), timeout=CALL_S_MAX)
            assert (answer.duplicate, answer.first_position) == (True, original.requests[name])


def lost_frame(original, log, offset):
    """Positions of the frame that holds an offset of a .log file; none for the file's header."""
    for frame in original.frames(log):
        if frame.offset <= offset < frame.end:
            positions = frame.header.positions
            return set(range(positions.first, positions.last + 1))
    assert offset < SEGMENT_HEADER_BYTES
    return set()


@pytest.mark.parametrize("place", ["header", "anywhere", "last frame"])
def test_flipped_bit_in_log_files_loses_one_frame_each(make_cluster, tmp_path, original, place):
    """The frame with the flipped bit is reported and kept in quarantine, also when sealed; all others are there."""
    chance = random.Random(place)
    copy = original.copy(tmp_path)
    lost = set()
    for log in original.logs():
        frames = original.frames(log)
        start, end = {
            "header": (0, SEGMENT_HEADER_BYTES),
            "anywhere": (frames[0].offset, frames[-1].offset),
            "last frame": (frames[-1].offset, frames[-1].end),
        }[place]
        offset = chance.randrange(start, end)
        flip(copy / "segments" / log.name, offset, chance)
        lost |= lost_frame(original, log, offset)
    with make_cluster(log=copy) as cluster:
        assert metrics(cluster.ingest)["eventlog_ingest_damaged_positions"] == len(lost)
        assert metrics(cluster.ingest)["eventlog_ingest_recovered_torn_bytes"] == 0
        check_damage(cluster, original, lost)
        check_reports(cluster, lost)
        check_goes_on(cluster, original)
        cluster.rotate()
        cluster.wait_until_sealed()
        check_reports(cluster, lost)
        assert (list((copy / "quarantine").iterdir()) != []) == bool(lost)
        cluster.ingest.kill()
        cluster.ingest.start()
        events, damaged = read_around_damage(cluster)
        assert positions_in(damaged) == lost
        assert len(events) == original.last + 3 - len(lost)


def positions_in(ranges):
    return {position for first, last in ranges for position in range(first, last + 1)}


@pytest.mark.parametrize(
    ("pattern", "place"),
    [
        ("segments/*.default.parquet", 0.3),
        ("segments/*.audit.parquet", 0.999),
        ("segments/*.error.idx", 0.5),
        ("segments/*.default.par", 0.5),
        ("segments/*.default.par", 0.0),
    ],
)
def test_flipped_bit_in_sealed_files_loses_nothing(make_cluster, tmp_path, original, pattern, place):
    """A sealed file is repaired, a companion made anew: every event is there, VerifyLog says what was wrong, once."""
    chance = random.Random(pattern)
    copy = original.copy(tmp_path)
    spoiled = chance.choice(sorted(copy.glob(pattern)))
    before = spoiled.read_bytes()
    flip(spoiled, int(len(before) * place), chance)
    with make_cluster(log=copy) as cluster:
        check_damage(cluster, original, set())
        if spoiled.suffix == ".idx":
            # Housekeeping makes it anew, unless VerifyLog comes first.
            wait_until(lambda: spoiled.read_bytes() == before, "the sidecar is made anew")
        else:
            check_reports(cluster, set(), file=f"segments/{spoiled.name}")
            assert f"segments/{spoiled.name}" in {damage.file for damage in cluster.status().damage}
        assert spoiled.read_bytes() == before
        assert list(cluster.verify().damage) == []
        check_goes_on(cluster, original)


@pytest.mark.parametrize("place", ["count", "newest", "body"])
def test_flipped_bit_in_request_file_is_reported_and_loses_no_event(make_cluster, tmp_path, original, place):
    """Damaged request ids are reported and kept; only repeated requests of that segment would be logged again."""
    copy = original.copy(tmp_path)
    spoiled = min(copy.glob("segments/*.requests"))
    data = bytearray(spoiled.read_bytes())
    # The count of rows, and when the newest was recorded: without this bit, long ago.
    data[{"count": 6, "newest": 15, "body": len(data) - 3}[place]] ^= 0x10
    spoiled.write_bytes(data)
    with make_cluster(log=copy) as cluster:
        check_damage(cluster, original, set())
        name = f"segments/{spoiled.name}"
        assert [r["file"] for r in cluster.ingest.records() if r["level"] == "error"] == [name]
        check_reports(cluster, set(), file=name)
        assert name in {damage.file for damage in cluster.status().damage}
        check_goes_on(cluster, original, forgotten=True)
        cluster.wait_until_sealed()
        sealed = len(cluster.segments()) - 1
        wait_until(
            lambda: metrics(cluster.ingest)["eventlog_ingest_segments{state=sealed}"] == sealed, "housekeeping is done"
        )
        assert spoiled.exists(), "a damaged file is kept until somebody has looked at it"


@pytest.mark.parametrize(("name", "start", "end"), [("committed", 0, 40), ("committed", 64, 104), ("identity", 0, 20)])
def test_flipped_bit_in_small_files_changes_nothing(make_cluster, tmp_path, original, name, start, end):
    """Either copy of the committed position, and the log's identity: nothing is lost, nor is any id another one."""
    chance = random.Random(start)
    copy = original.copy(tmp_path)
    flip(copy / name, chance.randrange(start, end), chance)
    with make_cluster(log=copy) as cluster:
        check_damage(cluster, original, set())
        check_reports(cluster, set())
        check_goes_on(cluster, original)


def test_many_flipped_bits_at_once_lose_one_frame_each(make_cluster, tmp_path, original):
    """A bit flipped in every file of the directory: as bad as each by itself, and no worse."""
    for seed in range(2):
        chance = random.Random(seed)
        to = tmp_path / str(seed)
        copy = original.copy(to)
        lost = set()
        for path in sorted(path for path in copy.rglob("*") if path.is_file() and path.suffix != ".par"):
            # A sealed file and its repair data need each other: one of the two.
            spoiled = path.with_suffix(".par") if path.suffix == ".parquet" and chance.random() < 0.5 else path
            end = spoiled.stat().st_size
            if spoiled.suffix == ".log":
                # Not the last frame: with a spoiled committed position it looks like a torn tail.
                end = original.frames(spoiled)[-1].offset
            offset = chance.randrange(end)
            if spoiled.suffix == ".log":
                lost |= lost_frame(original, spoiled, offset)
            flip(spoiled, offset, chance)
        with make_cluster(f"cluster{seed}", log=copy) as cluster:
            check_damage(cluster, original, lost)
            named = {damage.file for damage in cluster.verify().damage}
            assert named <= {damage.file for damage in cluster.status().damage}


def test_damage_beyond_repair_is_told_for_exactly_its_events(make_cluster, tmp_path, original):
    """Where repair data cannot help, the events of that file are reported lost, those beside them are not."""
    copy = original.copy(tmp_path)
    spoiled = sorted(copy.glob("segments/*.error.parquet"))[1]
    first, last = (int(end) for end in spoiled.name.split(".")[0].split("-"))
    (copy / "segments" / f"{spoiled.stem}.par").unlink()
    flip(spoiled, spoiled.stat().st_size // 2, random.Random(1))
    with make_cluster(log=copy) as cluster:
        events, damaged = read_around_damage(cluster)
        lost = positions_in(damaged)
        found = serialised(events)
        assert found == {position: event for position, event in original.events.items() if position not in lost}
        assert lost
        assert lost <= set(range(first, last + 1))
        for position in lost:
            assert b"error.load" in original.events[position]
        summary = cluster.verify()
        assert f"segments/{spoiled.name}" in {damage.file for damage in summary.damage}
        assert lost <= positions_of(summary.damage)
        assert lost <= positions_of(cluster.status().damage)
        check_goes_on(cluster, original)
        # Restored from a backup, it is readable again, by the same services.
        shutil.copy(original.path / "segments" / spoiled.name, spoiled)
        assert serialised(read_all(cluster)).items() >= original.events.items()


def test_missing_file_of_a_retention_class_is_reported(make_cluster, tmp_path, original):
    """A sealed file that nobody had reason to remove is damage: VerifyLog names it, and no reader passes it over."""
    copy = original.copy(tmp_path)
    missing = sorted(copy.glob("segments/*.audit.parquet"))[1]
    first, last = (int(end) for end in missing.name.split(".")[0].split("-"))
    missing.unlink()
    held = {at for at in range(first, last + 1) if b"audit." in original.events[at]}
    assert held
    with make_cluster(log=copy) as cluster:
        check_damage(cluster, original, held)
        check_reports(cluster, held, file=f"segments/{missing.name}")
        shutil.copy(original.path / "segments" / missing.name, missing)
        assert list(cluster.verify().damage) == []
        check_damage(cluster, original, set())


def test_deleted_derived_files_change_no_answer(make_cluster, tmp_path, original):
    """Without sidecars, repair data and the committed position, while stopped or running: the same answers."""
    copy = original.copy(tmp_path)
    (copy / "committed").unlink()
    delete(copy, "*.idx", "*.par")
    with make_cluster(log=copy) as cluster:
        check_damage(cluster, original, set())
        rebuilt = cluster.admin.RebuildIndex(log_admin_service_pb2.RebuildIndexRequest(), timeout=CALL_S_MAX)
        assert rebuilt.rebuilt_sidecars == len(list(copy.glob("segments/*.parquet")))
        delete(copy, "*.idx", "*.par")
        check_damage(cluster, original, set())
        log_some(cluster, Ledger(), "more")
        cluster.wait_until_sealed()
        cluster.verify()
        assert list(cluster.verify().damage) == []
        for path in original.path.glob("segments/*.par"):
            assert (copy / "segments" / path.name).read_bytes() == path.read_bytes(), "VerifyLog makes it anew"
        (copy / "identity").unlink()
        cluster.ingest.kill()
        cluster.ingest.start()
        assert serialised(read_all(cluster)).items() >= original.events.items()
        assert cluster.status().committed_position == original.last + REQUESTS_PER_SEGMENT * EVENTS_PER_REQUEST


def remove_committed(path):
    path.unlink()


def empty_committed(path):
    path.write_bytes(b"")


def overwrite_committed(path):
    with path.open("r+b") as file:
        file.write(bytes(file.seek(0, 2)))


@pytest.mark.parametrize("spoil", [remove_committed, empty_committed, overwrite_committed])
@pytest.mark.parametrize("known", [True, False])
def test_committed_position_spoiled_while_running_changes_no_answer(make_cluster, tmp_path, original, spoil, known):
    """A reader that knew it answers at once, one that is new soon; what is appended meanwhile is read, too."""
    copy = original.copy(tmp_path)
    with make_cluster(log=copy) as cluster:
        if known:
            check_damage(cluster, original, set())
        spoil(copy / "committed")
        assert failure_of(lambda: get_event(cluster, 1)) is None
        assert cluster.status().committed_position == original.last
        check_goes_on(cluster, original)
        assert cluster.ingest.running


def delete(directory, *patterns):
    for pattern in patterns:
        for path in directory.glob(f"segments/{pattern}"):
            path.unlink()


@pytest.mark.parametrize("cut", ["a byte", "half", "all but a byte"])
def test_torn_last_frame_is_cut_and_told(make_cluster, tmp_path, original, cut):
    """As after a loss of power: the last frame is cut and nobody was promised it. What is cut is said and kept."""
    copy = original.copy(tmp_path)
    (copy / "committed").unlink()
    log = original.logs()[1]
    frame = original.frames(log)[-1]
    length = {"a byte": frame.end - 1, "half": (frame.offset + frame.end) // 2, "all but a byte": frame.offset + 1}[cut]
    with (copy / "segments" / log.name).open("r+b") as file:
        file.truncate(length)
    torn = log.read_bytes()[frame.offset : length]
    first = frame.header.first_position
    with make_cluster(log=copy) as cluster:
        assert metrics(cluster.ingest)["eventlog_ingest_recovered_torn_bytes"] == len(torn)
        [record] = [each for each in cluster.ingest.records() if each["level"] == "warning"]
        assert record["torn_bytes"] == len(torn)
        assert [(copy / name).read_bytes() for name in record["files"]] == [torn]
        events = read_all(cluster)
        assert serialised(events) == {at: event for at, event in original.events.items() if at < first}
        assert list(cluster.verify().damage) == []
        answer = cluster.appends.Log(
            ingest_service_pb2.LogRequest(event=Sent("next", 1).events()[0]), timeout=CALL_S_MAX
        )
        assert answer.position == first


def test_cut_committed_frame_is_damage_not_a_torn_tail(make_cluster, tmp_path, original):
    """Where the committed position says that the frame was promised, the log does not become shorter."""
    copy = original.copy(tmp_path)
    log = original.logs()[1]
    frame = original.frames(log)[-1]
    with (copy / "segments" / log.name).open("r+b") as file:
        file.truncate(frame.end - 1)
    positions = frame.header.positions
    lost = set(range(positions.first, positions.last + 1))
    with make_cluster(log=copy) as cluster:
        assert [each for each in cluster.ingest.records() if each["level"] == "error"]
        check_damage(cluster, original, lost)
        check_reports(cluster, lost)
        check_goes_on(cluster, original)


def test_unfinished_frame_after_the_last_one_is_cut(make_cluster, tmp_path, original):
    """A frame that a kill interrupted disappears, whatever lies behind it; everything acknowledged stays."""
    copy = original.copy(tmp_path)
    rotated, log = original.logs()
    behind = rotated.read_bytes()[SEGMENT_HEADER_BYTES:][:300] + b"\0" * 5000
    with (copy / "segments" / log.name).open("ab") as file:
        file.write(behind)
    with make_cluster(log=copy) as cluster:
        assert metrics(cluster.ingest)["eventlog_ingest_recovered_torn_bytes"] == len(behind)
        assert cluster.status().committed_position == original.last
        check_damage(cluster, original, set())
        check_goes_on(cluster, original)
