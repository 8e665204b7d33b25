"""Runs the stream service: python -m stream_service --config FILE."""

import sys

from shared.rpc.service_main import service_main
from stream_service.composition import run

if __name__ == "__main__":
    sys.exit(service_main(run, service="stream_service"))
