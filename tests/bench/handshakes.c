/* The floor: full TLS handshakes that ask for a staple and look at nothing, one after the other, in C.
 *
 * It is loaded by tests/bench/cloop.py and calls OpenSSL through a table of functions: those inside the
 * binding of `cryptography`, so that it stands on the very OpenSSL that stapleguard uses, or the ones of
 * the system's libssl.
 */
#include <arpa/inet.h>
#include <dlfcn.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

/* The fields of `Table` in cloop.py, in its order. */
struct table {
    const void *(*method)(void);
    void *(*ctx_new)(const void *method);
    void (*ctx_free)(void *ctx);
    void (*ctx_set_verify)(void *ctx, int mode, void *callback);
    long (*ctx_set_session_cache_mode)(void *ctx, long mode);
    long (*ctx_set_groups)(void *ctx, char *names);
    void *(*ssl_new)(void *ctx);
    void (*ssl_free)(void *ssl);
    int (*set_fd)(void *ssl, int fd);
    void (*set_server_name)(void *ssl, char *name);
    long (*set_status_type)(void *ssl, long type);
    void (*set_connect_state)(void *ssl);
    int (*do_handshake)(void *ssl);
    long (*get_staple)(void *ssl, unsigned char **staple);
    const char *(*version)(int what);
};

enum { VERIFY_NONE = 0, CACHE_OFF = 0, STATUS_OCSP = 1, GIVE_UP_SECONDS = 5 };

/* --- the system's libssl, where most of these are macros over SSL_ctrl and SSL_CTX_ctrl ------------------ */

static long (*ssl_ctrl)(void *, int, long, void *);
static long (*ssl_ctx_ctrl)(void *, int, long, void *);

static long system_cache_mode(void *ctx, long mode) { return ssl_ctx_ctrl(ctx, 44, mode, NULL); }
static long system_groups(void *ctx, char *names) { return ssl_ctx_ctrl(ctx, 92, 0, names); }
static void system_server_name(void *ssl, char *name) { ssl_ctrl(ssl, 55, 0, name); }
static long system_status_type(void *ssl, long type) { return ssl_ctrl(ssl, 65, type, NULL); }
static long system_staple(void *ssl, unsigned char **staple) { return ssl_ctrl(ssl, 70, 0, staple); }

/* 1 when `table` was filled from libssl.so.3, 0 when there is none. */
int system_table(struct table *table)
{
    void *library = dlopen("libssl.so.3", RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        return 0;
    }
    const struct {
        const char *name;
        void *where;
    } wanted[] = {
        {"SSL_ctrl", &ssl_ctrl},
        {"SSL_CTX_ctrl", &ssl_ctx_ctrl},
        {"TLS_client_method", &table->method},
        {"SSL_CTX_new", &table->ctx_new},
        {"SSL_CTX_free", &table->ctx_free},
        {"SSL_CTX_set_verify", &table->ctx_set_verify},
        {"SSL_new", &table->ssl_new},
        {"SSL_free", &table->ssl_free},
        {"SSL_set_fd", &table->set_fd},
        {"SSL_set_connect_state", &table->set_connect_state},
        {"SSL_do_handshake", &table->do_handshake},
        {"OpenSSL_version", &table->version},
    };
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        void *found = dlsym(library, wanted[i].name);
        if (found == NULL) {
            return 0;
        }
        memcpy(wanted[i].where, &found, sizeof found);
    }
    table->ctx_set_session_cache_mode = system_cache_mode;
    table->ctx_set_groups = system_groups;
    table->set_server_name = system_server_name;
    table->set_status_type = system_status_type;
    table->get_staple = system_staple;
    return 1;
}

/* --- the loop -------------------------------------------------------------------------------------------- */

/* One context for all handshakes; `groups` NULL leaves OpenSSL's own. NULL when it refuses. */
void *context_new(const struct table *table, char *groups)
{
    void *ctx = table->ctx_new(table->method());
    if (ctx == NULL) {
        return NULL;
    }
    table->ctx_set_verify(ctx, VERIFY_NONE, NULL);
    table->ctx_set_session_cache_mode(ctx, CACHE_OFF);
    if (groups != NULL && table->ctx_set_groups(ctx, groups) != 1) {
        table->ctx_free(ctx);
        return NULL;
    }
    return ctx;
}

static int connected(const struct sockaddr_in *to)
{
    const struct timeval limit = {.tv_sec = GIVE_UP_SECONDS};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return -1;
    }
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    if (connect(fd, (const struct sockaddr *)to, sizeof *to) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

/* The length of the staple; 0 when there was none, -1 when there was no handshake. */
static long handshake(const struct table *table, void *ctx, int fd, char *name)
{
    long length = -1;
    unsigned char *staple = NULL;
    void *ssl = table->ssl_new(ctx);
    if (ssl == NULL) {
        return -1;
    }
    table->set_fd(ssl, fd);
    table->set_server_name(ssl, name);
    table->set_status_type(ssl, STATUS_OCSP);
    table->set_connect_state(ssl);
    if (table->do_handshake(ssl) == 1) {
        length = table->get_staple(ssl, &staple);
        length = length > 0 ? length : 0;
    }
    table->ssl_free(ssl);
    return length;
}

/* Make `count` handshakes; how many of them brought a staple. */
int handshakes(const struct table *table, void *ctx, const char *address, int port, char *name, int count)
{
    int good = 0;
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
    if (inet_pton(AF_INET, address, &to.sin_addr) != 1) {
        return 0;
    }
    for (int i = 0; i < count; i++) {
        int fd = connected(&to);
        if (fd < 0) {
            continue;
        }
        good += handshake(table, ctx, fd, name) > 0;
        close(fd);
    }
    return good;
}
