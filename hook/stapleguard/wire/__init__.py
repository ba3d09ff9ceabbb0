"""Effects on the network: one handshake, one OCSP or DNS exchange, one trust path; no retries, no judging."""
