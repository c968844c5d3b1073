/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* seen.h - the part of types.h that traffic does not need: counters, events, explanations. */
#ifndef TIDEGATE_SEEN_H
#define TIDEGATE_SEEN_H

#include "types.h"

/* What struct load has, of a service, which outlives its backends. */
struct counter {
	__u64 opened;
	__u64 flows;
	__u64 packets;
	__u64 octets;
	__u64 refusals; /* socket calls refused and packets dropped */
};

/* What becomes of a socket's call to send or connect. */
enum outcome {
	OUTCOME_FOREIGN = 0, /* no service's address: none of our business */
	OUTCOME_BACKEND = 1,
	OUTCOME_REFUSE = 2,
	OUTCOME_DROP = 3,
	OUTCOME_NO_PORT = 4, /* a cluster IP, and no port of its service */
};

/* Who asks a service, as the data path comes to know of it. */
enum asker {
	ASKER_SOCKET = 0,
	ASKER_POD = 1,     /* by packets that come in by its pod's device */
	ASKER_OUTSIDE = 2, /* by packets that come in where outside traffic enters */
};

/* What is a destination to services, and where would a connect go? Each question, and the answer in
 * the same place. */
struct question {
	struct addr source; /* that the socket will have */
	struct addr destination;
	__be16 port;
	__u8 protocol; /* IPPROTO_* */
	__u8 asker;    /* enum asker */
	__u8 found;    /* answer: 1, it is a service's; what follows in this word is of it */
	__u8 type;     /* answer: enum frontend_type */
	__u8 flags;    /* answer: enum frontend_flag */
	__u8 view;     /* answer: enum view */
	__u32 service; /* answer: its id */
	__u32 allowed; /* answer: 1, the source is in the service's ranges, or it has none */
	__u64 netns;   /* cookie of a socket's network namespace */
	__u32 outcome; /* answer for a connect: enum outcome */
	__u32 pad;
	struct peer to; /* answer for a connect, but where the address is no service's */
};

/* Whoever listens to `events` says so here, and goes on saying it. */
struct listener {
	__u64 until; /* ns of CLOCK_MONOTONIC; 0: nobody */
	__u64 every; /* one new flow or connect in so many is told; drops all are */
	__u64 lost;  /* events that found no room */
};

enum event_kind {
	EVENT_FLOW = 1,    /* a connection from outside begins */
	EVENT_CONNECT = 2, /* a socket was led to a backend */
	EVENT_DROP = 3,    /* a packet was dropped, or a socket call refused */
};

enum hook {
	HOOK_SOCKET = 1,
	HOOK_TC = 2,
	HOOK_XDP = 3,
};

/* Something that happened just now. What is not known is 0. */
struct event {
	__u64 time;  /* ns of CLOCK_MONOTONIC */
	__u64 netns; /* cookie of the socket's network namespace */
	struct addr source;
	struct addr destination; /* as the client named it */
	struct addr backend;
	__be16 source_port;
	__be16 destination_port;
	__be16 backend_port;
	__be16 port; /* of this node, towards the backend */
	__u32 service;
	__u32 id; /* of the backend; where a full queue dropped, of its limit */
	__u32 device;
	__u32 octets;  /* of the IP packet */
	__u8 kind;     /* enum event_kind */
	__u8 hook;     /* enum hook */
	__u8 protocol; /* IPPROTO_* */
	__u8 reason;   /* enum reason */
	__u8 mode;     /* enum forwarding */
	__u8 pad[3];
};

#endif
