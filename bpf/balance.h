/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* balance.h - what becomes of a packet from outside: its flow, known or new, and the way on.
 * Compiled over tc and over XDP. Reads: node, services, backends. */
#ifndef TIDEGATE_BALANCE_H
#define TIDEGATE_BALANCE_H

#include "flow.h"
#include "service.h"

/* This node's address towards backends of other nodes; false: it has none of the family. */
static __always_inline bool own_address(bool v4, struct addr *address)
{
	__u32 zero = 0;
	struct node *self = node.lookup(&zero);

	if (!self)
		return false;
	*address = v4 ? self->v4 : self->v6;
	return address->word[3] || address->word[0];
}

/* The same on every node that a packet of the connection may come to. */
static __always_inline __u32 hash_of(const struct pkt *pkt, bool client_only)
{
	__u64 ports = (__u64)pkt->ends.source_port << 16 | pkt->ends.destination_port;
	__u64 hash = mix_address(mix(0, pkt->protocol), &pkt->ends.source);

	if (!client_only)
		hash = mix(hash, ports);
	return mix(hash, 0) >> 32;
}

static __always_inline __u32 choose(const struct pkt *pkt, const struct service *service, __u32 id,
				    __u32 view)
{
	__u32 hash = hash_of(pkt, service->affinity_seconds);
	struct affinity_key key = {};

	if (!service->affinity_seconds)
		return hashed_backend(service, view, hash);
	key.client = pkt->ends.source;
	key.service = id;
	key.kind = CLIENT_ADDRESS;
	return sticky_backend(&key, service, view, hash);
}

/* Does the flow go on with its backend? A TCP connection always does: only its backend can end
 * it. A datagram, or the first packet of a connection that has the ports of an earlier one, goes
 * to a backend that still serves. */
static __always_inline bool goes_on(const struct flow *flow, const struct pkt *pkt, __u32 service)
{
	__u32 id = flow->id;
	struct backend *backend;

	if (pkt->protocol == IPPROTO_TCP && !(pkt->tcp & TCP_SYN))
		return true;
	if (flow->state == FLOW_CLOSING || flow->service != service)
		return false;
	backend = backends.lookup(&id);
	return backend && is_alive(backend, flow->generation);
}

/* A flow for the first packet of a connection; NULL: no port is free for it. */
static __always_inline struct flow *begin(struct packet_ctx *ctx, const struct pkt *pkt,
					  const struct backend *backend, __u32 id)
{
	struct ends back = {};

	back.source = backend->address;
	back.source_port = backend->port;
	back.destination = pkt->ends.source;
	back.destination_port = pkt->ends.source_port;
	if (!(backend->views & BACKEND_HERE) && !own_address(pkt->v4, &back.destination))
		return NULL;
	return remember(ctx, pkt, backend, id, &back);
}

/* Which end of a flow sent a packet, as `touch` counts them. */
enum side {
	SIDE_CLIENT = 1,
	SIDE_BACKEND = 2,
};

/* On to the other end of the flow. What XDP hands up is counted when tc has it. */
static __always_inline int send(struct packet_ctx *ctx, const struct pkt *pkt, struct flow *flow,
				enum side side)
{
	struct ends to = pkt->ends;
	int verdict;

	if (side == SIDE_CLIENT) {
		to.destination = flow->backend;
		to.destination_port = flow->backend_port;
		if (flow->mode == FORWARDING_LOCAL) {
			verdict = hand_to_stack(ctx, pkt, &to);
			goto out;
		}
		to.source_port = flow->port;
		if (!own_address(pkt->v4, &to.source))
			return drop(REASON_NO_ROUTE);
	} else {
		to.source = flow->frontend;
		to.source_port = flow->frontend_port;
		to.destination = flow->client;
		to.destination_port = flow->client_port;
	}
	verdict = forward(ctx, pkt, &to);
out:
	if (IS_LAST || verdict != PACKET_NEXT)
		touch(flow, pkt, side);
	return verdict;
}

/* What a view without a backend does with a packet. */
static __always_inline int empty(__u64 view)
{
	if (view_empty(view) == EMPTY_DROP)
		return drop(REASON_NO_LOCAL_BACKEND);
	return decline(REASON_NO_BACKEND);
}

/* The flow of a packet that came to a service, known or new; NULL: `verdict` is the end. */
static __always_inline struct flow *balance(struct packet_ctx *ctx, const struct pkt *pkt,
					    const struct frontend *frontend, int *verdict)
{
	struct flow *flow = find_forth(pkt);
	__u32 id = frontend->service;
	struct service *service;
	struct backend *backend;
	__u32 view, chosen;

	if (flow && goes_on(flow, pkt, id))
		return flow;
	if (flow)
		flow->state = FLOW_FREE;
	*verdict = PACKET_NEXT;
	service = services.lookup(&id);
	if (!service)
		return NULL;
	view = frontend->type == FRONTEND_CLUSTER_IP ? VIEW_CLUSTER_IP : VIEW_OUTSIDE;
	if (!view_count(service->view[view])) {
		*verdict = empty(service->view[view]);
		return NULL;
	}
	chosen = choose(pkt, service, id, view);
	backend = backends.lookup(&chosen);
	if (!backend || !chosen) {
		*verdict = decline(REASON_NO_BACKEND);
		return NULL;
	}
	flow = begin(ctx, pkt, backend, chosen);
	if (!flow)
		*verdict = drop(REASON_NO_PORT);
	return flow;
}

/* The flow of a packet from a client; NULL: `verdict` is the end, or the next filter's turn. */
static __always_inline struct flow *from_client(struct packet_ctx *ctx, const struct pkt *pkt,
						int *verdict)
{
	struct frontend_key key = {};
	struct frontend *frontend;

	*verdict = PACKET_NEXT;
	key.address = pkt->ends.destination;
	key.port = pkt->ends.destination_port;
	key.protocol = pkt->protocol;
	frontend = find_frontend(&key, 0);
	if (!frontend)
		return NULL;
	if (frontend->flags & FRONTEND_RANGES && !in_ranges(frontend->service, &pkt->ends.source)) {
		*verdict = drop(REASON_SOURCE_RANGE);
		return NULL;
	}
	return balance(ctx, pkt, frontend, verdict);
}

/* A packet from outside, at either hook. */
static __always_inline int receive(struct packet_ctx *ctx)
{
	enum side side = SIDE_BACKEND;
	struct pkt pkt = {};
	struct flow *flow;
	int verdict;

	if (!is_for_us(ctx) || !read_packet(ctx, &pkt))
		return PACKET_NEXT;
	flow = find_back_by_port(&pkt);
	if (!flow) {
		side = SIDE_CLIENT;
		flow = from_client(ctx, &pkt, &verdict);
		if (!flow)
			return verdict;
	}
	return send(ctx, &pkt, flow, side);
}

#endif
