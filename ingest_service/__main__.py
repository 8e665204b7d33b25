"""python -m ingest_service --config FILE."""

import sys

from ingest_service.composition import run
from shared.rpc.service_main import service_main

if __name__ == "__main__":
    sys.exit(service_main(run, service="ingest_service"))
