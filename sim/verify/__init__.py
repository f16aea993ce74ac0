"""What shows how far a generated device can be trusted."""
