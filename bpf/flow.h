/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* flow.h - the memory of connections from outside: found by what the client sends, and by what
 * comes back. One entry a flow, so there is never half a pair.
 *
 * A client hashes to a row. A flow through a port of this node lies in the row of that very
 * port, which makes the port a way to find it; so a row may serve as many flows at once as it
 * has ways, if they lead to different backends. A row that has to send a flow on to the next is
 * crowded, and look-ups follow. Reads and writes: flows. */
#ifndef TIDEGATE_FLOW_H
#define TIDEGATE_FLOW_H

#include "counter.h"
#include "packet.h"

#define ROW_MASK (SNAT_PORTS - 1)
#define ROW_TRIES 7
/* Once more than there are rows to try: then the oldest of the first has to go. */
#define FLOW_TRIES (ROW_TRIES + 1)

static __always_inline __u64 mix(__u64 hash, __u64 value)
{
	hash = (hash ^ value) * 0x9e3779b97f4a7c15ULL;
	return hash ^ (hash >> 32);
}

static __always_inline __u64 mix_address(__u64 hash, const struct addr *address)
{
	hash = mix(hash, (__u64)address->word[0] << 32 | address->word[1]);
	return mix(hash, (__u64)address->word[2] << 32 | address->word[3]);
}

/* Where a client's flows are: `row_at` says it for each try. */
static __always_inline __u32 walk_of(const struct addr *client, __be16 port, __u8 protocol)
{
	return mix_address(mix(protocol, port), client) >> 16;
}

/* Each client goes its own way through the rows, or the first tries of all would pile up. */
static __always_inline __u32 row_at(__u32 walk, __u32 try)
{
	return (walk + try * ((walk >> 16) | 1)) & ROW_MASK;
}

/* Never 0. */
static __always_inline __u32 tag_of(const struct ends *ends, __u8 protocol)
{
	__u64 hash = mix(protocol, (__u64)ends->source_port << 16 | ends->destination_port);

	hash = mix_address(mix_address(hash, &ends->source), &ends->destination);
	return (__u32)hash | 1;
}

static __always_inline bool is_forth(const struct flow *flow, const struct pkt *pkt)
{
	return flow->state != FLOW_FREE && flow->client_port == pkt->ends.source_port &&
	       flow->frontend_port == pkt->ends.destination_port &&
	       flow->protocol == pkt->protocol && same_address(&flow->client, &pkt->ends.source) &&
	       same_address(&flow->frontend, &pkt->ends.destination);
}

static __always_inline bool is_back(const struct flow *flow, const struct pkt *pkt)
{
	if (flow->state == FLOW_FREE || flow->backend_port != pkt->ends.source_port ||
	    flow->protocol != pkt->protocol || !same_address(&flow->backend, &pkt->ends.source))
		return false;
	if (flow->port)
		return flow->port == pkt->ends.destination_port;
	return flow->client_port == pkt->ends.destination_port &&
	       same_address(&flow->client, &pkt->ends.destination);
}

/* The flow of a packet that a client sent; NULL: none. */
static __always_inline struct flow *find_forth(const struct pkt *pkt)
{
	__u32 walk = walk_of(&pkt->ends.source, pkt->ends.source_port, pkt->protocol);
	__u32 tag = tag_of(&pkt->ends, pkt->protocol);

	for (__u32 try = 0; try < ROW_TRIES; try++) {
		__u32 index = row_at(walk, try);
		struct row *row = flows.lookup(&index);

		if (!row)
			return NULL;
		for (__u32 i = 0; i < ROW_WAYS; i++)
			if (row->forth[i] == tag && is_forth(&row->flow[i], pkt))
				return &row->flow[i];
		if (!row->crowded)
			return NULL;
	}
	return NULL;
}

static __always_inline struct flow *back_in_row(struct row *row, const struct pkt *pkt, __u32 tag)
{
	for (__u32 i = 0; i < ROW_WAYS; i++)
		if (row->back[i] == tag && is_back(&row->flow[i], pkt))
			return &row->flow[i];
	return NULL;
}

/* The flow behind a port of this node that a packet came back to; NULL: none. */
static __always_inline struct flow *find_back_by_port(const struct pkt *pkt)
{
	__u32 index = bpf_ntohs(pkt->ends.destination_port) - SNAT_FIRST_PORT;
	struct row *row;

	if (index >= SNAT_PORTS)
		return NULL;
	row = flows.lookup(&index);
	return row ? back_in_row(row, pkt, tag_of(&pkt->ends, pkt->protocol)) : NULL;
}

