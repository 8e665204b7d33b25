"""Between what a program asks and the messages of the query service. No I/O."""

from eventlog.v1 import event_pb2, query_service_pb2

from shared.client.event_messages import event_of, filters_message
from shared.client.query_answers import EventPage, FilterExplanation, SegmentDecision
from shared.client.query_options import EventOrder, Filters, Selection
from shared.events.model import EventFilters

_ORDERS = {
    EventOrder.POSITION_ASCENDING: query_service_pb2.EVENT_ORDER_POSITION_ASCENDING,
    EventOrder.POSITION_DESCENDING: query_service_pb2.EVENT_ORDER_POSITION_DESCENDING,
    EventOrder.TIMESTAMP_ASCENDING: query_service_pb2.EVENT_ORDER_TIMESTAMP_ASCENDING,
    EventOrder.TIMESTAMP_DESCENDING: query_service_pb2.EVENT_ORDER_TIMESTAMP_DESCENDING,
}


def query_request(filters: Filters, order: EventOrder, selection: Selection) -> query_service_pb2.QueryRequest:
    """A request of Query, without a limit."""
    return query_service_pb2.QueryRequest(selection=_selection(filters, selection), order=_ORDERS[order])


def page_request(
    filters: Filters, page_size: int, page_token: str, order: EventOrder, selection: Selection
) -> query_service_pb2.ListEventsRequest:
    """A request of ListEvents."""
    return query_service_pb2.ListEventsRequest(
        selection=_selection(filters, selection), page_size=page_size, page_token=page_token, order=_ORDERS[order]
    )


def get_request(event: str | int) -> query_service_pb2.GetEventRequest:
    """A request of GetEvent, by id or position."""
    if isinstance(event, str):
        return query_service_pb2.GetEventRequest(id=event)
    return query_service_pb2.GetEventRequest(position=event)


def count_request(filters: Filters, selection: Selection) -> query_service_pb2.CountEventsRequest:
    """A request of CountEvents."""
    return query_service_pb2.CountEventsRequest(selection=_selection(filters, selection))


def explain_request(filters: Filters) -> query_service_pb2.ExplainFilterRequest:
    """A request of ExplainFilter."""
    return query_service_pb2.ExplainFilterRequest(filters=any_filters_message(filters))


def export_request(
    filters: Filters, export_format: str, selection: Selection, *, zstd: bool
) -> query_service_pb2.ExportRequest:
    """A request of Export."""
    return query_service_pb2.ExportRequest(selection=_selection(filters, selection), format=export_format, zstd=zstd)


def page_of(response: query_service_pb2.ListEventsResponse) -> EventPage:
    """The page of an answer."""
    return EventPage(
        events=[event_of(event) for event in response.events],
        next_page_token=response.next_page_token,
        snapshot_position=response.snapshot_position,
    )


def explanation_of(response: query_service_pb2.ExplainFilterResponse) -> FilterExplanation:
    """The explanation of an answer."""
    return FilterExplanation(
        expression=response.normalized_expression,
        tree=response.tree,
        sql=response.sql,
        segments=[
            SegmentDecision(
                first_position=each.first_position, last_position=each.last_position, read=each.read, why=each.why
            )
            for each in response.segments
        ],
    )


def any_filters_message(filters: Filters) -> event_pb2.EventFilters:
    """The message of a filter, however it is given."""
    if isinstance(filters, EventFilters):
        return filters_message(filters)
    return event_pb2.EventFilters(expression=filters or "")


def _selection(filters: Filters, selection: Selection) -> query_service_pb2.EventSelection:
    return query_service_pb2.EventSelection(filters=any_filters_message(filters), **selection)
