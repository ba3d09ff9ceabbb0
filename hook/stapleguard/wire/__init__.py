"""Effects on the network: one TLS handshake, one OCSP or DNS exchange, one trust path. Never retries, never judges."""
