"""StreamService as a whole: each RPC is served by the part that has a method of its name."""

from eventlog.v1 import stream_service_pb2

from shared.rpc.service import snake_case


class StreamServicer:
    """Serves eventlog.v1.StreamService with the methods of its parts."""

    def __init__(self, *parts: object) -> None:
        service = stream_service_pb2.DESCRIPTOR.services_by_name["StreamService"]
        for name in (snake_case(method.name) for method in service.methods):
            for part in parts:
                if (method := getattr(part, name, None)) is not None:
                    setattr(self, name, method)
