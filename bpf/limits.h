/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* limits.h - the layouts of pods' bandwidth limits: a part of types.h, which includes it. */
#ifndef TIDEGATE_LIMITS_H
#define TIDEGATE_LIMITS_H

#include "types.h"

enum edt {
	EDT_TICKS = 64,        /* of a limit's clocks, in a nanosecond */
	EDT_ROWS = 4,          /* places of a flow, each by bits of its hash of their own */
	EDT_FLOWS = 64,        /* places in a row */
	EDT_SEEN = 256,        /* flows that are counted apart, by hash */
	EDT_LANE = 4,          /* all that overtake get 1/n of the rate */
	EDT_FRAME = 1600,      /* octets; larger packets are several in one, and never overtake */
	EDT_DEBT = 1000000000, /* ns; what a flow used too much is forgotten after that */
	EDT_LEVELS = 10,       /* of cgroups below which a pod's lie */
	EDT_CGROUP = 0xff,     /* begins the key of a cgroup, which is no source address */
	EDT_HORIZON = 2000000000, /* ns; no packet waits longer */
};

/* Why a limit is in force, or not; for people only. */
enum limit_state {
	LIMIT_FREE = 0, /* the entry belongs to no pod */
	LIMIT_ENFORCED = 1,
	LIMIT_NO_FQ = 2,        /* the kernel has no fq */
	LIMIT_HOST_NETWORK = 3, /* the pod sends from the node's own addresses */
	LIMIT_NO_DEVICE = 4,    /* no device carries the programs, or not all of them */
	LIMIT_NO_ADDRESS = 5,   /* the pod has no address yet */
	LIMIT_NOT_HELD = 6,     /* measured: the queues do not look at departure times */
};

/* One direction of one pod. In entry 0, which is nobody's, `state` says whether any pod is found
 * by its cgroup. The agent writes the first four words, and zeroes the clocks when
 * the rate changes; all else is the data path's. Clocks are ticks of CLOCK_MONOTONIC. */
struct limit {
	__u64 rate;    /* bytes of frames a second; 0: none */
	__u64 longest; /* ns that a packet may have to wait */
	__u64 mark;    /* ns of waiting from which on a packet is marked (ECN) */
	__u64 state;   /* enum limit_state */
	__u64 clock;   /* when all that was let through will have left */
	__u64 quick;   /* when all that overtook will have left, at 1/EDT_LANE of the rate */
	__u64 epoch;   /* low half: number of the present one; high half: flows seen in it */
	__u64 flows;   /* that were seen in the epoch before */
	/* Let through: octets of frames, with the headers of each segment; ns, of all together. */
	__u64 packets, octets, waited, delayed, delayed_octets, overtook, marked;
	__u64 dropped, dropped_octets;
	__u64 named;     /* octets that came from the pod */
	__u64 flow[256]; /* rows of when a flow may overtake again */
	__u16 seen[256]; /* epoch in which the flow last sent */
};

/* The limits of an address of a pod, by number in `limits`; 0: none. A pod on the host's network
 * has its cgroup's id there: EDT_CGROUP, 0, id. */
struct pod_limits {
	__u32 egress, ingress;
};

#endif
