"""Serving and calling gRPC: server, status details, interceptors."""
