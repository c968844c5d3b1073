/* SPDX-License-Identifier: Apache-2.0 */
/* connect.c - the inner loop of bench/connect.py: times system calls, alternating between cases.
 *
 *     connect ROUNDS CGROUP,KIND,ADDRESS,PORT,COUNT...
 *
 * Prints a line a round: nanoseconds per operation of each case, in the order given. A socket
 * belongs to the cgroup its maker is in, so a case with hooks and one without stand side by side.
 * tcp, udp: connect, then (tcp-close, udp-close) with the close after it. send: sendto on one unconnected UDP socket. stream: round trips on
 * an established TCP connection; datagram: on a connected UDP socket; letter: on an unconnected one. */
#include <arpa/inet.h>
#include <err.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { CASES = 128, SOCKETS = 512 };

struct scenario {
	char *cgroup, *kind;
	struct sockaddr_storage to;
	socklen_t length;
	int count;
	double result;
};

static struct scenario scenarios[CASES];

static void parse(char *text, struct scenario *one)
{
	struct sockaddr_in *v4 = (void *)&one->to;
	struct sockaddr_in6 *v6 = (void *)&one->to;
	char *address, *port;

	one->cgroup = strsep(&text, ",");
	one->kind = strsep(&text, ",");
	address = strsep(&text, ",");
	port = strsep(&text, ",");
	if (!text)
		errx(2, "a case is CGROUP,KIND,ADDRESS,PORT,COUNT");
	one->count = atoi(text);
	if (one->count < 1 || one->count > SOCKETS * 100)
		errx(2, "count %d", one->count);
	if (inet_pton(AF_INET, address, &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET;
		v4->sin_port = htons(atoi(port));
		one->length = sizeof(*v4);
	} else if (inet_pton(AF_INET6, address, &v6->sin6_addr) == 1) {
		v6->sin6_family = AF_INET6;
		v6->sin6_port = htons(atoi(port));
		one->length = sizeof(*v6);
	} else {
		errx(2, "%s is no address", address);
	}
}

static void enter(const char *cgroup)
{
	static const char *present;
	char path[4096];
	int file;

	if (present && !strcmp(present, cgroup))
		return;
	snprintf(path, sizeof(path), "%s/cgroup.procs", cgroup);
	file = open(path, O_WRONLY);
	if (file < 0 || write(file, "0", 1) != 1)
		err(1, "%s", path);
	close(file);
	present = cgroup;
}

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1e9 + time.tv_nsec;
}

static int open_socket(const struct scenario *one, int type)
{
	struct linger reset = { 1, 0 };	/* no TIME_WAIT: ports must not run out */
	int yes = 1, fd = socket(one->to.ss_family, type, 0);

	if (fd < 0)
		err(1, "socket");
	if (type == SOCK_STREAM) {
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
	}
	return fd;
}

static void connect_it(int fd, const struct scenario *one)
{
	if (connect(fd, (const void *)&one->to, one->length))
		err(1, "connect for %s", one->kind);
}

static double connects(const struct scenario *one, int type, int closed)
{
	static int sockets[SOCKETS];
	double start;

	if (one->count > SOCKETS)
		errx(2, "at most %d", SOCKETS);
	for (int i = 0; i < one->count; i++)
		sockets[i] = open_socket(one, type);
	start = now();
	for (int i = 0; i < one->count; i++)
		connect_it(sockets[i], one);
	if (!closed)
		start = now() - start;
	for (int i = 0; i < one->count; i++)
		close(sockets[i]);
	return closed ? now() - start : start;
}

static double sends(const struct scenario *one)
{
	int fd = open_socket(one, SOCK_DGRAM);
	double start = 0;

	for (int i = -1; i < one->count; i++) {	/* the first one chooses; it is not timed */
		if (!i)
			start = now();
		if (sendto(fd, "x", 1, 0, (const void *)&one->to, one->length) != 1)
			err(1, "sendto");
	}
	start = now() - start;
	close(fd);
	return start;
}

static double round_trips(const struct scenario *one, int type, int named)
{
	const struct sockaddr *to = named ? (const void *)&one->to : NULL;
	socklen_t length = named ? one->length : 0;
	struct timeval patience = { 5, 0 };
	struct sockaddr_storage from;
	double start = 0;
	char byte;
	int fd = open_socket(one, type);

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	if (!named)
		connect_it(fd, one);
	for (int i = -1; i < one->count; i++) {
		socklen_t size = sizeof(from);

		if (!i)
			start = now();
		if (sendto(fd, "x", 1, 0, to, length) != 1)
			err(1, "send");
		if (recvfrom(fd, &byte, 1, 0, named ? (void *)&from : NULL, named ? &size : NULL) != 1)
			err(1, "no echo for %s", one->kind);
	}
	start = now() - start;
	close(fd);
	return start;
}

static double measure(const struct scenario *one)
{
	if (!strcmp(one->kind, "tcp"))
		return connects(one, SOCK_STREAM, 0);
	if (!strcmp(one->kind, "udp"))
		return connects(one, SOCK_DGRAM, 0);
	if (!strcmp(one->kind, "tcp-close"))
		return connects(one, SOCK_STREAM, 1);
	if (!strcmp(one->kind, "udp-close"))
		return connects(one, SOCK_DGRAM, 1);
	if (!strcmp(one->kind, "send"))
		return sends(one);
	if (!strcmp(one->kind, "stream"))
		return round_trips(one, SOCK_STREAM, 0);
	if (!strcmp(one->kind, "datagram"))
		return round_trips(one, SOCK_DGRAM, 0);
	if (!strcmp(one->kind, "letter"))
		return round_trips(one, SOCK_DGRAM, 1);
	errx(2, "kind %s", one->kind);
}

int main(int argc, char **argv)
{
	int rounds = argc > 2 ? atoi(argv[1]) : 0, cases = argc - 2;

	if (rounds < 1 || cases > CASES)
		errx(2, "connect ROUNDS CASE...");
	for (int i = 0; i < cases; i++)
		parse(argv[i + 2], &scenarios[i]);
	for (int n = -1; n < rounds; n++) {	/* the first round warms up */
		for (int i = 0; i < cases; i++) {
			struct scenario *one = &scenarios[n & 1 ? cases - 1 - i : i];

			enter(one->cgroup);
			one->result = measure(one) / one->count;
			if (one->kind[0] == 't')
				usleep(1500);	/* the server takes what is left in its backlog */
		}
		if (n < 0)
			continue;
		for (int i = 0; i < cases; i++)
			printf("%.1f%c", scenarios[i].result, i + 1 < cases ? ' ' : '\n');
	}
	return 0;
}
