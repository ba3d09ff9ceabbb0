"""What to do about the files of a renewal, what a server sends, and whether it staples.

Remedies are one line of numbered steps, `(1) … (2) …`; capitals in commands stand for the reader's own
values (NAME a lineage, HOST:PORT an endpoint). They are written for a tired person at 3 a.m.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from stapleguard.finding.code import Code, Entry
from stapleguard.model import Severity

CERTIFICATES: Final[Mapping[Code, Entry]] = {
    # material: the files that an ACME client left
    Code.MATERIAL_KEY_MISMATCH: Entry(
        Severity.CRITICAL,
        "The private key does not belong to the certificate",
        "The public key computed from the private key file is not the one in the leaf.",
        "(1) See which file is wrong: `openssl x509 -in cert.pem -noout -pubkey | sha256sum` and `openssl "
        "pkey -in privkey.pem -pubout | sha256sum` must print the same digest. "
        "(2) If a script of yours copies them, copy both from the same renewal and run `stapleguard "
        "deploy NAME` again. "
        "(3) If they differ in the ACME client's own directory, have a fresh pair issued: `certbot renew "
        "--cert-name NAME --force-renewal`.",
        "RFC 8446 section 4.4.3",
    ),
    Code.MATERIAL_CHAIN_INCOMPLETE: Entry(
        Severity.CRITICAL,
        "An intermediate certificate is missing from the chain",
        "No certificate in the files carries the key that signed the leaf, or the last one leads to no "
        "anchor.",
        "(1) Point at `fullchain.pem`, never at `cert.pem` alone. "
        "(2) If fullchain.pem itself is short, find the missing issuer: `openssl x509 -in cert.pem -noout "
        "-issuer -ext authorityInfoAccess`; download the URL under CA Issuers, turn it into PEM with "
        "`openssl x509 -inform DER -in FILE -out intermediate.pem` and append it to the chain. "
        "(3) With a private CA, give its root: `stapleguard deploy NAME --ca-file ROOT.pem`. "
        "(4) Better for next time: have the client ask for the full chain again with `certbot renew "
        "--cert-name NAME --force-renewal`.",
        "RFC 8446 section 4.4.2; RFC 5280 section 6.1",
    ),
    Code.MATERIAL_CHAIN_ORDER: Entry(
        Severity.CRITICAL,
        "The certificates of the chain are in the wrong order or do not belong together",
        "A certificate in the file is not signed by the one that follows it, or the leaf is not the first.",
        "(1) List them in order: `openssl crl2pkcs7 -nocrl -certfile fullchain.pem | openssl pkcs7 "
        "-print_certs -noout`; each issuer line must equal the next subject line. "
        "(2) Put them together again: leaf, then the intermediate that signed it, then the next; drop "
        "strangers and the root, for example `cat cert.pem intermediate.pem > fullchain.pem`. "
        "(3) Run `stapleguard deploy NAME`.",
        "RFC 8446 section 4.4.2",
    ),
    Code.MATERIAL_EXPIRED: Entry(
        Severity.CRITICAL,
        "A certificate in the new files has expired",
        "The notAfter of the leaf or of an intermediate lies before now.",
        "(1) Look which one: `openssl x509 -in cert.pem -noout -enddate` and the same for each in "
        "chain.pem. "
        "(2) Is the clock right? `date -u`. "
        "(3) Leaf expired: read why the renewal failed (`certbot certificates`, `tail -n 50 "
        "/var/log/letsencrypt/letsencrypt.log`), mend it, then `certbot renew --cert-name NAME`. "
        "(4) Intermediate expired: fetch the chain anew with `certbot renew --cert-name NAME "
        "--force-renewal`.",
        "RFC 5280 section 4.1.2.5",
    ),
    Code.MATERIAL_NOT_YET_VALID: Entry(
        Severity.CRITICAL,
        "A certificate in the new files is not valid yet",
        "The notBefore of the leaf or of an intermediate lies in the future by more than the 5 minutes of "
        "skew.",
        "(1) Check this host's clock first: `date -u` and `timedatectl`; if it is behind, `timedatectl "
        "set-ntp true` or start chrony, and wait until it is right. "
        "(2) If the clock is right, see from when it counts: `openssl x509 -in cert.pem -noout "
        "-startdate`. "
        "(3) After that moment run `stapleguard deploy NAME`; the old certificate stays in service until "
        "then.",
        "RFC 5280 section 4.1.2.5",
    ),
    Code.MATERIAL_NAME_MISMATCH: Entry(
        Severity.CRITICAL,
        "The new certificate does not cover a name that the server answers to",
        "A name of the renewal or of the server's configuration matches no subjectAltName of the leaf.",
        "(1) Compare: `openssl x509 -in cert.pem -noout -ext subjectAltName` against the `server_name` "
        "(nginx) or `ServerName` and `ServerAlias` (Apache) lines. "
        "(2) Missing name: issue with all of them, `certbot certonly --cert-name NAME -d A -d B`, naming "
        "every one, since the list replaces the old one. "
        "(3) Wrong lineage in the server's configuration: point it at the right one (`certbot "
        "certificates` lists them; beware of NAME-0001). "
        "(4) Name no longer used: remove it from the server's configuration.",
        "RFC 9525 section 6.3",
    ),
    Code.MATERIAL_UNREADABLE: Entry(
        Severity.CRITICAL,
        "A file of the new certificate cannot be read or parsed",
        "The file is absent, empty, refused by the system, or not a PEM certificate or unencrypted "
        "private key.",
        "(1) Look at the file: `ls -lL PATH` and `head -n 1 PATH`; it must begin with -----BEGIN. "
        "(2) Certificate: `openssl x509 -in PATH -noout -subject` must work; a DER file becomes PEM with "
        "`openssl x509 -inform DER -in PATH -out NEW`. "
        "(3) Key: `openssl pkey -in PATH -noout` must work without asking for a password; remove one with "
        "`openssl pkey -in PATH -out NEW` under `umask 077`. "
        "(4) Dangling symbolic link or empty file: restore it from the client's archive, or reissue with "
        "`certbot renew --cert-name NAME --force-renewal`.",
        "RFC 7468 sections 5, 10 and 11",
    ),
    Code.MATERIAL_OLDER_THAN_SERVED: Entry(
        Severity.CRITICAL,
        "The offered certificate is older than the one that is being served",
        "The notBefore of the candidate lies before that of the leaf seen in the handshake.",
        "(1) Compare: `openssl x509 -in cert.pem -noout -serial -dates` and `stapleguard status`. "
        "(2) A restored backup or the wrong directory (NAME instead of NAME-0001) is the usual reason: "
        "`certbot certificates` shows the newest lineage; run `stapleguard deploy` on that one. "
        "(3) If you do want to go back, say so: `stapleguard rollback NAME` returns to the previous "
        "proved generation.",
        "RFC 5280 section 4.1.2.5",
    ),
    # served: what clients really receive
    Code.SERVED_OLD_CERTIFICATE: Entry(
        Severity.CRITICAL,
        "The server still sends the old certificate",
        "Fresh full handshakes show a leaf whose SHA-256 is not that of the deployed one.",
        "(1) Which file does the server read? `nginx -T 2>/dev/null | grep -n ssl_certificate`, or "
        "`apachectl -t -D DUMP_CERTS`, or the `crt` of the HAProxy bind line; it must be the lineage that "
        "was renewed. "
        "(2) Reload once more and read the log at that moment: `nginx -t && nginx -s reload`, `apachectl "
        "graceful`, `systemctl reload haproxy`. "
        "(3) Which process owns the port? `ss -ltnp 'sport = :443'`; a second server, a container or a "
        "load balancer in front has its own copy of the certificate. "
        "(4) Then `stapleguard check NAME`.",
        "RFC 8446 section 4.4.2",
    ),
    Code.SERVED_CHAIN_INCOMPLETE: Entry(
        Severity.CRITICAL,
        "The server sends too few intermediate certificates",
        "The certificates of the handshake do not lead from the leaf to an anchor, though each is readable.",
        "(1) nginx: `ssl_certificate` must name fullchain.pem; `nginx -t && nginx -s reload`. "
        "(2) Apache: `SSLCertificateFile` must name fullchain.pem (SSLCertificateChainFile is obsolete "
        "since 2.4.8); `apachectl configtest && apachectl graceful`. "
        "(3) HAProxy: the PEM file holds key, leaf and intermediates in one; `systemctl reload haproxy`. "
        "(4) See what clients get: `openssl s_client -connect HOST:PORT -servername NAME -showcerts "
        "</dev/null`.",
        "RFC 8446 section 4.4.2",
    ),
    Code.SERVED_NAME_MISMATCH: Entry(
        Severity.CRITICAL,
        "The certificate that is served does not cover the name that was asked for",
        "The name sent in SNI matches no subjectAltName of the leaf in the handshake.",
        "(1) Usually the default server answered: look for a block with this `server_name` (nginx), "
        "`ServerName` or `ServerAlias` (Apache) that listens on this very address and port, with IPv6 too "
        "(`listen [::]:443 ssl;`). "
        "(2) `nginx -T 2>/dev/null | grep -nE 'listen|server_name|ssl_certificate'` or `apachectl -t -D "
        "DUMP_VHOSTS` shows them in order. "
        "(3) Mend it, test, reload, and run `stapleguard check HOST:PORT --sni NAME`. "
        "(4) If the name is missing from the certificate itself, see `stapleguard explain "
        "material.name-mismatch`.",
        "RFC 6066 section 3; RFC 9525 section 6.3",
    ),
    Code.SERVED_NOT_TRUSTED: Entry(
        Severity.CRITICAL,
        "The chain that is served leads to no trusted root",
        "Path validation of the certificates of the handshake against the anchors fails.",
        "(1) See who signed it: `openssl s_client -connect HOST:PORT -servername NAME -showcerts "
        "</dev/null`. "
        "(2) A staging or self-signed certificate: reissue from the real CA, `certbot renew --cert-name "
        "NAME --force-renewal --server DIRECTORY_URL`. "
        "(3) A private CA is fine if you say so: `--ca-file ROOT.pem`. "
        "(4) A missing intermediate: see `stapleguard explain served.chain-incomplete`. "
        "(5) A public root that this host does not know: `apt-get install --only-upgrade "
        "ca-certificates`. "
        "(6) Expired: the renewal failed, or this server was not reloaded since; `certbot certificates` "
        "tells which.",
        "RFC 5280 section 6.1",
    ),
    Code.SERVED_UNREACHABLE: Entry(
        Severity.CRITICAL,
        "No connection to the server could be made",
        "TCP connections to the endpoint are refused, unanswered or reset before TLS begins, or the name "
        "has no address.",
        "(1) Does it listen? On the server: `ss -ltnp 'sport = :443'`; if not, `systemctl status nginx` "
        "and `journalctl -u nginx -n 50` tell why. "
        "(2) Is the name right? `getent ahosts HOST`. "
        "(3) Is a firewall between? `nft list ruleset`, and try from another machine. "
        "(4) If the address cannot be reached from this host by design, name another: `stapleguard check "
        "NAME --address IP`.",
        "RFC 9293 section 3.5",
    ),
    Code.SERVED_TLS_FAILURE: Entry(
        Severity.CRITICAL,
        "The server answers but the TLS handshake fails",
        "A TLS alert, a protocol error, a stall within the handshake, or bytes that are not TLS.",
        "(1) See the alert: `openssl s_client -connect HOST:PORT -servername NAME -status </dev/null`. "
        "(2) Plain HTTP on this port: nginx needs `listen 443 ssl;`, Apache `SSLEngine on`, HAProxy `bind "
        ":443 ssl crt FILE`. "
        "(3) Read the server's error log at this second; a key that does not match, a file that is "
        "unreadable or protocols that do not meet (`ssl_protocols TLSv1.2 TLSv1.3;`) are named there. "
        "(4) Unknown name: some servers refuse an SNI they do not serve (`ssl_reject_handshake`); check "
        "the spelling. "
        "(5) A server that is asked for STARTTLS and refuses: `openssl s_client -starttls smtp -connect "
        "HOST:PORT` (or imap, pop3, ldap, postgres); Postfix needs `smtpd_tls_security_level = may`, Dovecot "
        "`ssl = yes`, slapd `TLSCertificateFile`, PostgreSQL `ssl = on`.",
        "RFC 8446 section 6.2",
    ),
    Code.SERVED_NODE_DIFFERS: Entry(
        Severity.CRITICAL,
        "One node behind the name serves something else than the others",
        "Handshakes with the addresses of one name show different leaves, chains or staples.",
        "(1) The finding names the address; look at it alone: `stapleguard check NAME --address IP`. "
        "(2) On that node compare the files with a good node: `sha256sum` of the fullchain that `nginx "
        "-T` names. "
        "(3) Bring the new files there with whatever distributes them, reload there, and find out why it "
        "was left out (node down, rsync error, other path). "
        "(4) If the node cannot be mended now, take its address out of DNS or the balancer.",
        "RFC 8446 section 4.4.2",
    ),
    # staple: whether there is one, and whether there should be
    Code.STAPLE_ABSENT: Entry(
        Severity.WARNING,
        "No OCSP response is stapled, though the certificate names a responder",
        "Full handshakes with status_request, without session resumption, came back without "
        "CertificateStatus.",
        "(1) Ask for the cause: `stapleguard check HOST:PORT`; follow the finding it names. "
        "(2) nginx sends none in the first handshake of each worker after a reload: check a second time "
        "before you change anything. "
        "(3) nginx waits 300 seconds after a failed fetch; when the cause is mended, `nginx -s reload` "
        "makes it try at once. "
        "(4) Clients go on without a staple unless the certificate is must-staple, so this can wait for "
        "the morning.",
        "RFC 6066 section 8; RFC 8446 section 4.4.2.1",
    ),
    Code.STAPLE_NOT_APPLICABLE: Entry(
        Severity.INFO,
        "The certificate names no OCSP responder, so there is nothing to staple",
        "The leaf has no id-ad-ocsp entry in authorityInfoAccess and no TLS feature status_request.",
        "(1) Nothing is wrong; many CAs (Let's Encrypt since May 2025) publish CRLs only. "
        "(2) To silence the server's own warning, remove `ssl_stapling` and `ssl_stapling_verify` (nginx) "
        "or `SSLUseStapling` (Apache) from this host's configuration, test and reload.",
        "RFC 5280 section 4.2.2.1; CA/B Forum Baseline Requirements section 7.1.2.11.2",
    ),
    Code.STAPLE_MUST_STAPLE_UNMET: Entry(
        Severity.CRITICAL,
        "The certificate demands a staple and clients get no usable one",
        "The leaf carries the TLS feature status_request, and a handshake had no staple, or one that is "
        "no good answer. Firefox and GnuTLS clients refuse such a connection.",
        "(1) Find the cause: `stapleguard check HOST:PORT`; the other findings say whether it is the "
        "CA's responder, the way to it, or the server. "
        "(2) If the previous certificate is still valid, put it back: `stapleguard rollback NAME`. "
        "(3) Let stapleguard hand the server a judged answer as a file, so that no handshake is bare: "
        '`prime = "file"` in /etc/stapleguard/stapleguard.toml, then `stapleguard deploy NAME`. '
        "(4) If the certificate names no responder or the CA's stays broken, reissue without the demand: "
        "remove `must_staple = True` from /etc/letsencrypt/renewal/NAME.conf and run `certbot renew "
        "--cert-name NAME --force-renewal`.",
        "RFC 7633 sections 4.2.3 and 4.3",
    ),
    Code.STAPLE_NEAR_EXPIRY: Entry(
        Severity.WARNING,
        "The staple expires soon and has not been replaced",
        "The time left until nextUpdate of the stapled answer is below the least that the policy wants.",
        "(1) If stapleguard primes this server: `systemctl list-timers 'stapleguard*'` must show a next "
        "run; then `stapleguard refresh`. "
        "(2) nginx that fetches for itself: `nginx -s reload`, two handshakes, `stapleguard check NAME`. "
        "HAProxy: `update ssl ocsp-response FILE` on its stats socket. Apache: `apachectl graceful`. "
        "(3) Still the old answer? The CA has no newer one: `stapleguard check NAME` shows what its "
        "responder gives out now.",
        "RFC 6960 section 4.2.2.1",
    ),
    Code.STAPLE_LEFT_OVER: Entry(
        Severity.CRITICAL,
        "A staple is served for a certificate that has none",
        "The leaf names no responder, yet the handshake carries an OCSP response: it belongs to an "
        "earlier certificate. GnuTLS clients (wget and others) refuse the connection.",
        "(1) nginx: remove the `ssl_stapling_file` line, `nginx -t && nginx -s reload`. "
        "(2) HAProxy: delete the `.ocsp` file beside the certificate, `systemctl reload haproxy`. "
        "(3) lighttpd: remove `ssl.stapling-file`, then send SIGUSR1 to its main process. "
        "(4) Find what wrote that file (an old cron job or hook) and end it; then `stapleguard check "
        "NAME`.",
        "RFC 6066 section 8",
    ),
}
