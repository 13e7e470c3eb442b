/* Echo load: sends a message on each connection, waits for the whole echo, sends again.

       cc -O2 -o load load.c && ./load PORT CONNECTIONS SIZE SECONDS
       cc -O2 -o load load.c -DTLS -lssl -lcrypto      the same over TLS, nothing verified
       cc -O2 -o load load.c -DSHORT                   a new connection for each message

   Prints round trips a second.  Where connections are short the server is who closes them, and
   that is awaited too.  A bare epoll loop, so that the server is what is measured. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static int connected(int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address)) {
        perror("connect");
        exit(1);
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
#ifdef SHORT /* the server's side would stay in TIME_WAIT, thousands of them */
    struct linger reset = {.l_onoff = 1};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
#endif
    return fd;
}

#ifdef TLS
#include <openssl/err.h>
#include <openssl/ssl.h>

static SSL *secured(int fd)
{
    static SSL_CTX *context;
    if (!context) {
        context = SSL_CTX_new(TLS_client_method());
        SSL_CTX_set_read_ahead(context, 1); /* one system call for a record, not two */
    }
    SSL *ssl = SSL_new(context);
    SSL_set_fd(ssl, fd);
    if (SSL_connect(ssl) != 1) {
        ERR_print_errors_fp(stderr);
        exit(1);
    }
    return ssl;
}

#define CONNECTION SSL *
#define open_connection(fd) secured(fd)
#define take(c, buffer, size) SSL_read(c, buffer, size)
#define give(c, buffer, size) SSL_write(c, buffer, size)
#define has_more(c) SSL_has_pending(c) /* what was read ahead, of which epoll knows nothing */
#define close_connection(c) (SSL_shutdown(c), close(SSL_get_fd(c)))
#else
#define CONNECTION int
#define open_connection(fd) (fd)
#define take(c, buffer, size) recv(c, buffer, size, 0)
#define give(c, buffer, size) send(c, buffer, size, 0)
#define has_more(c) 0
#define close_connection(c) close(c)
#endif

#ifdef SHORT
#define END 1 /* counts as a byte that is awaited */
#define is_over(got, missing) (!(got) && (missing) == END)
#else
#define END 0
#define is_over(got, missing) 0
#endif

int main(int count, char **words)
{
    if (count != 5) {
        fprintf(stderr, "usage: load PORT CONNECTIONS SIZE SECONDS\n");
        return 2;
    }
    int port = atoi(words[1]), connections = atoi(words[2]), size = atoi(words[3]);
    double seconds = atof(words[4]), start, time;
    char *message = calloc(1, size), *buffer = malloc(size + END);
    int *missing = malloc(connections * sizeof *missing), queue = epoll_create1(0), got;
    CONNECTION *all = malloc(connections * sizeof *all);
    long trips = 0;

    for (int i = 0; i < connections; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = i};
        int fd = connected(port);
        all[i] = open_connection(fd);
        missing[i] = size + END;
        epoll_ctl(queue, EPOLL_CTL_ADD, fd, &event);
    }
    start = now();
    for (int i = 0; i < connections; i++)
        give(all[i], message, size);
    while ((time = now()) < start + seconds) {
        struct epoll_event events[64];
        int ready = epoll_wait(queue, events, 64, 1000);
        for (int e = 0; e < ready; e++) {
            int i = events[e].data.u32;
            do {
                got = take(all[i], buffer, missing[i]);
                if (is_over(got, missing[i]))
                    got = END;
                if (got <= 0) {
                    perror("recv");
                    return 1;
                }
                missing[i] -= got;
            } while (missing[i] && has_more(all[i]));
            if (missing[i])
                continue;
            missing[i] = size + END;
            trips++;
#ifdef SHORT
            struct epoll_event event = {.events = EPOLLIN, .data.u32 = i};
            close(all[i]);
            all[i] = connected(port);
            epoll_ctl(queue, EPOLL_CTL_ADD, all[i], &event);
#endif
            give(all[i], message, size);
        }
    }
    printf("%f\n", trips / (time - start));
    for (int i = 0; i < connections; i++) { /* the last echoes too: an unread one is a reset */
        while (missing[i] && (got = take(all[i], buffer, missing[i])) > 0)
            missing[i] -= got;
        close_connection(all[i]);
    }
    return 0;
}
