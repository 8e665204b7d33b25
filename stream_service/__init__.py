"""The stream service: live streams, durable subscriptions and replay."""
