"""The demo: real or simulated events through the whole cluster and back, compared exactly."""
