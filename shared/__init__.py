"""What all services and clients share."""
