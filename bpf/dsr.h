/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* dsr.h - which backend elsewhere has a connection whose answers do not come by here.
 * A set-associative memory of 32 bytes a flow; the oldest of a row gives way, to come back by the
 * Maglev table. Reads and writes: dsr_flows. Reads: backends. */
#ifndef TIDEGATE_DSR_H
#define TIDEGATE_DSR_H

#include "flow.h"

static __always_inline __u32 dsr_now(void)
{
	return bpf_ktime_get_coarse_ns() >> 30;
}

static __always_inline __u64 dsr_hash(const struct pkt *pkt)
{
	__u64 hash =
		mix(pkt->protocol, (__u64)pkt->ends.source_port << 16 | pkt->ends.destination_port);

	return mix_address(mix_address(hash, &pkt->ends.source), &pkt->ends.destination);
}

/* Never 0. */
static __always_inline __u16 dsr_tag(__u64 hash, __u32 backend)
{
	return (hash >> 48 ^ backend ^ backend >> 16) | 1;
}

static __always_inline struct dsr_row *dsr_row_of(__u64 hash)
{
	__u32 index = ((hash & 0xffffffff) * MAX_dsr_flows) >> 32;

	return dsr_flows.lookup(&index);
}

/* Does the flow go on with its backend? As `goes_on` has it. */
static __always_inline bool dsr_goes_on(const struct dsr_flow *flow, const struct pkt *pkt,
					const struct backend *backend, __u32 service)
{
	if (backend->generation != flow->generation || backend->service != service)
		return false;
	if (pkt->protocol == IPPROTO_TCP && !(pkt->tcp & TCP_SYN))
		return true;
	return backend->state != BACKEND_FREE;
}

/* The remembered backend's id; 0: none, or it may have no more of this. */
static __always_inline __u32 dsr_recall(struct dsr_row *row, const struct pkt *pkt, __u64 hash,
					__u32 service)
{
	for (__u32 i = 0; i < DSR_WAYS; i++) {
		struct dsr_flow *flow = &row->flow[i];
		__u32 id = flow->backend;
		struct backend *backend;

		if (flow->tag != dsr_tag(hash, id) || flow->port != pkt->ends.source_port ||
		    !same_address(&flow->client, &pkt->ends.source))
			continue;
		backend = backends.lookup(&id);
		if (!backend || !dsr_goes_on(flow, pkt, backend, service)) {
			flow->tag = 0;
			return 0;
		}
		/* A connection that ends is the first to give way. */
		flow->used = pkt->tcp & (TCP_FIN | TCP_RST) ? 0 : dsr_now();
		return id;
	}
	return 0;
}

static __always_inline void dsr_remember(struct dsr_row *row, const struct pkt *pkt, __u64 hash,
					 const struct backend *backend, __u32 id)
{
	struct dsr_flow *flow = &row->flow[0];
	__u32 oldest = ~0;

	for (__u32 i = 0; i < DSR_WAYS; i++) {
		__u32 used = row->flow[i].tag ? row->flow[i].used : 0;

		if (used < oldest) {
			oldest = used;
			flow = &row->flow[i];
		}
	}
	flow->tag = 0;
	barrier();
	flow->client = pkt->ends.source;
	flow->port = pkt->ends.source_port;
	flow->backend = id;
	flow->generation = backend->generation;
	flow->used = dsr_now();
	barrier();
	flow->tag = dsr_tag(hash, id);
}

#endif
