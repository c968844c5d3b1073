/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* seen.h - the part of types.h that traffic does not need: counters, events, explanations. */
#ifndef TIDEGATE_SEEN_H
#define TIDEGATE_SEEN_H

#include "types.h"

/* Why a socket call or a packet did not get through. */
enum reason {
	REASON_NONE = 0,
	REASON_NO_BACKEND = 1,       /* refused: no usable backend anywhere */
	REASON_NO_LOCAL_BACKEND = 2, /* dropped: Local policy, none on this node */
	REASON_SOURCE_RANGE = 3,     /* dropped: the source is in none of the ranges */
	REASON_NO_MEMORY = 4,        /* refused: no room for the socket's state */
	REASON_NO_PORT = 5,          /* dropped: no port of this node is free towards the backend */
	REASON_NO_ROUTE = 6,         /* dropped: this node knows no way there */
	REASON_HOP_LIMIT = 7,        /* dropped: the packet has been through too many hops */
	REASON_REWRITE = 8,          /* dropped: the kernel did not let the packet be rewritten */
	REASON_TOO_BIG = 9,          /* dropped: longer than the way takes; the sender is told */
	REASON_NOT_SERVED = 10,      /* dropped: handed over by a node for no service known here */
	REASON_NO_SERVICE_PORT = 11, /* refused: the service at this cluster IP has no such port */
	REASON_UNALLOCATED = 12,     /* dropped: an address of a ServiceCIDR that no service has */
	REASON_ANSWER_LIMIT = 13, /* dropped in silence: more refusals a second than are answered */
	REASON_FRAGMENT = 14,     /* dropped: a fragment that came before its packet's first one */
	REASON_BANDWIDTH = 15,    /* dropped: a pod's queue at its bandwidth limit is full */
	REASON_STRANGER = 16,     /* dropped: handed over for a service by no node of the cluster */
};

struct reason_count {
	__u64 packets;
};

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
