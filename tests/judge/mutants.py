"""Seeded mistakes: each is put into a copy of the repository, one at a time, and the suite must catch it.

`make mutants` runs all; `make mutants ARGS=nextUpdate` those whose name has the word. A mistake whose
place is gone from the code is an error too: it must be written anew, or it guards nothing.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Final

REPOSITORY: Final = Path(__file__).resolve().parents[2]
SUITE: Final = ("tests/judge/test_vectors.py", "tests/unit/test_ocsp_judge.py")


@dataclass(frozen=True, slots=True)
class Mistake:
    """Text of one file of the judge, and what a tired programmer would have written there."""

    name: str
    file: str
    right: str
    wrong: str


def judge(name: str, right: str, wrong: str) -> Mistake:
    return Mistake(name, "__init__.py", right, wrong)


def signer(name: str, right: str, wrong: str) -> Mistake:
    return Mistake(name, "signer.py", right, wrong)


def answer(name: str, right: str, wrong: str) -> Mistake:
    return Mistake(name, "answer.py", right, wrong)


MISTAKES: Final = (
    # form
    answer("size unlimited", "len(der) > MAX_RESPONSE", "len(der) > MAX_RESPONSE * 1000"),
    answer(
        "tryLater accepted",
        "if response.response_status is ocsp.OCSPResponseStatus.SUCCESSFUL:",
        "if response.response_status in (\n"
        "        ocsp.OCSPResponseStatus.SUCCESSFUL,\n"
        "        ocsp.OCSPResponseStatus.TRY_LATER,\n"
        "    ):",
    ),
    answer(
        "unauthorized taken for internalError",
        'SIG_REQUIRED: (Code.OCSP_SIG_REQUIRED, "sigRequired (5)")',
        'SIG_REQUIRED: (Code.OCSP_UNAUTHORIZED, "sigRequired (5)")',
    ),
    answer("unused bits read over", "body.unused_bits > 0", "body.unused_bits > 7"),
    answer("KeyHash of any length", "if len(key_hash) != SHA1.digest_size:", "if len(key_hash) > 64:"),
    answer("empty extensions read over", "    if not extensions:\n", "    if extensions is None:\n"),
    answer("extensions twice read over", "!= len(read)", "> len(read)"),
    answer("names not looked at", "        check_names(certificate)\n", "        certificate.version\n"),
    # the CertID
    judge(
        "key hash unchecked",
        "if entry.algorithm and entry.cert_id == cert_id(leaf, issuer, entry.algorithm.name)",
        "if entry.algorithm and entry.cert_id[::2] == cert_id(leaf, issuer, entry.algorithm.name)[::2]",
    ),
    judge(
        "name hash unchecked",
        "if entry.algorithm and entry.cert_id == cert_id(leaf, issuer, entry.algorithm.name)",
        "if entry.algorithm and entry.cert_id[1:] == cert_id(leaf, issuer, entry.algorithm.name)[1:]",
    ),
    judge(
        "serial number alone compared",
        "if entry.algorithm and entry.cert_id == cert_id(leaf, issuer, entry.algorithm.name)",
        "if entry.cert_id[2] == leaf.serial_number",
    ),
    judge(
        "serial number without its sign",
        "if entry.algorithm and entry.cert_id == cert_id(leaf, issuer, entry.algorithm.name)",
        "if entry.algorithm and (*entry.cert_id[:2], abs(entry.cert_id[2])) "
        "== cert_id(leaf, issuer, entry.algorithm.name)",
    ),
    judge(
        "serial number by its beginning",
        "if entry.algorithm and entry.cert_id == cert_id(leaf, issuer, entry.algorithm.name)",
        "if entry.algorithm and entry.cert_id[:2] == cert_id(leaf, issuer, entry.algorithm.name)[:2]"
        ' and f"{leaf.serial_number:x}".startswith(f"{entry.cert_id[2]:x}")',
    ),
    judge(
        "hash algorithm ignored",
        "entry.cert_id == cert_id(leaf, issuer, entry.algorithm.name)",
        "entry.cert_id in [cert_id(leaf, issuer, name) for name in ('sha1', 'sha256', 'sha384', 'sha512')]",
    ),
    judge("leaf that is not issued accepted", "if not issued_by(leaf, issuer):", "if leaf == issuer:"),
    judge(
        "first SingleResponse taken", "verdict.entry = max(entries, key=_worse)", "verdict.entry = entries[0]"
    ),
    judge(
        "last SingleResponse taken", "verdict.entry = max(entries, key=_worse)", "verdict.entry = entries[-1]"
    ),
    judge(
        "best SingleResponse taken",
        "verdict.entry = max(entries, key=_worse)",
        "verdict.entry = min(entries, key=_worse)",
    ),
    judge(
        "status of the first in the list",
        "    if matching:\n        return matching",
        "    if matching:\n        return answer.entries[:1]",
    ),
    # who signed
    judge(
        "signature unchecked",
        "proved = [certificate for certificate in candidates if verifies(answer, certificate)]",
        "proved = list(candidates)",
    ),
    signer("bad signature forgiven", "if candidates and not proved:", "if not candidates and proved:"),
    signer(
        "responderID ignored",
        "if _is_named(answer.responder_id, one))",
        "if _is_named(answer.responder_id, one) or True)",
    ),
    signer(
        "responder's key hash ignored",
        "return responder_id.key_hash == hashlib.sha1(encoded.key, usedforsecurity=False).digest()",
        "return True",
    ),
    signer(
        "responder's name as its beginning",
        "if responder_id.name == encoded.subject:",
        "if responder_id.name is not None:",
    ),
    signer("hundreds of keys tried", "_MAX_MEANT: Final = 16", "_MAX_MEANT: Final = 1600"),
    signer("delegate of anybody accepted", "if not issued_by(signer, issuer):", "if signer == issuer:"),
    signer(
        "delegate by the issuer's name alone",
        "return _proves(issuer, scheme, certificate.signature, certificate.tbs_certificate_bytes)",
        "return True",
    ),
    signer(
        "delegate by the issuer's key alone",
        "encoded.issuer != encoded_fields(issuer).subject",
        "not encoded.issuer",
    ),
    signer(
        "inner algorithm of a certificate unchecked",
        "encoded.inner_algorithm != encoded.outer_algorithm",
        "not encoded.inner_algorithm",
    ),
    signer(
        "delegate of any version",
        "if certificate.version is not x509.Version.v3:",
        "if certificate is None:",
    ),
    signer("EKU unchecked", "if ExtendedKeyUsageOID.OCSP_SIGNING not in named:", "if named is None:"),
    signer(
        "anyExtendedKeyUsage suffices",
        "if ExtendedKeyUsageOID.OCSP_SIGNING not in named:",
        "if ExtendedKeyUsageOID.OCSP_SIGNING not in named "
        "and ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE not in named:",
    ),
    signer("delegate's dates unchecked", "if not starts <= now <= ends:", "if starts > ends:"),
    signer("delegate's end unchecked", "if not starts <= now <= ends:", "if not starts <= now:"),
    signer(
        "producedAt outside the delegate's life",
        "if not starts <= answer.produced_at <= ends:",
        "if starts > ends:",
    ),
    signer("issuer's end unchecked", "elif answer.produced_at > ends:", "elif starts > ends:"),
    signer("delegate may be a CA", "and constraints.value.ca:", "and constraints.value.ca is None:"),
    signer(
        "keyUsage unchecked",
        "and not (usage.value.digital_signature or usage.value.content_commitment)",
        "and usage.value is None",
    ),
    signer(
        "keyUsage without nonRepudiation",
        "and not (usage.value.digital_signature or usage.value.content_commitment)",
        "and not usage.value.digital_signature",
    ),
    signer(
        "critical extension of a delegate ignored",
        "if extension.critical and extension.oid not in _DELEGATE_EXTENSIONS:",
        "if extension.critical and extension.oid is None:",
    ),
    signer(
        "delegate that cannot be read accepted",
        """        yield _unauthorized(answer, "the signer's certificate cannot be read to the end")\n""",
        "",
    ),
    # strength
    signer(
        "SHA-1 accepted", '_STRONG_HASHES: Final = ("sha256"', '_STRONG_HASHES: Final = ("sha1", "sha256"'
    ),
    signer(
        "SHA-1 of a delegate accepted",
        "if _is_weak_hash(delegate.signed_with, sha1):",
        "if delegate is signer:",
    ),
    signer("SHA-1 never allowed", 'digest.name == "sha1" and sha1 is Sha1.ALLOWED', "digest is sha1"),
    signer("weak key accepted", "_MIN_RSA_BITS: Final = 2048", "_MIN_RSA_BITS: Final = 512"),
    signer("weak curve accepted", "_MIN_EC_BITS: Final = 256", "_MIN_EC_BITS: Final = 192"),
    signer("weak issuer accepted", "if weakness := _weak_key(issuer):", "if weakness := None:"),
    signer(
        "key for PSS used otherwise",
        "    if scheme.pss is None:\n        return False",
        "    if scheme.pss is None:\n        return True",
    ),
    signer(
        "key for another hash of PSS",
        "return same and scheme.pss.salt >= tied.pss.salt",
        "return scheme.pss.salt >= tied.pss.salt",
    ),
    signer("key for more salt", "return same and scheme.pss.salt >= tied.pss.salt", "return same"),
    answer("any salt", "not 0 <= salt <= _MAX_PSS_SALT", "salt < 0"),
    answer(
        "unknown algorithm taken for RSA",
        "else SCHEMES.get(oid)",
        "else SCHEMES.get(oid, SCHEMES[SignatureAlgorithmOID.ECDSA_WITH_SHA256])",
    ),
    # extensions
    judge("critical extension of the response ignored", "(*answer.unknown_critical, *(oid", "(*(), *(oid"),
    judge(
        "critical extension of an entry ignored",
        "*(oid for entry in entries for oid in entry.unknown_critical)",
        "",
    ),
    judge(
        "critical extension of the first entry only",
        "for entry in entries for oid",
        "for entry in tuple(entries)[:1] for oid",
    ),
    answer(
        "known extensions of both levels mixed",
        "_unknown_critical(extensions, _ENTRY_EXTENSIONS)",
        "_unknown_critical(extensions, _ENTRY_EXTENSIONS | _RESPONSE_EXTENSIONS)",
    ),
    # times
    judge(
        "nextUpdate ignored",
        "if next_ is not None and next_ <= now:",
        "if next_ is not None and next_ == this:",
    ),
    judge(
        "nextUpdate with grace",
        "if next_ is not None and next_ <= now:",
        "if next_ is not None and next_ <= now - SKEW:",
    ),
    judge(
        "nextUpdate inclusive",
        "if next_ is not None and next_ <= now:",
        "if next_ is not None and next_ < now:",
    ),
    judge(
        "nextUpdate before thisUpdate",
        "if next_ is not None and next_ < this:",
        "if next_ is not None and next_ == now:",
    ),
    judge("thisUpdate ignored", "if this - now > SKEW:", "if this - now > 1000000 * SKEW:"),
    judge("no skew", "if this - now > SKEW:", "if this > now:"),
    judge(
        "producedAt ahead ignored", "if produced_at - now > SKEW:", "if produced_at - now > 1000000 * SKEW:"
    ),
    judge("producedAt before thisUpdate", "if produced_at < this:", "if produced_at is this:"),
    judge(
        "times of the first entry only",
        "    for entry in entries:\n        verdict.add(_times",
        "    for entry in entries[:1]:\n        verdict.add(_times",
    ),
    judge("max_age ignored", "timedelta(seconds=self.max_age)", "timedelta(days=3650)"),
    judge("max_age without nextUpdate only", "(next_ is None or rules.max_age is not None)", "next_ is None"),
    judge(
        "no age without nextUpdate",
        "(next_ is None or rules.max_age is not None)",
        "rules.max_age is not None",
    ),
    # status
    answer(
        "unknown accepted",
        "ocsp.OCSPCertStatus.UNKNOWN: CertStatus.UNKNOWN",
        "ocsp.OCSPCertStatus.UNKNOWN: CertStatus.GOOD",
    ),
    answer(
        "revoked accepted",
        "ocsp.OCSPCertStatus.REVOKED: CertStatus.REVOKED",
        "ocsp.OCSPCertStatus.REVOKED: CertStatus.GOOD",
    ),
    judge(
        "revoked not said",
        "            yield Fault(Code.OCSP_REVOKED, why",
        "            return\n            yield Fault(Code.OCSP_REVOKED, why",
    ),
    judge("an impostor's status believed", "    if authentic:\n", "    if answer:\n"),
    judge("warnings reject", "any(found.critical for found in findings)", "any(findings)"),
    judge(
        "criticals forgiven",
        "accepted = good and not any(found.critical for found in findings)",
        "accepted = good",
    ),
)


def mistaken(mistake: Mistake, package: Path) -> str:
    """Write the mistake into the text of its file; ValueError when it does not fit there any more."""
    text = (package / "ocsp" / mistake.file).read_text()
    if text.count(mistake.right) != 1:
        raise ValueError(f"{mistake.name}: the text is there {text.count(mistake.right)} times")
    wrong = text.replace(mistake.right, mistake.wrong)
    compile(wrong, mistake.file, "exec")
    return wrong


def caught(mistake: Mistake, copy: Path) -> str:
    """Put one mistake into a copy of the package, run the suite, put the right text back; say how it went."""
    package = copy / "hook" / "stapleguard"
    path = package / "ocsp" / mistake.file
    text = path.read_text()
    try:
        path.write_text(mistaken(mistake, package))
        done = _suite(copy)
    except (SyntaxError, ValueError) as error:
        return f"DOES NOT APPLY ({error})"
    finally:
        path.write_text(text)
    # 1: tests failed; 2: the tests could not even be read (pytest's own statuses).
    if done.returncode == 0:
        return "SURVIVED"
    return "caught" if done.returncode == 1 else f"DOES NOT APPLY (pytest ended with {done.returncode})"


def _suite(copy: Path) -> subprocess.CompletedProcess[str]:
    # setup.cfg puts the copy's own hook and tests in front of everything else.
    argv = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *SUITE]
    return subprocess.run(argv, cwd=copy, capture_output=True, text=True, check=False)


def main() -> int:
    """Try each mistake; 1 when one survives or does not apply."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("words", nargs="*", help="those whose name has all of these")
    arguments.add_argument("--skip", type=int, default=0, help="so many, to go on where a run was ended")
    given = arguments.parse_args()
    wanted = [one for one in MISTAKES[given.skip :] if all(word in one.name for word in given.words)]
    started, failed = monotonic(), 0
    with tempfile.TemporaryDirectory(prefix="stapleguard-mutants-") as directory:
        copy = Path(directory)
        for part in ("hook", "tests"):
            shutil.copytree(REPOSITORY / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(REPOSITORY / "setup.cfg", copy)
        before = _suite(copy)
        if before.returncode:
            print(f"the suite fails without any mistake\n{before.stdout}", file=sys.stderr)
            return 2
        for mistake in wanted:
            outcome = caught(mistake, copy)
            failed += outcome != "caught"
            print(f"{outcome:<8} {mistake.file:<12} {mistake.name}", flush=True)
    print(f"{len(wanted) - failed} of {len(wanted)} mistakes caught in {monotonic() - started:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
