/* SPDX-License-Identifier: Apache-2.0 */
/* serve.c - what bench/connect.c talks to, in both families: `serve PORT`.
 * PORT: TCP, accepts and closes; UDP, takes and never reads. PORT + 1: TCP and UDP, echoes. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

static int bound(int type, int port)
{
	struct sockaddr_in6 any = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
	int yes = 1, fd = socket(AF_INET6, type, 0);

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
	if (fd < 0 || bind(fd, (void *)&any, sizeof(any)))
		err(1, "port %d", port);
	if (type == SOCK_STREAM && listen(fd, 4096))
		err(1, "listen");
	return fd;
}

static void echo(int fd)
{
	char byte;

	while (read(fd, &byte, 1) == 1 && write(fd, &byte, 1) == 1)
		;
	close(fd);
}

static void accept_all(int fd, void (*then)(int))
{
	int yes = 1, one;

	for (;;) {
		one = accept(fd, NULL, NULL);
		if (one < 0)
			continue;
		setsockopt(one, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
		then(one);
	}
}

static void close_it(int fd)
{
	close(fd);
}

static void answer_all(int fd)
{
	struct sockaddr_in6 from;
	socklen_t size;
	char byte;

	for (;;) {
		size = sizeof(from);
		if (recvfrom(fd, &byte, 1, 0, (void *)&from, &size) == 1)
			sendto(fd, &byte, 1, 0, (void *)&from, size);
	}
}

int main(int argc, char **argv)
{
	int port = argc > 1 ? atoi(argv[1]) : 0;
	int closing = bound(SOCK_STREAM, port), echoing = bound(SOCK_STREAM, port + 1);
	int answering = bound(SOCK_DGRAM, port + 1), one;

	signal(SIGPIPE, SIG_IGN);
	bound(SOCK_DGRAM, port);
	for (one = 0; one < 2; one++) {
		if (fork())
			continue;
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (one)
			accept_all(echoing, echo);
		answer_all(answering);
	}
	/* Beside connects, not in the middle of them. */
	sched_setscheduler(0, SCHED_BATCH, &(struct sched_param){ 0 });
	accept_all(closing, close_it);
}
