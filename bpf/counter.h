/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* counter.h - counts what services and their backends carry. Nothing per packet: a flow counts its
 * own, and what it counted moves here once, when its place in `flows` is given to another. Whoever
 * reads adds the flows that are still there. Writes: loads, counters. */
#ifndef TIDEGATE_COUNTER_H
#define TIDEGATE_COUNTER_H

#include "service.h"

/* bench/see.py measures without. */
#ifndef COUNTING
#define COUNTING true
#endif

static __always_inline struct counter *counter_of(__u32 service)
{
	return counters.lookup(&service);
}

static __always_inline struct load *load_of(__u32 backend)
{
	return loads.lookup(&backend);
}

/* A packet was dropped, or a socket call refused, of a known service. */
static __always_inline void count_refusal(__u32 service)
{
	struct counter *counter = counter_of(service);

	if (COUNTING && counter && service)
		counter->refusals++;
}

/* A socket was led to a backend of the service. */
static __always_inline void count_socket(__u32 service)
{
	struct counter *counter = counter_of(service);

	if (COUNTING && counter)
		counter->opened++;
}

/* A flow begins. `backend` 0: another node chose it, and counts it. */
static __always_inline void count_begun(__u32 service, __u32 backend)
{
	struct counter *counter = counter_of(service);
	struct load *load = load_of(backend);

	if (!COUNTING)
		return;
	if (counter)
		counter->flows++;
	if (load && backend)
		lock_xadd(&load->flows, 1);
}

/* A flow's place goes to another: what it counted is kept. An id that belongs to another backend
 * by now gets nothing of it. */
static __always_inline void retire(const struct flow *flow)
{
	struct counter *counter;
	struct backend *backend;
	__u32 id = flow->id;
	struct load *load;

	if (!COUNTING || !flow->packets)
		return;
	counter = counter_of(flow->service);
	if (counter) {
		counter->packets += flow->packets;
		counter->octets += flow->octets;
	}
	backend = backends.lookup(&id);
	load = load_of(id);
	if (load && id && backend && backend->generation == flow->generation) {
		lock_xadd(&load->packets, flow->packets);
		lock_xadd(&load->octets, flow->octets);
	}
}

#endif
