/* The load: a bare epoll loop, so that the server is what is measured.

       cc -O2 -o load load.c && ./load echo|short|pour|drain PORT CONNECTIONS ACTIVE SIZE
       cc -O2 -o load load.c -DTLS -lssl -lcrypto         the same over TLS, nothing verified

   Connects, says "ready", and for each number on stdin works for so many seconds and prints
   what it did and in what time.
     echo   sends a message on each active connection, waits for the whole echo, sends again;
            the other connections have echoed one message, and idle
     short  the same with a new connection for each message, which the server closes
     pour   sends SIZE bytes, in lines of 128, and waits for a byte in answer
     drain  sends a byte, and waits for SIZE bytes in answer */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

enum { PIECE = 262144, LINE = 128 };

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static int connected(int port, int short_lived)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address))
        fail("connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (short_lived) { /* the server's side would stay in TIME_WAIT, thousands of them */
        struct linger reset = {.l_onoff = 1};
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    }
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

static void parted(SSL *ssl)
{
    int fd = SSL_get_fd(ssl);
    SSL_free(ssl);
    close(fd);
}

#define CONNECTION SSL *
#define open_connection(fd) secured(fd)
#define take(c, buffer, size) SSL_read(c, buffer, size)
#define give(c, buffer, size) SSL_write(c, buffer, size)
#define has_more(c) SSL_has_pending(c) /* what was read ahead, of which epoll knows nothing */
#define close_connection(c) parted(c)
#define descriptor(c) SSL_get_fd(c)
#else
#define CONNECTION int
#define open_connection(fd) (fd)
#define take(c, buffer, size) recv(c, buffer, size, 0)
#define give(c, buffer, size) send(c, buffer, size, MSG_NOSIGNAL)
#define has_more(c) 0
#define close_connection(c) close(c)
#define descriptor(c) (c)
#endif

static int port, connections, active, size, queue;
static CONNECTION *all;
static int *missing;
static char *message, *buffer;

static void say(int i)
{
    missing[i] = size;
    if (give(all[i], message, size) != size)
        fail("send");
}

static void begin(int i, int short_lived)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = i};
    all[i] = open_connection(connected(port, short_lived));
    if (i < active && epoll_ctl(queue, EPOLL_CTL_ADD, descriptor(all[i]), &event))
        fail("epoll_ctl");
}

/* Whether the whole echo is there, or 0 if more is to come. */
static int heard(int i)
{
    do {
        int got = take(all[i], buffer, missing[i]);
        if (got <= 0)
            fail("recv");
        missing[i] -= got;
    } while (missing[i] && has_more(all[i]));
    return !missing[i];
}

/* The same, where the end of the connection is awaited too. */
static int ended(int i)
{
    do {
        int got = take(all[i], buffer, size);
        if (got <= 0)
            return 1;
    } while (has_more(all[i]));
    return 0;
}

static long trips(double end, int short_lived)
{
    long done = 0;
    int under_way = active;
    for (int i = 0; i < active; i++) {
        if (short_lived)
            begin(i, 1);
        say(i);
    }
    while (under_way) {
        struct epoll_event events[64];
        int ready = epoll_wait(queue, events, 64, 10000);
        if (ready <= 0)
            fail("epoll_wait, ten seconds long");
        for (int e = 0; e < ready; e++) {
            int i = events[e].data.u32, go_on = now() < end;
            if (!(short_lived ? ended(i) : heard(i)))
                continue;
            done++;
            if (short_lived)
                close_connection(all[i]);
            if (short_lived && go_on)
                begin(i, 1);
            if (go_on)
                say(i);
            else
                under_way--;
        }
    }
    return done;
}

static long bulk(double end, int pour)
{
    long done = 0;
    do {
        for (int left = pour ? size : 1; left > 0; left -= PIECE) {
            int piece = left < PIECE ? left : PIECE;
            if (give(all[0], message, piece) != piece)
                fail("send");
        }
        for (int left = pour ? 1 : size; left > 0;) {
            int got = take(all[0], buffer, left < PIECE ? left : PIECE);
            if (got <= 0)
                fail("recv");
            left -= got;
        }
        done += size;
    } while (now() < end);
    return done;
}

int main(int count, char **words)
{
    if (count != 6) {
        fprintf(stderr, "usage: load echo|short|pour|drain PORT CONNECTIONS ACTIVE SIZE\n");
        return 2;
    }
    char mode = words[1][0];
    double seconds;
    port = atoi(words[2]), connections = atoi(words[3]), active = atoi(words[4]);
    size = atoi(words[5]), queue = epoll_create1(0);
    all = calloc(connections, sizeof *all), missing = calloc(connections, sizeof *missing);
    message = malloc(size + PIECE), buffer = malloc(size + PIECE);
    for (int i = 0; i < size + PIECE; i++)
        message[i] = i % LINE == LINE - 1 ? '\n' : 'x';

    for (int i = 0; mode != 's' && i < connections; i++) {
        begin(i, 0);
        if (mode == 'e') { /* one after the other: no queue of a listener is too short */
            say(i);
            while (!heard(i))
                ;
        }
    }
    printf("ready\n");
    fflush(stdout);
    while (scanf("%lf", &seconds) == 1) {
        double start = now(), end = start + seconds;
        long done = mode == 'e' || mode == 's' ? trips(end, mode == 's') : bulk(end, mode == 'p');
        printf("%ld %f\n", done, now() - start);
        fflush(stdout);
    }
    return 0;
}
