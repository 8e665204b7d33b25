"""Prediction of the next event on real processes, and on made-up ones whose answer is plain."""

from pathlib import Path

import pytest

from analysis_service.patterns.cases import group_into_cases
from analysis_service.prediction import NextEventModel
from tests.support.event_columns import columns_of, real_columns

_SECOND = 1_000_000_000


@pytest.mark.parametrize(("name", "least"), [("helpdesk", 0.741), ("receipt", 0.891)])
def test_next_event_of_real_processes_is_predicted(data_dir: Path, name, least):
    """Learnt from the first 70 % of the cases by start, asked after every event of the others, their end included."""
    events = real_columns(data_dir / f"process_mining/{name}.jsonl.gz")
    cases = group_into_cases(events, "correlation_id")
    learnt = int(len(cases) * 0.7)
    model = NextEventModel(group_into_cases(events.take(cases.rows[: cases.borders[learnt]]), "correlation_id"))
    right = asked = 0
    for case in range(learnt, len(cases)):
        types = cases.texts(tuple(cases.codes[cases.borders[case] : cases.borders[case + 1]].tolist()))
        for place in range(1, len(types) + 1):
            answer = model.predict(types[:place])
            right += answer.next_types[0][0] == (types[place] if place < len(types) else None)
            asked += 1
    assert right / asked >= least


def _model() -> NextEventModel:
    rows = []
    for case in range(20):
        steps = ["start", "work", "work", "done"] if case % 4 else ["start", "fail"]
        rows += [
            {"type": step, "correlation_id": f"c{case}", "timestamp": (case * 1000 + number * 10) * _SECOND}
            for number, step in enumerate(steps)
        ]
    return NextEventModel(group_into_cases(columns_of(rows), "correlation_id"))


def test_probabilities_likely_end_and_remaining_time():
    """Three of four cases work twice and are done 30 seconds after their start, the others fail after ten."""
    answer = _model().predict(["start"])
    assert answer.next_types == (("work", 0.75), ("fail", 0.25))
    assert answer.likely_end == "done"
    assert answer.remaining_s == (30.0, 10.0, 30.0)
    assert answer.seen == 20
    middle = _model().predict(["start", "work", "work"])
    assert middle.next_types == (("done", 1.0),)
    assert middle.remaining_s is not None
    assert middle.remaining_s[0] == 10.0


def test_case_that_is_over_is_predicted_to_end():
    """After its last event the likeliest is that nothing comes."""
    answer = _model().predict(["start", "fail"])
    assert answer.next_types == ((None, 1.0),)
    assert answer.likely_end == "fail"
    assert answer.remaining_s == (0.0, 0.0, 0.0)


def test_unknown_type_falls_back_to_what_is_common():
    """Nothing is known of it but what follows in general; probabilities still sum to 1."""
    answer = _model().predict(["never seen"])
    assert answer.order == 0
    assert sum(probability for _, probability in answer.next_types) == pytest.approx(1)
    assert answer.remaining_s is None
