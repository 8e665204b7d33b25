"""AnalysisService, translated between the protos and the domain. Holds no rules of its own."""


class AnalysisServicer:
    """Serves eventlog.v1.AnalysisService.

    No RPC is built yet. `shared.rpc.service` answers each that has no method here with UNIMPLEMENTED and the
    reason NOT_IMPLEMENTED; building one is adding a method of its name in snake_case.
    """
