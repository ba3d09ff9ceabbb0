"""The files of one certificate: read, put in order, judged fit or unfit, written out again.

Everything works on bytes and values; `now` is an argument. Text that stands in a certificate is
somebody else's and passes `escape` before it enters a message. What is wrong with the files comes
back as findings, the first being the first thing to mend.
"""

from stapleguard.material.certificate import (
    REFUSALS,
    NameMatch,
    common_names,
    issued,
    leaf_facts,
    leaf_in,
    matches_name,
    quiet,
)
from stapleguard.material.files import Material, assemble, missing_issuer, read, with_chain
from stapleguard.material.fitness import TrustPath, gate

__all__ = [
    "REFUSALS",
    "Material",
    "NameMatch",
    "TrustPath",
    "assemble",
    "common_names",
    "gate",
    "issued",
    "leaf_facts",
    "leaf_in",
    "matches_name",
    "missing_issuer",
    "quiet",
    "read",
    "with_chain",
]
