/* The limit: an echo server that knows nothing but this, a bare epoll loop.

       cc -O2 -o limit limit.c && ./limit echo|once          once: closes after one message

   Prints its port, then echoes until it is killed. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <unistd.h>

static char buffer[65536];

int main(int count, char **words)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t length = sizeof address;
    int once = count > 1 && words[1][0] == 'o' && words[1][1] == 'n', one = 1;
    int listener = socket(AF_INET, SOCK_STREAM, 0), queue = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, events[64];
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 128) ||
        getsockname(listener, (struct sockaddr *)&address, &length) ||
        epoll_ctl(queue, EPOLL_CTL_ADD, listener, &event)) {
        perror("limit");
        return 1;
    }
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    for (;;) {
        int ready = epoll_wait(queue, events, 64, -1);
        for (int e = 0; e < ready; e++) {
            int fd = events[e].data.fd;
            ssize_t got;
            if (fd == listener) {
                event.data.fd = accept(listener, NULL, NULL);
                setsockopt(event.data.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                epoll_ctl(queue, EPOLL_CTL_ADD, event.data.fd, &event);
            } else if ((got = recv(fd, buffer, sizeof buffer, 0)) <= 0 ||
                       send(fd, buffer, got, MSG_NOSIGNAL) < got || once) {
                close(fd);
            }
        }
    }
}
