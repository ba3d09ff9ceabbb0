"""ACME clients: each turns its environment or arguments into a `Renewal`."""
