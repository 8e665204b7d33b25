"""The log on disk. Knows neither the wire (grpc, protobuf) nor the event loop (asyncio)."""
