"""The questions of the query benchmark: each is one that the filter language and ClickHouse's SQL can be asked."""

import pytest
from eventlog.v1 import event_pb2, query_service_pb2

from shared.filters.parser import parse_filter
from tests.benchmarks import query_questions
from tests.benchmarks.query_questions import Question

EVENTS = [event_pb2.Event(id="evt_1", position=7, correlation_id="pipe_1")]


@pytest.mark.parametrize(
    "questions",
    [
        query_questions.by_correlation_id(EVENTS),
        query_questions.by_type_hour_and_payload(40),
        query_questions.newest(2),
        query_questions.count_promoted(3),
        query_questions.count_compound(5),
    ],
)
def test_questions_are_filters(questions: list[Question]):
    """Each expression parses, and each statement asks for the events or their number."""
    for question in questions:
        parse_filter(question.request.selection.filters.expression)
        counts = isinstance(question.request, query_service_pb2.CountEventsRequest)
        assert question.statement.startswith("SELECT count()" if counts else "SELECT position, ")


def test_events_are_asked_for_by_id_and_by_position():
    """ClickHouse has no ids: its order is that of the positions."""
    (question,) = query_questions.by_id(EVENTS)
    assert question.request == query_service_pb2.GetEventRequest(id="evt_1")
    assert question.statement.endswith("position = 7")


@pytest.mark.parametrize("ask", [query_questions.count_promoted, query_questions.count_compound])
def test_questions_differ_from_each_other(ask):
    """The same question again might be answered from a cache."""
    assert len({question.statement for question in ask(30)}) == 30