/* The flow whose client is answered at its own address; NULL: none. */
static __always_inline struct flow *find_back_by_client(const struct pkt *pkt)
{
	__u32 walk = walk_of(&pkt->ends.destination, pkt->ends.destination_port, pkt->protocol);
	__u32 tag = tag_of(&pkt->ends, pkt->protocol);

	for (__u32 try = 0; try < ROW_TRIES; try++) {
		__u32 index = row_at(walk, try);
		struct row *row = flows.lookup(&index);
		struct flow *flow;

		if (!row)
			return NULL;
		flow = back_in_row(row, pkt, tag);
		if (flow || !row->crowded)
			return flow;
	}
	return NULL;
}

/* A pod goes straight to a backend, from a port that it had for a service before: the answers are
 * the backend's own again. A TCP connection says so as it begins. */
static __always_inline void forget_straight(const struct pkt *pkt)
{
	struct pkt answer = {};
	struct flow *flow;

	if (pkt->protocol == IPPROTO_TCP && !(pkt->tcp & TCP_SYN))
		return;
	answer.ends.source = pkt->ends.destination;
	answer.ends.destination = pkt->ends.source;
	answer.ends.source_port = pkt->ends.destination_port;
	answer.ends.destination_port = pkt->ends.source_port;
	answer.protocol = pkt->protocol;
	flow = find_back_by_client(&answer);
	if (flow)
		flow->state = FLOW_FREE;
}

/* Which end of a flow sent a packet, as `touch` counts them. */
enum side {
	SIDE_CLIENT = FACT_CLIENT_FIN,
	SIDE_BACKEND = FACT_BACKEND_FIN,
};

static __always_inline bool is_over(const struct flow *flow, __u64 now)
{
	__u64 seconds = flow->protocol == IPPROTO_TCP ? TIMEOUT_TCP : TIMEOUT_UDP;

	if (flow->state == FLOW_NEW)
		seconds = TIMEOUT_NEW;
	if (flow->state == FLOW_CLOSING)
		seconds = TIMEOUT_CLOSING;
	/* Signed: another CPU may have touched it after `now` was read. */
	return flow->state == FLOW_FREE ||
	       (__s64)(now - flow->used) > (__s64)(seconds * NSEC_PER_SEC);
}

/* Does a packet make a new flow one that both ends want? A SYN-ACK does not: who asks in another's
 * name has it sent to that other, who does not take it up (RFC 4987). */
static __always_inline void take_up(struct flow *flow, const struct pkt *pkt, __u8 side)
{
	bool all = flow->protocol != IPPROTO_TCP || (side == SIDE_CLIENT && !(pkt->tcp & TCP_SYN));

	if (side == SIDE_BACKEND)
		flow->facts |= FACT_ANSWER;
	if (all && flow->facts & FACT_ANSWER)
		flow->state = FLOW_ESTABLISHED;
}

/* A packet of the flow went by, from this side. */
static __always_inline void touch(struct flow *flow, const struct pkt *pkt, __u8 side)
{
	flow->used = bpf_ktime_get_ns();
	flow->packets++;
	flow->octets += pkt->octets;
	if (pkt->tcp & TCP_FIN)
		flow->facts |= side;
	if (pkt->tcp & TCP_RST || (flow->facts & FACT_FINS) == FACT_FINS)
		flow->state = FLOW_CLOSING;
	else if (flow->state == FLOW_NEW)
		take_up(flow, pkt, side);
}

/* One program at a time puts flows into a row; packets of one client rarely meet here. */
static __always_inline bool lock(struct row *row)
{
	for (int i = 0; i < 16; i++)
		if (!__sync_val_compare_and_swap(&row->lock, 0, 1))
			return true;
	return false;
}

static __always_inline void unlock(struct row *row)
{
	__sync_val_compare_and_swap(&row->lock, 1, 0);
}

/* Which of a row's ways a new flow may have: a free one, else one that is over, else (`force`)
 * the one silent for longest, a new one rather than one that both ends took up. ROW_WAYS: none, or
 * its answers would be taken for another's. Where only the client's own port tells them apart, that
 * client's newer flow counts; a port of this node goes to the same connection anew (by its tag:
 * cheap, and wrong once in 2^32), or when all else failed is taken from one that is closing, or
 * that nobody took up yet. */
static __always_inline __u32 room_for(struct row *row, __u32 forth, __u32 back, __be16 port,
				      __u64 now, bool force)
{
	__u32 place = ROW_WAYS;
	__u64 oldest = ~0ULL;

	for (__u32 i = 0; i < ROW_WAYS; i++) {
		struct flow *there = &row->flow[i];
		bool over = is_over(there, now);
		/* Without a branch, of which the verifier follows both ways: 1 and 3, but not 2. */
		__u64 used = there->used | (__u64)(~there->state & 1) << 63;

		if (row->back[i] == back && !over) {
			if (!port || row->forth[i] == forth)
				return i;
			return force && there->state != FLOW_ESTABLISHED ? i : ROW_WAYS;
		}
		if (over && oldest) {
			oldest = 0;
			place = i;
		} else if (force && used < oldest) {
			oldest = used;
			place = i;
		}
	}
	return place;
}

