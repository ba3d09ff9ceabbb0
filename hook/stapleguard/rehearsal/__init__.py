"""The fire drill: a private CA, responder, resolver and web server, and the acts played on them."""
