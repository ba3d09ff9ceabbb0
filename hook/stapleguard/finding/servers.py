"""What to do about the web server that should staple, and about this host."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from stapleguard.finding.code import Code, Entry
from stapleguard.model import Severity

SERVERS: Final[Mapping[Code, Entry]] = {
    # server: its configuration and its life
    Code.SERVER_STAPLING_DISABLED: Entry(
        Severity.CRITICAL,
        "Stapling is not turned on in the server",
        "The configuration in force for this name has no stapling directive, or turns it off; for HAProxy "
        "and lighttpd: no staple file and no update is configured.",
        "(1) nginx, in the server block: `ssl_stapling on;` and `ssl_stapling_verify on;`, with a "
        "`resolver` and `ssl_trusted_certificate`; `nginx -t && nginx -s reload`. "
        "(2) Apache: `SSLUseStapling on` in the virtual host and, outside of any, `SSLStaplingCache "
        '"shmcb:${APACHE_RUN_DIR}/ssl_stapling(128000)"`; `apachectl configtest && apachectl graceful`. '
        "(3) HAProxy 2.8 or later: `ocsp-update on` in the crt-list line; earlier: a `.ocsp` file beside "
        "the PEM; `systemctl reload haproxy`. lighttpd: `ssl.stapling-file`. "
        "(4) Or let `stapleguard setup` show the change, and `stapleguard setup --write` make it.",
        "nginx ngx_http_ssl_module, ssl_stapling; Apache mod_ssl, SSLUseStapling; HAProxy ocsp-update",
    ),
    Code.SERVER_ISSUER_MISSING: Entry(
        Severity.CRITICAL,
        "The server cannot find the issuer of its certificate and has dropped stapling",
        'nginx: `"ssl_stapling" ignored, issuer certificate not found` at load. Apache: AH02217 with '
        "AH02604. HAProxy: it cannot compute the certificate ID of the `.ocsp` file.",
        "(1) nginx: let `ssl_certificate` name fullchain.pem, not cert.pem; or put the intermediate into "
        "`ssl_trusted_certificate`. `nginx -t` must no longer warn; `nginx -s reload`. "
        "(2) Apache: `SSLCertificateFile` names fullchain.pem; `apachectl configtest && apachectl "
        "graceful`. "
        "(3) HAProxy: append the intermediate to the PEM, or save it as `SITE.pem.issuer`; `systemctl "
        "reload haproxy`. "
        "(4) `stapleguard check NAME`.",
        "nginx ngx_http_ssl_module, ssl_stapling; HAProxy ssl-load-extra-files",
    ),
    Code.SERVER_TRUST_MISSING: Entry(
        Severity.CRITICAL,
        "The server cannot verify the certificate of the OCSP signer",
        "nginx logs `OCSP_basic_verify() failed` with `unable to get local issuer certificate`, `unable "
        "to get issuer certificate` or `signer certificate not found`; the answer itself passes the "
        "judge.",
        "(1) nginx: `ssl_trusted_certificate` must name a file with the intermediates and the root: `cat "
        "chain.pem root.pem > trusted.pem`; a guarded lineage has one ready, "
        "/var/lib/stapleguard/live/NAME/trusted.pem. "
        "(2) Keep the whole fullchain.pem in `ssl_certificate`. "
        "(3) `nginx -t && nginx -s reload`, then `stapleguard check NAME`. "
        "(4) In a hurry: `ssl_stapling_verify off;` helps with a delegated signer.",
        "nginx ngx_http_ssl_module, ssl_trusted_certificate and ssl_stapling_verify",
    ),
    Code.SERVER_RESOLVER_MISSING: Entry(
        Severity.CRITICAL,
        "nginx has no resolver and goes on with the address that it found at start",
        "No `resolver` is in force for this name while the responder is a host name; nginx logs `no "
        "resolver defined to resolve`.",
        "(1) Find an address to name: `grep nameserver /etc/resolv.conf`. "
        "(2) In the http block: `resolver ADDRESS valid=300s;` and `resolver_timeout 5s;` (an IPv6 "
        "address in brackets; add `ipv6=off` where there is no IPv6). "
        "(3) `nginx -t && nginx -s reload`; the reload alone already looks the name up anew. "
        "(4) `stapleguard check NAME`.",
        "nginx ngx_http_core_module, resolver",
    ),
    Code.SERVER_RESOLVER_BROKEN: Entry(
        Severity.CRITICAL,
        "The resolver named in the server's configuration does not do its work",
        "A query sent to that very address fails or is answered wrongly, while this host's own resolver "
        "answers; nginx logs `could not be resolved` or `while resolving, resolver:`.",
        "(1) Ask it yourself: `dig +time=2 +tries=1 RESPONDER_HOST @ADDRESS -p PORT`. "
        "(2) Replace it by one that answers (`grep nameserver /etc/resolv.conf`): `resolver ADDRESS "
        "valid=300s;` in nginx. "
        "(3) Or bring it back: `systemctl status unbound`, its access-control, the firewall on port 53. "
        "(4) `nginx -t && nginx -s reload`; without the reload nginx waits 300 seconds. "
        "(5) `stapleguard check NAME`.",
        "nginx ngx_http_core_module, resolver",
    ),
    Code.SERVER_RESPONDER_UNRESOLVABLE_AT_LOAD: Entry(
        Severity.CRITICAL,
        "The responder's name did not resolve when the server loaded, so stapling is off",
        'nginx: `"ssl_stapling" ignored, host not found in OCSP responder` at start, reload or `nginx '
        "-t`; the test still says ok. The system's resolver counts here, not the `resolver` directive.",
        "(1) Does it resolve now? `getent ahosts RESPONDER_HOST`; if not, mend /etc/resolv.conf or the "
        "resolver behind it. "
        "(2) `nginx -t` must no longer warn; then `nginx -s reload`. "
        "(3) If it happens at boot, start nginx after the network: `systemctl edit nginx`, section "
        "`[Unit]`, `Wants=network-online.target` and `After=network-online.target nss-lookup.target`. "
        "(4) `stapleguard check NAME`.",
        "nginx ngx_http_ssl_module, ssl_stapling",
    ),
    Code.SERVER_CACHE_MISSING: Entry(
        Severity.CRITICAL,
        "Apache has stapling on but no cache for it, and will not start",
        "`SSLUseStapling on` without `SSLStaplingCache`; AH01958 in the error log. `apachectl configtest` "
        "says Syntax OK all the same.",
        "(1) `a2enmod socache_shmcb` (on Debian). "
        "(2) Outside of every virtual host, for instance in mods-available/ssl.conf: `SSLStaplingCache "
        '"shmcb:${APACHE_RUN_DIR}/ssl_stapling(128000)"`. '
        "(3) `apachectl configtest`, then `systemctl restart apache2`, and look whether it came up: "
        "`systemctl status apache2`. "
        "(4) In a hurry: `SSLUseStapling off` and restart.",
        "Apache mod_ssl, SSLStaplingCache",
    ),
    Code.SERVER_STAPLE_FILE_BAD: Entry(
        Severity.CRITICAL,
        "The staple file that the server was given is stale, foreign, revoked or broken",
        "The file named by `ssl_stapling_file` (nginx), `.ocsp` (HAProxy) or `ssl.stapling-file` "
        "(lighttpd) does not pass the judge. nginx staples whatever is in it, for ever.",
        "(1) What is wrong with it? `stapleguard ocsp verify --cert cert.pem --issuer issuer.pem "
        "--response FILE`. "
        "(2) A guarded lineage: `stapleguard refresh` replaces it. "
        "(3) nginx without stapleguard: remove the `ssl_stapling_file` line, so that nginx fetches by "
        "itself; `nginx -t && nginx -s reload`. HAProxy: delete the `.ocsp` file or replace it by a fresh "
        "one, `systemctl reload haproxy`. lighttpd: replace the file, SIGUSR1 to its main process. "
        "(4) Find out what should have renewed it (cron, timer) and mend that.",
        "nginx ngx_http_ssl_module, ssl_stapling_file; HAProxy set ssl ocsp-response",
    ),
    Code.SERVER_VARIABLE_CERTIFICATE: Entry(
        Severity.CRITICAL,
        "nginx cannot staple for a certificate that is chosen by a variable",
        "The value of `ssl_certificate` holds a `$variable` or `data:`; nginx then never staples and says "
        "nothing.",
        "(1) Give the name a server block of its own with a fixed path: `ssl_certificate "
        "/etc/letsencrypt/live/NAME/fullchain.pem;`. "
        "(2) `nginx -t && nginx -s reload`, `stapleguard check NAME`. "
        "(3) If it must stay a variable, live without a staple, and have the certificate issued without "
        "must-staple.",
        "nginx ngx_http_ssl_module, ssl_certificate",
    ),
    Code.SERVER_CONFIG_INVALID: Entry(
        Severity.CRITICAL,
        "The server's own test refuses its configuration",
        "The configuration test ended with an error; its words are in the evidence. Nothing was reloaded, "
        "and the running server goes on with what it has.",
        "(1) Do not restart it now: it would not come up again. "
        "(2) Read file and line: `nginx -t`, `apachectl configtest`, or `haproxy -c -f "
        "/etc/haproxy/haproxy.cfg`. "
        "(3) Mend it or take the last change back; a missing file is restored by `stapleguard recover` if "
        "it was a generation. "
        "(4) When the test passes: `stapleguard deploy NAME`.",
        "nginx command-line parameters, -t; Apache apachectl configtest; HAProxy -c",
    ),
    Code.SERVER_RELOAD_NOT_TAKEN: Entry(
        Severity.CRITICAL,
        "The server was told to reload but did not take the new files",
        "The reload command succeeded, yet handshakes show the old leaf after the time allowed. A signal "
        "says nothing about success.",
        "(1) Read the error log of that moment for `[emerg]`: `journalctl -u nginx -n 50` and "
        "/var/log/nginx/error.log. "
        "(2) `nginx -t && nginx -s reload` (not `kill -HUP`, which hides a refusal); Apache `apachectl "
        "graceful`; HAProxy `systemctl reload haproxy`. "
        "(3) Was it the right process? `ss -ltnp 'sport = :443'` against the pid file of the "
        "configuration. "
        "(4) Files overwritten in place with their old times stay in the cache of nginx 1.27.4 and later: "
        "install by rename. "
        "(5) Last resort, after a passing test: `systemctl restart nginx`.",
        "nginx, Controlling nginx; ngx_http_ssl_module, ssl_object_cache_inheritable",
    ),
    Code.SERVER_NOT_RUNNING: Entry(
        Severity.CRITICAL,
        "The server is not running",
        "No process of it was found, its pid file is stale, or nobody listens where its configuration says.",
        "(1) Why? `systemctl status nginx` and `journalctl -u nginx -n 50` (or apache2, haproxy, "
        "lighttpd). "
        "(2) Test first: `nginx -t`, `apachectl configtest`, `haproxy -c -f /etc/haproxy/haproxy.cfg`. "
        "(3) Port taken? `ss -ltnp 'sport = :443'`. "
        "(4) `systemctl start nginx`, then `stapleguard retry`.",
        "nginx, Controlling nginx",
    ),
    Code.SERVER_UNSUPPORTED: Entry(
        Severity.CRITICAL,
        "This server cannot staple for this certificate",
        "The program has no stapling at all (Postfix, Dovecot), was built without it, or cannot use the "
        "responder's URL (nginx and Apache: https).",
        "(1) https URL: have the CA name an http one, as it should (the answer is signed), or give nginx "
        'one: `ssl_stapling_responder http://HOST/PATH;`, or hand it the answer with `prime = "file"`. '
        "(2) No stapling in the program: terminate TLS in one that has it (nginx, HAProxy), or live "
        "without. "
        "(3) Must-staple certificate: reissue without it; remove `must_staple = True` from "
        "/etc/letsencrypt/renewal/NAME.conf and run `certbot renew --cert-name NAME --force-renewal`.",
        "nginx ngx_http_ssl_module, ssl_stapling_responder; RFC 7633 section 4.3",
    ),
    Code.SERVER_SERVES_BAD_STAPLE: Entry(
        Severity.CRITICAL,
        "The server staples an answer that it fetched itself and that does not pass",
        "The staple of the handshake fails the judge and no staple file is configured; Apache and others "
        "pass on what they get. Strict clients refuse the connection.",
        "(1) Apache: `SSLStaplingReturnResponderErrors off`, `SSLStaplingFakeTryLater off`, then "
        "`apachectl graceful`, which empties its cache. "
        "(2) Still bad: the responder says so; turn it off until the CA has mended it: `SSLUseStapling "
        "off`, `apachectl graceful` (not with must-staple: there `stapleguard rollback NAME`). "
        "(3) HAProxy: `update ssl ocsp-response FILE` on its stats socket, or `ocsp-update off` and "
        "reload. "
        "(4) For good: Apache's mod_md (`MDStapling on`), or answers handed over by stapleguard with "
        '`prime = "file"`.',
        "Apache mod_ssl, SSLStaplingReturnResponderErrors and SSLStaplingFakeTryLater",
    ),
    Code.SERVER_WORKER_UNSTAPLED: Entry(
        Severity.CRITICAL,
        "Some workers of the server staple and others do not",
        "Handshakes of one endpoint came back with and without a staple; where this host can tell, the "
        "evidence names the worker. nginx keeps one cache for each worker.",
        "(1) `stapleguard check NAME` once more: each handshake warms the worker that it meets. "
        "(2) The same worker stays bare: its fetch failed and it waits 300 seconds; read `while "
        "requesting certificate status` in the error log, mend that, `nginx -s reload`, check again. "
        '(3) If no client may ever meet a cold worker, use `prime = "file"`.',
        "nginx ngx_http_ssl_module, ssl_stapling and ssl_stapling_file",
    ),
    Code.SERVER_BLOCKED_ONLY: Entry(
        Severity.CRITICAL,
        "This host reaches the responder, but the server's user or namespace does not",
        "Our own fetch succeeded; the server's fetch fails, or the same request as its user or in its "
        "namespace does.",
        "(1) Try as the server: `runuser -u www-data -- curl -sv -o /dev/null --max-time 10 URL`. "
        "(2) Rules for users: `nft list ruleset | grep -n skuid`; let it out to TCP port 80 and to DNS. "
        "(3) The unit: `systemctl show nginx -p IPAddressDeny -p RestrictAddressFamilies -p "
        "PrivateNetwork -p NetworkNamespacePath`; open it with `systemctl edit nginx`. "
        "(4) SELinux: `setsebool -P httpd_can_network_connect on`. A container: its own DNS and routes. "
        "(5) A proxy variable in your shell may be why yours works: `env | grep -i proxy`. "
        '(6) Reload and check; or `prime = "file"`, then the server needs no way out.',
        "systemd.resource-control, IPAddressDeny; nftables, meta skuid",
    ),
    Code.SERVER_NOT_GUARDED: Entry(
        Severity.INFO,
        "The server reads the ACME client's own directory: watched, but without rollback",
        "The certificate path in force does not lead into a generation of stapleguard. It is reloaded, "
        "proved and reported on all the same.",
        "(1) To have rollback and priming, put one line in the place of `ssl_certificate` and "
        "`ssl_certificate_key` in the nginx server block: `include "
        "/var/lib/stapleguard/live/NAME/nginx.conf;`. "
        "(2) `stapleguard setup` shows this change as a diff, `stapleguard setup --write` applies it; "
        "Apache and HAProxy have apache.conf and haproxy.crtlist in the same directory. "
        "(3) To leave it as it is, do nothing.",
        "nginx core functionality, include",
    ),
    # host: this machine
    Code.HOST_CLOCK_WRONG: Entry(
        Severity.CRITICAL,
        "The clock of this host is wrong",
        "It differs by more than 5 minutes from the time that others tell, such as the Date header of "
        "HTTP answers; certificates and answers then seem expired or not yet valid.",
        "(1) `date -u` against any watch, and `timedatectl`. "
        "(2) `timedatectl set-ntp true`, or `systemctl restart chrony` (or systemd-timesyncd). "
        "(3) A virtual machine that was paused: step it with `chronyc makestep`. "
        "(4) Then `stapleguard retry`; do not reissue anything before.",
        "RFC 6960 section 4.2.2.1; RFC 5280 section 4.1.2.5",
    ),
    Code.HOST_PERMISSION: Entry(
        Severity.CRITICAL,
        "stapleguard may not read or write something that it needs",
        "The system answered EACCES, EPERM or EROFS; the evidence names path and operation.",
        "(1) Look along the path: `namei -l PATH`. "
        "(2) Run it as root, as the hook and the units do; a dry look needs `stapleguard check` only. "
        "(3) Root and refused still: the unit's sandbox (`systemctl cat 'stapleguard*'`, ReadWritePaths), "
        "a read-only mount (`findmnt -T PATH`), AppArmor or SELinux (`journalctl -k -g denied`). "
        "(4) Never widen the mode of a private key. Then `stapleguard recover` and `stapleguard retry`.",
        "POSIX.1-2024, open, ERRORS",
    ),
    Code.HOST_DISK_FULL: Entry(
        Severity.CRITICAL,
        "The disk that holds the state directory is full",
        "A write ended with ENOSPC or EDQUOT; what was begun was not published, and the old generation "
        "stands.",
        "(1) `df -h /var/lib/stapleguard` and `df -i /var/lib/stapleguard` (inodes run out too). "
        "(2) Make room: `journalctl --vacuum-size=200M`, `apt-get clean`, `du -xh --max-depth=2 / | sort "
        "-h | tail`. "
        "(3) Do not delete below /var/lib/stapleguard by hand. "
        "(4) `stapleguard recover`, then `stapleguard retry`.",
        "POSIX.1-2024, write, ERRORS",
    ),
    Code.HOST_INTERNAL: Entry(
        Severity.CRITICAL,
        "stapleguard met something that it has no word for",
        "An error within the program, or an answer of the system that it does not expect; the evidence "
        "has the details.",
        "(1) Is the site well? `stapleguard check NAME`, or `openssl s_client -connect HOST:PORT "
        "-servername NAME -status </dev/null`. "
        "(2) `stapleguard recover` finishes or undoes what was left half done. "
        "(3) `stapleguard -v retry` for more words; if it fails again, send them with `journalctl -t "
        "stapleguard -n 100` to the project as a bug.",
        "CONTRIBUTING.md",
    ),
}