/* Has this node a socket of its own that the answers would reach? */
static __always_inline bool is_taken(struct packet_ctx *ctx, const struct ends *back, __u8 protocol,
				     bool v4)
{
	struct bpf_sock_tuple tuple = {};
	struct bpf_sock *sk;
	__u32 size = sizeof(tuple.ipv6);

	if (v4) {
		tuple.ipv4.saddr = back->source.word[3];
		tuple.ipv4.daddr = back->destination.word[3];
		tuple.ipv4.sport = back->source_port;
		tuple.ipv4.dport = back->destination_port;
		size = sizeof(tuple.ipv4);
	} else {
		__builtin_memcpy(tuple.ipv6.saddr, &back->source, sizeof(back->source));
		__builtin_memcpy(tuple.ipv6.daddr, &back->destination, sizeof(back->source));
		tuple.ipv6.sport = back->source_port;
		tuple.ipv6.dport = back->destination_port;
	}
	if (protocol == IPPROTO_TCP)
		sk = bpf_sk_lookup_tcp(ctx, &tuple, size, BPF_F_CURRENT_NETNS, 0);
	else
		sk = bpf_sk_lookup_udp(ctx, &tuple, size, BPF_F_CURRENT_NETNS, 0);
	if (!sk)
		return false;
	bpf_sk_release(sk);
	return true;
}

/* Puts a flow into a way of a row. The tags go first and come last: a look-up meanwhile misses. */
static __always_inline struct flow *put(struct row *row, __u32 i, const struct pkt *pkt,
					const struct backend *backend)
{
	struct flow *flow;

	if (i >= ROW_WAYS)
		return NULL;
	row->forth[i] = 0;
	row->back[i] = 0;
	barrier();
	flow = &row->flow[i];
	retire(flow);
	flow->client = pkt->ends.source;
	flow->frontend = pkt->ends.destination;
	flow->backend = backend->address;
	flow->client_port = pkt->ends.source_port;
	flow->frontend_port = pkt->ends.destination_port;
	flow->backend_port = backend->port;
	flow->service = backend->service;
	flow->generation = backend->generation;
	flow->protocol = pkt->protocol;
	flow->state = FLOW_NEW;
	flow->facts = 0;
	flow->packets = 0;
	flow->octets = 0;
	return flow;
}

/* Remembers a new flow to a backend, in the row of one try of FLOW_TRIES. The source of its
 * answers is in `back` already, and their destination too, but for the port of this node that
 * stands for a client of a backend elsewhere. NULL: no port is free there towards this backend. */
static __always_inline struct flow *remember(struct packet_ctx *ctx, const struct pkt *pkt,
					     const struct backend *backend, __u32 id,
					     enum forwarding mode, struct ends *back, __u32 try)
{
	__u32 walk = walk_of(&pkt->ends.source, pkt->ends.source_port, pkt->protocol);
	__u32 forth = tag_of(&pkt->ends, pkt->protocol);
	__u32 index = row_at(walk, try % ROW_TRIES);
	struct row *row = flows.lookup(&index);
	__u64 now = bpf_ktime_get_ns();
	struct flow *flow = NULL;
	__be16 port = 0;
	__u32 tag, i;

	if (!row)
		return NULL;
	if (mode != FORWARDING_LOCAL) {
		port = bpf_htons(SNAT_FIRST_PORT + index);
		back->destination_port = port;
	}
	if ((!port || !is_taken(ctx, back, pkt->protocol, pkt->v4)) && lock(row)) {
		tag = tag_of(back, pkt->protocol);
		row->chosen = room_for(row, forth, tag, port, now, try == ROW_TRIES);
		/* Read again, it is any number to the verifier, which would else follow all that
		 * may have led to it: most of the million instructions of kernels before 6.4. */
		barrier();
		i = row->chosen;
		flow = put(row, i, pkt, backend);
		if (flow) {
			flow->id = id;
			flow->port = port;
			flow->mode = mode;
			flow->used = now;
			barrier();
			row->forth[i & (ROW_WAYS - 1)] = forth;
			row->back[i & (ROW_WAYS - 1)] = tag;
		}
		unlock(row);
	}
	if (!flow)
		row->crowded = 1;
	return flow;
}

#endif
