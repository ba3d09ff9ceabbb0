"""What to do about an OCSP answer, and about the way to the responder that gives it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from stapleguard.finding.code import Code, Entry
from stapleguard.model import Severity

ANSWERS: Final[Mapping[Code, Entry]] = {
    # ocsp: the answer itself
    Code.OCSP_MALFORMED: Entry(
        Severity.CRITICAL,
        "The OCSP response cannot be parsed",
        "The bytes are not one strict DER OCSPResponse of type id-pkix-ocsp-basic: broken, cut off, "
        "followed by other bytes, or of another type.",
        "(1) Look at it: `openssl ocsp -respin FILE -resp_text -noverify`. "
        "(2) If it is a file that the server staples (`ssl_stapling_file`, `.ocsp`), delete it or have it "
        "written anew with `stapleguard refresh`; a PEM file does not do, it must be DER. "
        "(3) If the responder sends this, a proxy in between may answer in its place: `curl -sv -o "
        "answer.bin URL` shows who. "
        "(4) Otherwise tell the CA; nothing on this host mends it.",
        "RFC 6960 section 4.2.1",
    ),
    Code.OCSP_TRY_LATER: Entry(
        Severity.CRITICAL,
        "The responder is temporarily unable to answer (tryLater)",
        "responseStatus is tryLater (3). Apache also makes this answer up when its own fetch failed.",
        "(1) Right after issuance wait: a CA may take 15 minutes; `stapleguard status` shows the pending "
        "run, which the timer retries. "
        "(2) Apache staples it and keeps it for up to an hour: set `SSLStaplingReturnResponderErrors off` "
        "and `SSLStaplingFakeTryLater off`, then `apachectl graceful`. "
        "(3) nginx never staples it but waits 300 seconds: `nginx -s reload` once the responder answers. "
        "(4) After some hours look at the CA's status page, or at your own responder's log.",
        "RFC 6960 section 2.3",
    ),
    Code.OCSP_UNAUTHORIZED: Entry(
        Severity.CRITICAL,
        "The responder has no authoritative record of this certificate (unauthorized)",
        "responseStatus is unauthorized (6).",
        "(1) Issued within the last 15 minutes: wait, the CA may still be publishing; `stapleguard retry` "
        "asks again. "
        "(2) Check that the question names the right issuer: the first certificate of chain.pem must be "
        "the one that signed the leaf (`openssl verify -partial_chain -trusted chain.pem cert.pem`). "
        "(3) Apache passes this on to clients: `SSLStaplingReturnResponderErrors off`, `apachectl "
        "graceful`. "
        "(4) Your own CA: is its responder fed with new serials, and is OCSP enabled there? "
        "(5) An hour later it is an incident of the CA: report the serial, `openssl x509 -in cert.pem "
        "-noout -serial`.",
        "RFC 6960 section 2.3; RFC 9919",
    ),
    Code.OCSP_INTERNAL_ERROR: Entry(
        Severity.CRITICAL,
        "The responder reports an internal error",
        "responseStatus is internalError (2).",
        "(1) Ask once more in a few minutes: `stapleguard retry`. "
        "(2) Apache passes this on to clients and Firefox then refuses: `SSLStaplingReturnResponderErrors "
        "off`, `apachectl graceful`. "
        "(3) It stays: see the CA's status page and report it; with a responder of your own read its log.",
        "RFC 6960 section 2.3",
    ),
    Code.OCSP_MALFORMED_REQUEST: Entry(
        Severity.CRITICAL,
        "The responder did not understand the question",
        "responseStatus is malformedRequest (1).",
        "(1) See whether another client fares better: `openssl ocsp -no_nonce -issuer issuer.pem -cert "
        "cert.pem -url URL -resp_text -noverify`. "
        "(2) If it does, a proxy may have bent the request: long GET paths and `%2F` are often rewritten; "
        "let it pass URLs unchanged or go around it. "
        "(3) If it does not, the responder is at fault: report it to the CA.",
        "RFC 6960 sections 2.3 and A.1",
    ),
    Code.OCSP_SIG_REQUIRED: Entry(
        Severity.CRITICAL,
        "The responder answers signed requests only",
        "responseStatus is sigRequired (5).",
        "(1) No web server signs OCSP requests, so this responder cannot serve stapling: have its "
        "operator allow unsigned ones. "
        "(2) Until then turn stapling off for this certificate: `ssl_stapling off;` (nginx) or "
        "`SSLUseStapling off` (Apache), test and reload. "
        "(3) A must-staple certificate must be reissued without that demand.",
        "RFC 6960 section 2.3",
    ),
    Code.OCSP_WRONG_CERTIFICATE: Entry(
        Severity.CRITICAL,
        "The OCSP response is about another certificate",
        "No entry of the answer has the CertID (issuer name hash, issuer key hash, serial) computed from "
        "the leaf and its issuer.",
        "(1) Most often a staple file of the previous certificate: `stapleguard refresh`, or delete the "
        "file (`ssl_stapling_file` of nginx, `.ocsp` of HAProxy) and reload. "
        "(2) One `ssl_stapling_file` cannot serve an RSA and an ECDSA certificate together: let nginx "
        "fetch by itself there. "
        "(3) Look at the serial in it: `openssl ocsp -respin FILE -resp_text -noverify | grep -i serial` "
        "against `openssl x509 -in cert.pem -noout -serial`. "
        "(4) The responder itself answers so: a cache keyed wrongly in between, or a fault of the CA.",
        "RFC 6960 section 3.2, item 1",
    ),
    Code.OCSP_BAD_SIGNATURE: Entry(
        Severity.CRITICAL,
        "The signature of the OCSP response is wrong",
        "The signature over tbsResponseData does not verify with the key of the issuer or of its delegate.",
        "(1) Fetch once more by another network path; if the answer is then good, something in between "
        "alters it. "
        "(2) If a server staples it, stop that: delete the staple file, or in Apache (which does not "
        "check) `SSLUseStapling off`, `apachectl graceful`. "
        "(3) Check that chain.pem holds the issuer that really signed the leaf; CAs with two generations "
        "of one name differ in the key. "
        "(4) Everything right here: report it to the CA, with the answer attached.",
        "RFC 6960 section 3.2, items 2 and 3",
    ),
    Code.OCSP_UNAUTHORIZED_RESPONDER: Entry(
        Severity.CRITICAL,
        "The OCSP response is signed by someone who may not",
        "The signer is neither the issuer nor a delegate that the issuer's own key certified, in date, "
        "not a CA, with id-kp-OCSPSigning.",
        "(1) See who signed: `openssl ocsp -respin FILE -resp_text -noverify` prints the responder and "
        "its certificate. "
        "(2) A delegate that has expired, or was issued by another CA key: the operator of the responder "
        "must renew it from the very CA that issued your leaf, with extendedKeyUsage OCSPSigning. "
        "(3) Do not work around it by trusting the signer: browsers will not. "
        "(4) Until it is mended, stapling off and reload, unless the certificate is must-staple.",
        "RFC 6960 section 4.2.2.2",
    ),
    Code.OCSP_EXPIRED: Entry(
        Severity.CRITICAL,
        "The OCSP response has expired",
        "nextUpdate lies before now; no grace is given. GnuTLS clients refuse such a staple.",
        "(1) Is the clock right? `date -u`. "
        "(2) A staple file: `stapleguard refresh`; without stapleguard fetch it anew or remove the line "
        "`ssl_stapling_file`, then `nginx -t && nginx -s reload`; HAProxy: replace the `.ocsp` file and "
        "reload. "
        "(3) Apache serving an old answer from its cache: `apachectl graceful`. "
        "(4) The responder itself gives out stale answers: its signer stands still; report it, and if it "
        "is yours restart it and read its log.",
        "RFC 6960 section 3.2, item 6, and section 4.2.2.1",
    ),
    Code.OCSP_NOT_YET_VALID: Entry(
        Severity.CRITICAL,
        "The OCSP response is dated in the future",
        "thisUpdate or producedAt lies ahead of now by more than 5 minutes, or the two contradict each "
        "other.",
        "(1) Check this host's clock: `date -u`, `timedatectl`; mend it and `stapleguard retry`. "
        "(2) The clock is right: the responder's is not; tell its operator. "
        "(3) Within minutes it may pass by itself; the timer retries.",
        "RFC 6960 section 3.2, item 5, and section 4.2.2.1",
    ),
    Code.OCSP_TOO_OLD: Entry(
        Severity.CRITICAL,
        "The OCSP response is too old to be believed",
        "It has no nextUpdate and thisUpdate lies more than 7 days back, or more than `--max-age` allows, "
        "where that is given.",
        "(1) Ask the responder for a newer one: `stapleguard refresh`, or remove the staple file and "
        "reload. "
        "(2) It is the responder that gives it out: its operator should sign anew and set nextUpdate. "
        "(3) With your own OpenBao or Vault PKI set `ocsp_expiry` to a time such as 12h; 0 leaves "
        "nextUpdate out.",
        "RFC 6960 section 4.2.2.1; RFC 9919",
    ),
    Code.OCSP_NO_NEXT_UPDATE: Entry(
        Severity.WARNING,
        "The OCSP response does not say how long it holds",
        "nextUpdate is absent; only a note until thisUpdate lies more than 12 hours back.",
        "(1) Clients accept it today; nginx keeps such an answer for ever and asks anew each hour. "
        "(2) Have the operator of the responder set nextUpdate; in OpenBao or Vault PKI set `ocsp_expiry` "
        "to 12h instead of 0. "
        "(3) Then reload the server, so that it fetches the new kind of answer.",
        "RFC 6960 section 4.2.2.1; RFC 9919",
    ),
    Code.OCSP_REVOKED: Entry(
        Severity.CRITICAL,
        "The certificate is revoked",
        "An answer that passes every other rule says revoked; the evidence holds time and reason.",
        "(1) Do not put this certificate back, whatever else happens. "
        "(2) Issue a new one with a new key at once: `certbot certonly --cert-name NAME -d A -d B "
        "--force-renewal --new-key`. "
        "(3) Reason keyCompromise: consider every copy of the key lost, and look how it got out before "
        "you put the new one in the same place. "
        "(4) You did not revoke it: the CA did (mail to the account, its incident page); a replacement is "
        "due all the same. "
        "(5) Then `stapleguard check NAME`.",
        "RFC 6960 section 2.2; RFC 5280 section 5.3.1",
    ),
    Code.OCSP_UNKNOWN: Entry(
        Severity.CRITICAL,
        "The responder does not know the certificate",
        "An answer that passes every other rule says unknown. Firefox refuses such a staple.",
        "(1) Issued minutes ago: wait, the CA may still be publishing; `stapleguard retry`. "
        "(2) Apache staples it and keeps it: after the CA has caught up, `apachectl graceful`; until then "
        "`SSLUseStapling off`. "
        "(3) Does the URL belong to the CA that issued the leaf? `openssl x509 -in cert.pem -noout "
        "-ocsp_uri -issuer`. "
        "(4) After an hour report the serial to the CA: an issued certificate must not be unknown.",
        "RFC 6960 section 2.2",
    ),
    Code.OCSP_CRITICAL_EXTENSION: Entry(
        Severity.CRITICAL,
        "The OCSP response has a critical extension that nobody here understands",
        "A response or entry extension is marked critical and is none of those known.",
        "(1) The evidence names its object identifier; `openssl ocsp -respin FILE -resp_text -noverify` "
        "shows it in place. "
        "(2) Clients must reject such an answer, so it must not be stapled: the operator of the responder "
        "has to drop the extension or its critical mark. "
        "(3) Until then stapling off and reload, unless the certificate is must-staple.",
        "RFC 6960 section 4.4",
    ),
    Code.OCSP_WEAK_SIGNATURE: Entry(
        Severity.CRITICAL,
        "The OCSP response is signed with a weak algorithm",
        "The signature of the answer, or of the delegate's certificate, uses SHA-1 or MD5.",
        "(1) The operator of the responder must sign with SHA-256 or better; OpenSSL's own responder does "
        "with `-rmd sha256`. "
        "(2) A delegate certificate signed with SHA-1 has to be reissued. "
        "(3) Old test data only: `stapleguard ocsp verify --allow-sha1`; servers and clients of today "
        "refuse it whatever that says.",
        "CA/B Forum Baseline Requirements section 7.1.3.2; NIST SP 800-131A section 9",
    ),
    Code.OCSP_CERTID_UNMATCHED: Entry(
        Severity.WARNING,
        "The answer is good, but this server will not recognise it as its own",
        "The CertID is hashed with another algorithm than SHA-1; nginx and Apache compare SHA-1 only, and "
        "`curl --cert-status` refuses it too.",
        "(1) Have the responder answer with the hash that the request used: both servers ask with SHA-1. "
        "(2) Until then hand the answer over as a file, which is not compared: in stapleguard `prime = "
        '"file"`, in nginx alone `ssl_stapling_file`. '
        "(3) Browsers accept it, so this can wait for the morning.",
        "RFC 9919; RFC 6960 section 4.1.1",
    ),
    Code.OCSP_NO_NOCHECK: Entry(
        Severity.WARNING,
        "The delegate's certificate lacks id-pkix-ocsp-nocheck",
        "The signer is a delegate whose certificate does not tell clients to skip its own revocation check.",
        "(1) Clients of today mostly accept it; a strict one would ask for the revocation of the signer "
        "and may fail. "
        "(2) Your own CA: reissue the responder's certificate with `noCheck = ignored` beside "
        "`extendedKeyUsage = OCSPSigning` in the OpenSSL extension section. "
        "(3) A public CA: report it, it breaks the Baseline Requirements.",
        "RFC 6960 section 4.2.2.2.1; CA/B Forum Baseline Requirements section 7.1.2.8",
    ),
    Code.OCSP_OUTLIVES_LEAF: Entry(
        Severity.WARNING,
        "The OCSP response is valid for longer than the certificate",
        "nextUpdate lies after the notAfter of the leaf; Caddy refuses such an answer.",
        "(1) Renew the certificate if it is about to expire: `certbot renew --cert-name NAME`. "
        "(2) With short-lived certificates have the operator of the responder shorten the validity of "
        "answers. "
        "(3) With nginx, Apache or HAProxy nothing breaks.",
        "RFC 6960 section 4.2.2.1",
    ),
    Code.OCSP_AMBIGUOUS: Entry(
        Severity.WARNING,
        "The answer is good, but clients that look no further than its first part refuse it",
        "It also speaks of certificates of other issuers, or the first certificate in it that the "
        "responderID names is not the one that may sign; OpenSSL and what is built on it refuse both.",
        "(1) What is in it? `openssl ocsp -respin FILE -noverify -resp_text`. "
        "(2) Have the operator of the responder answer about one issuer only, and enclose one certificate "
        "for its key. "
        "(3) Browsers accept it, so this can wait for the morning.",
        "RFC 6960 sections 4.2.2.2 and 4.2.2.3; OpenSSL, OCSP_basic_verify(3)",
    ),
    # dns, net, responder: the way to it
    Code.DNS_NAME_NOT_FOUND: Entry(
        Severity.CRITICAL,
        "The name of the OCSP responder does not exist",
        "The resolver answered NXDOMAIN, or the name has neither A nor AAAA records.",
        "(1) Which name? `openssl x509 -in cert.pem -noout -ocsp_uri`. "
        "(2) Ask two resolvers: `getent ahosts HOST` and `dig HOST @OTHER_RESOLVER`. "
        "(3) Only yours fails: a filter list or a split zone hides it; allow the name there. "
        "(4) Both fail: the CA has withdrawn the responder or it is a private name; for a private CA put "
        "the name into DNS. "
        "(5) Then `nginx -s reload` and `stapleguard retry`.",
        "RFC 2308 section 2",
    ),
    Code.DNS_SERVER_FAILURE: Entry(
        Severity.CRITICAL,
        "The resolver could not resolve the responder's name",
        "The resolver answered SERVFAIL or REFUSED.",
        "(1) Repeat with and without DNSSEC: `dig HOST` and `dig +cd HOST`; if only the second works, "
        "validation fails: check the resolver's clock and trust anchor. "
        "(2) REFUSED means that this host may not ask there: mend access-control of the resolver, or name "
        "another in /etc/resolv.conf. "
        "(3) Restart a stuck local resolver: `systemctl restart unbound` or `systemd-resolved`. "
        "(4) Then `nginx -s reload` and `stapleguard retry`.",
        "RFC 1035 section 4.1.1",
    ),
    Code.DNS_TIMEOUT: Entry(
        Severity.CRITICAL,
        "The resolver does not answer",
        "No answer to the query for the responder's name within the time allowed.",
        "(1) Which resolver? `cat /etc/resolv.conf`. "
        "(2) Does it answer at all? `dig +time=2 +tries=1 HOST @ADDRESS`, then the same with `+tcp`. "
        "(3) Blocked: open UDP and TCP port 53 to it (`nft list ruleset`); dead: `systemctl restart` it "
        "or name another. "
        "(4) Until it is mended `nginx -t` and each reload may take 10 seconds; be patient and do not "
        "kill them. "
        "(5) Then `nginx -s reload` and `stapleguard retry`.",
        "RFC 1035 section 4.2.1",
    ),
    Code.NET_REFUSED: Entry(
        Severity.CRITICAL,
        "The responder refuses the connection",
        "The TCP connection to the responder's address was answered with a reset: nobody listens.",
        "(1) Try it: `curl -sv -o /dev/null --max-time 10 URL`. "
        "(2) Does the name lead to the right address? `getent ahosts HOST`; /etc/hosts and split DNS are "
        "the usual liars. "
        "(3) Your own responder: start it and see `ss -ltnp`. "
        "(4) A public one: a firewall that rejects looks the same; ask who runs it, else wait for the CA. "
        "(5) Then `nginx -s reload` and `stapleguard retry`.",
        "RFC 9293 section 3.5.2",
    ),
    Code.NET_BLOCKED: Entry(
        Severity.CRITICAL,
        "The responder cannot be reached over the network",
        "No answer to SYN within the time, or the system says host or network unreachable.",
        "(1) Confirm: `curl -sv -o /dev/null --max-time 10 URL`, with `-4` and with `-6`. "
        "(2) Let this host out to TCP port 80 of the responder: `nft list ruleset` here, then the "
        "firewall in front; OCSP needs plain HTTP. "
        "(3) Only IPv6 fails: mend the route, or `resolver ADDRESS ipv6=off;` in nginx. "
        "(4) The way out is a proxy: Apache has `SSLOCSPProxyURL`, nginx can be pointed at a relay with "
        "`ssl_stapling_responder`. "
        "(5) Then `nginx -s reload` (nginx otherwise waits 6 minutes) and `stapleguard retry`.",
        "RFC 6960 section A.1",
    ),
    Code.NET_RESET: Entry(
        Severity.CRITICAL,
        "The connection to the responder was cut off",
        "The peer reset or closed the connection before a whole HTTP response had arrived.",
        "(1) Repeat a few times: `curl -sv -o /dev/null --max-time 10 URL`. "
        "(2) Each time at once: a filtering firewall or proxy objects to the request; ask its keeper to "
        "let OCSP through. "
        "(3) Now and then: an overloaded responder; the timer retries. "
        "(4) Your own responder: read its log for a crash at that second.",
        "RFC 9293 section 3.5.2",
    ),
    Code.RESPONDER_SLOW: Entry(
        Severity.CRITICAL,
        "The responder accepts the connection but does not answer in time",
        "Connected, yet no whole HTTP response within the time allowed.",
        "(1) Measure: `curl -s -o /dev/null --max-time 60 -w '%{time_connect} %{time_starttransfer}\\n' "
        "URL`. "
        "(2) Apache holds the first handshake up meanwhile: `SSLStaplingResponderTimeout 2`, `apachectl "
        "graceful`. "
        "(3) nginx gives up after 60 seconds and waits another 300: reload once it is fast again. "
        "(4) Your own responder: look at its load and its key store; a public one: the CA's status page. "
        "(5) `stapleguard retry`, or leave it to the timer.",
        "RFC 6960 section A.1",
    ),
    Code.RESPONDER_HTTP_ERROR: Entry(
        Severity.CRITICAL,
        "The responder answers with an HTTP error",
        "The HTTP status is not 200; the evidence holds it. nginx says nothing about this in its log.",
        "(1) See it: `openssl ocsp -no_nonce -issuer issuer.pem -cert cert.pem -url URL -resp_text "
        "-noverify`. "
        "(2) 403 or 407: a proxy in between wants a say; let OCSP pass. 404: the path is wrong or GET is "
        "not offered; 5xx: the responder is ill. "
        "(3) A redirect to https or a login page comes from a captive portal or a web server in front of "
        "your responder: no server follows it, serve the answers at the URL itself. "
        "(4) When it gives 200: `nginx -s reload`, `stapleguard retry`.",
        "RFC 6960 section A.2",
    ),
    Code.RESPONDER_NOT_OCSP: Entry(
        Severity.CRITICAL,
        "What came back is not an OCSP response",
        "HTTP 200, but the Content-Type is not application/ocsp-response, or the body is empty or no OCSP "
        "response.",
        "(1) Look at it: `curl -s --max-time 10 -D - URL | head -n 20`. "
        "(2) HTML: a captive portal, a block page or a default web site answers; find who by the Server "
        "and Via headers and go around it. "
        "(3) Your own responder: it must send `Content-Type: application/ocsp-response` exactly; nginx "
        "refuses anything else. "
        "(4) Then `nginx -s reload` and `stapleguard retry`.",
        "RFC 6960 section A.2",
    ),
    Code.RESPONDER_TOO_LARGE: Entry(
        Severity.CRITICAL,
        "The responder sends more than any OCSP response needs",
        "The body passed the size limit and was not read to the end.",
        "(1) Look at what it is: `curl -s --max-time 10 URL | head -c 300`; usually a web page. "
        "(2) A real answer this large carries whole chains or very many entries: have the operator of the "
        "responder send one entry and at most the delegate's certificate; Apache takes 10240 bytes at "
        "most. "
        "(3) Then `stapleguard retry`.",
        "RFC 6960 section 4.2.1",
    ),
    Code.RESPONDER_FORBIDDEN_ADDRESS: Entry(
        Severity.CRITICAL,
        "The responder's address is one that is not asked without leave",
        "The URL is not plain http or https, or its host is a private, loopback, link-local or otherwise "
        "special address, which a certificate could use to reach inside.",
        "(1) Is this really where your CA's responder is? `openssl x509 -in cert.pem -noout -ocsp_uri` "
        "and `getent ahosts HOST`. "
        "(2) Yes, a private CA: allow it, `[fetch]` with `allow_addresses` in "
        "/etc/stapleguard/stapleguard.toml, or `--allow-address CIDR` once. "
        "(3) No: somebody lies in DNS or in /etc/hosts; mend that first.",
        "RFC 6890 section 2.2",
    ),
}
