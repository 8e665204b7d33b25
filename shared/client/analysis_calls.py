"""The calls of EventAnalyzer: one connection, made when it is first used; what fails for now is asked again."""

import asyncio
from collections.abc import AsyncGenerator
from functools import cached_property
from typing import Any

import grpc
from eventlog.v1 import analysis_service_pb2 as pb
from eventlog.v1.analysis_service_pb2_grpc import AnalysisServiceStub

from shared.client.analysis_answers import OnAnalysisProgress
from shared.client.analysis_messages import progress_of
from shared.client.analyzer_options import AnalyzerOptions
from shared.client.attempts import Attempts
from shared.client.options import reachable_address
from shared.clock import Clock
from shared.errors import EventAnalysisException
from shared.rpc.channel import connect
from shared.rpc.remote_error import from_rpc_error


class AnalysisCalls:
    """Belongs to the event loop in which it is first used. listen: where the service is, unless the options say."""

    def __init__(self, options: AnalyzerOptions, clock: Clock, listen: str) -> None:
        self._options = options
        self._clock = clock
        self._address = reachable_address(options.address or listen)
        self._channel: grpc.aio.Channel | None = None

    async def run(self, kind: str, request: Any, on_progress: OnAnalysisProgress | None) -> Any:
        """The answer of an analysis. kind: its name in RunAnalysis. A call that fails for now begins anew."""
        attempts = self._attempts()
        while True:
            try:
                return await self._answer(pb.RunAnalysisRequest(**{kind: request}), on_progress)
            except grpc.RpcError as failure:
                await asyncio.sleep(attempts.failed(from_rpc_error(failure)))

    async def watch(self, request: pb.WatchAnomaliesRequest) -> AsyncGenerator[pb.WatchAnomaliesResponse, None]:
        """The messages of WatchAnomalies, until it is closed."""
        call = self._stub.WatchAnomalies(request)
        try:
            async for message in call:
                yield message
        except grpc.RpcError as failure:
            raise from_rpc_error(failure) from failure
        finally:
            call.cancel()

    async def list_analyses(self) -> list[pb.AnalysisDescription]:
        """The analyses that the service knows by name."""
        attempts = self._attempts()
        while True:
            try:
                answer = await self._stub.ListAnalyses(pb.ListAnalysesRequest(), timeout=self._options.call_timeout_s)
                return list(answer.analyses)
            except grpc.RpcError as failure:
                await asyncio.sleep(attempts.failed(from_rpc_error(failure)))

    async def close(self) -> None:
        """Close the connection; calls under way end."""
        if self._channel is not None:
            await self._channel.close()

    @cached_property
    def _stub(self) -> Any:
        # Made in the event loop, which a channel belongs to.
        self._channel = connect(self._address)
        return AnalysisServiceStub(self._channel)

    def _attempts(self) -> Attempts:
        return Attempts(self._options.back_off, self._clock, give_up_after_s=self._options.give_up_after_s)

    async def _answer(self, request: pb.RunAnalysisRequest, on_progress: OnAnalysisProgress | None) -> Any:
        call = self._stub.RunAnalysis(request, timeout=self._options.call_timeout_s)
        try:
            async for message in call:
                if answered := message.WhichOneof("answer"):
                    return getattr(message, answered)
                if on_progress is not None:
                    on_progress(progress_of(message.progress))
        finally:
            call.cancel()
        raise EventAnalysisException(
            "the analysis ended without an answer: is there a proxy between that cuts streams?"
        )
