/* Echo load: sends a message on each connection, waits for the whole echo, sends again.

       cc -O2 -o load load.c && ./load PORT CONNECTIONS SIZE SECONDS

   Prints round trips a second.  A bare epoll loop, so that the server is what is measured. */

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
    return fd;
}

int main(int count, char **words)
{
    if (count != 5) {
        fprintf(stderr, "usage: load PORT CONNECTIONS SIZE SECONDS\n");
        return 2;
    }
    int port = atoi(words[1]), connections = atoi(words[2]), size = atoi(words[3]);
    double seconds = atof(words[4]), start, time;
    char *message = calloc(1, size), *buffer = malloc(size);
    int *fds = malloc(connections * sizeof *fds), *missing = malloc(connections * sizeof *missing);
    int queue = epoll_create1(0);
    long trips = 0;

    for (int i = 0; i < connections; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = i};
        fds[i] = connected(port);
        missing[i] = size;
        epoll_ctl(queue, EPOLL_CTL_ADD, fds[i], &event);
    }
    start = now();
    for (int i = 0; i < connections; i++)
        send(fds[i], message, size, 0);
    while ((time = now()) < start + seconds) {
        struct epoll_event events[64];
        int ready = epoll_wait(queue, events, 64, 1000);
        for (int e = 0; e < ready; e++) {
            int i = events[e].data.u32, got = recv(fds[i], buffer, missing[i], 0);
            if (got <= 0) {
                perror("recv");
                return 1;
            }
            if (missing[i] -= got)
                continue;
            missing[i] = size;
            trips++;
            send(fds[i], message, size, 0);
        }
    }
    printf("%f\n", trips / (time - start));
    for (int i = 0; i < connections; i++) { /* the last echoes too: an unread one is a reset */
        recv(fds[i], buffer, missing[i], MSG_WAITALL);
        close(fds[i]);
    }
    return 0;
}
