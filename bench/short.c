/* SPDX-License-Identifier: Apache-2.0 */
/* short.c - the inner loop of bench/outside.py: short TCP connections, one after another.
 *
 *     short COUNT ADDRESS PORT
 *
 * Connects, sends a byte, awaits its echo and closes with a reset: no TIME_WAIT, since ports must
 * not run out. Prints nanoseconds of each connection, a line each. */
#include <arpa/inet.h>
#include <err.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MOST = 100000 };

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1e9 + time.tv_nsec;
}

static double connection(const struct sockaddr *to, socklen_t length)
{
	struct timeval patience = { 5, 0 };
	struct linger reset = { 1, 0 };
	double start = now();
	int yes = 1, fd = socket(to->sa_family, SOCK_STREAM, 0);
	char byte = 'x';

	if (fd < 0)
		err(1, "socket");
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
	if (connect(fd, to, length))
		err(1, "connect");
	if (write(fd, &byte, 1) != 1 || read(fd, &byte, 1) != 1)
		err(1, "no echo");
	close(fd);
	return now() - start;
}

int main(int argc, char **argv)
{
	static double found[MOST];
	struct sockaddr_in v4 = { .sin_family = AF_INET };
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6 };
	int count = argc == 4 ? atoi(argv[1]) : 0, i;
	const struct sockaddr *to = (void *)&v4;
	socklen_t length = sizeof(v4);

	if (count < 1 || count > MOST)
		errx(2, "short COUNT ADDRESS PORT");
	v4.sin_port = v6.sin6_port = htons(atoi(argv[3]));
	if (inet_pton(AF_INET, argv[2], &v4.sin_addr) != 1) {
		if (inet_pton(AF_INET6, argv[2], &v6.sin6_addr) != 1)
			errx(2, "%s is no address", argv[2]);
		to = (void *)&v6;
		length = sizeof(v6);
	}
	for (i = 0; i < count; i++)
		found[i] = connection(to, length);
	for (i = 0; i < count; i++)
		printf("%.0f\n", found[i]);
	return 0;
}
