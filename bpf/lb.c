/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* lb.c - north-south: packets from outside go to a backend, and its answers come back as the
 * service's. Entry points of tc programs, for the devices where such traffic enters; what they
 * do is in packet.h, flow.h and rewrite.h. */

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

#define AF_INET 2
#define AF_INET6 10

#include "types.h"
#include "maps.h"
#include "reason.h"
#include "service.h"
#include "packet.h"
#include "rewrite.h"
#include "flow.h"

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
	return mix(hash, hash) >> 32;
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
static __always_inline struct flow *begin(struct __sk_buff *skb, const struct pkt *pkt,
					  const struct backend *backend, __u32 id)
{
	struct flow flow = {};
	struct ends back = {};

	flow.client = pkt->ends.source;
	flow.frontend = pkt->ends.destination;
	flow.backend = backend->address;
	flow.client_port = pkt->ends.source_port;
	flow.frontend_port = pkt->ends.destination_port;
	flow.backend_port = backend->port;
	flow.service = backend->service;
	flow.id = id;
	flow.generation = backend->generation;
	flow.protocol = pkt->protocol;
	flow.state = FLOW_NEW;
	flow.mode = backend->views & BACKEND_HERE ? FORWARDING_LOCAL : FORWARDING_SNAT;
	flow.used = bpf_ktime_get_ns();
	back.source = flow.backend;
	back.source_port = flow.backend_port;
	back.destination = flow.client;
	back.destination_port = flow.client_port;
	if (flow.mode == FORWARDING_SNAT && !own_address(pkt->v4, &back.destination))
		return NULL;
	return remember(skb, pkt, &flow, &back);
}

/* From the client to the backend. */
static __always_inline int send_forth(struct __sk_buff *skb, const struct pkt *pkt,
				      struct flow *flow)
{
	struct ends to = pkt->ends;

	touch(flow, pkt, 1);
	to.destination = flow->backend;
	to.destination_port = flow->backend_port;
	if (flow->mode == FORWARDING_LOCAL)
		return rewrite(skb, pkt, &to) ? TC_NEXT : drop(REASON_REWRITE);
	to.source_port = flow->port;
	if (!own_address(pkt->v4, &to.source))
		return drop(REASON_NO_ROUTE);
	return forward(skb, pkt, &to);
}

/* From a backend of another node to the client. */
static __always_inline int send_back(struct __sk_buff *skb, const struct pkt *pkt,
				     struct flow *flow)
{
	struct ends to = {};

	touch(flow, pkt, 2);
	to.source = flow->frontend;
	to.source_port = flow->frontend_port;
	to.destination = flow->client;
	to.destination_port = flow->client_port;
	return forward(skb, pkt, &to);
}

/* What a view without a backend does with a packet. */
static __always_inline int empty(__u64 view)
{
	if (view_empty(view) == EMPTY_DROP)
		return drop(REASON_NO_LOCAL_BACKEND);
	return drop(REASON_NO_BACKEND);
}

static __always_inline int balance(struct __sk_buff *skb, const struct pkt *pkt,
				   const struct frontend *frontend)
{
	struct flow *flow = find_forth(pkt);
	__u32 id = frontend->service;
	struct service *service;
	struct backend *backend;
	__u32 view, chosen;

	if (flow && goes_on(flow, pkt, id))
		return send_forth(skb, pkt, flow);
	if (flow)
		flow->state = FLOW_FREE;
	service = services.lookup(&id);
	if (!service)
		return drop(REASON_NO_BACKEND);
	view = frontend->type == FRONTEND_CLUSTER_IP ? VIEW_CLUSTER_IP : VIEW_OUTSIDE;
	if (!view_count(service->view[view]))
		return empty(service->view[view]);
	chosen = choose(pkt, service, id, view);
	backend = backends.lookup(&chosen);
	if (!backend || !chosen)
		return drop(REASON_NO_BACKEND);
	flow = begin(skb, pkt, backend, chosen);
	return flow ? send_forth(skb, pkt, flow) : drop(REASON_NO_PORT);
}

/* tc ingress of a device. */
int lb_in(struct __sk_buff *skb)
{
	struct frontend_key key = {};
	struct frontend *frontend;
	struct pkt pkt = {};
	struct flow *flow;

	if (!read_packet(skb, &pkt))
		return TC_NEXT;
	flow = find_back_by_port(&pkt);
	if (flow)
		return send_back(skb, &pkt, flow);
	key.address = pkt.ends.destination;
	key.port = pkt.ends.destination_port;
	key.protocol = pkt.protocol;
	frontend = find_frontend(&key, 0);
	if (!frontend)
		return TC_NEXT;
	if (frontend->flags & FRONTEND_RANGES && !in_ranges(frontend->service, &pkt.ends.source))
		return drop(REASON_SOURCE_RANGE);
	return balance(skb, &pkt, frontend);
}

/* tc egress of a device: answers of backends on this node. */
int lb_out(struct __sk_buff *skb)
{
	struct ends to = {};
	struct pkt pkt = {};
	struct flow *flow;

	if (!read_packet(skb, &pkt))
		return TC_NEXT;
	flow = find_back_by_client(&pkt);
	if (!flow)
		return TC_NEXT;
	touch(flow, &pkt, 2);
	to.source = flow->frontend;
	to.source_port = flow->frontend_port;
	to.destination = pkt.ends.destination;
	to.destination_port = pkt.ends.destination_port;
	return rewrite(skb, &pkt, &to) ? TC_NEXT : drop(REASON_REWRITE);
}
