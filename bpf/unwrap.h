/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* unwrap.h - takes packets that other nodes wrapped for backends of this one (tunnel.h), and
 * remembers whose answers go straight to the client. Only from nodes of the cluster: else anybody
 * could have a pod answer with an address of his choice. Reads: addresses, frontends, vips. */
#ifndef TIDEGATE_UNWRAP_H
#define TIDEGATE_UNWRAP_H

#include "balance.h"

/* Is it IP in IP, from whomever? */
static __always_inline bool is_tunnel(struct __sk_buff *ctx)
{
	__be16 kind = kind_of(ctx);
	__u8 next = 0;

	if (kind == bpf_htons(ETH_P_IP))
		return load(ctx, ETH_HLEN + 9, &next, 1) && next == IPPROTO_IPIP;
	return kind == bpf_htons(ETH_P_IPV6) && load(ctx, ETH_HLEN + 6, &next, 1) &&
	       next == IPPROTO_IPV6;
}

/* An error about an answer of a backend of this node? */
static __always_inline bool is_icmp(struct __sk_buff *ctx)
{
	__u8 next = 0;

	if (kind_of(ctx) == bpf_htons(ETH_P_IP))
		return load(ctx, ETH_HLEN + 9, &next, 1) && next == PROTO_ICMP;
	return load(ctx, ETH_HLEN + 6, &next, 1) && next == PROTO_ICMP6;
}

/* The node that wrapped a packet, and the backend that it is for. False: it is not wrapped. */
static __always_inline bool read_outer(struct __sk_buff *ctx, struct addr *from,
				       struct backend *backend)
{
	__be16 kind = kind_of(ctx);
	struct ipv6hdr v6;
	struct iphdr v4;

	if (kind == bpf_htons(ETH_P_IP)) {
		if (!load(ctx, ETH_HLEN, &v4, sizeof(v4)) || v4.protocol != IPPROTO_IPIP ||
		    v4.version != 4 || v4.ihl != 5 || v4.frag_off & FRAGMENT_MASK)
			return false;
		from->word[2] = backend->address.word[2] = V4_PREFIX;
		from->word[3] = v4.saddr;
		backend->address.word[3] = v4.daddr;
		backend->port = v4.id;
		return true;
	}
	if (kind != bpf_htons(ETH_P_IPV6) || !load(ctx, ETH_HLEN, &v6, sizeof(v6)) ||
	    v6.version != 6 || v6.nexthdr != IPPROTO_IPV6)
		return false;
	__builtin_memcpy(from, &v6.saddr, sizeof(*from));
	__builtin_memcpy(&backend->address, &v6.daddr, sizeof(*from));
	backend->port = *(__be16 *)&v6.flow_lbl[1];
	return true;
}

static __always_inline bool is_known(const struct addr *address, __u32 flags)
{
	struct node_address *known = addresses.lookup((struct addr *)address);

	return known && known->flags & flags;
}

/* Can what is in a wrapped packet be for a service? Networks of pods have tunnels between nodes, too
 * (Calico's IPIP): what comes to this node's own address in them is for pods. Whatever else is
 * wrapped for a pod's address is taken for ours. */
static __always_inline bool may_be_ours(struct __sk_buff *ctx)
{
	struct backend outer = {};
	struct addr inner = {};

	if (!read_outer(ctx, &inner, &outer) || !is_known(&outer.address, ADDRESS_LOCAL))
		return true;
	if (is_v4(&inner) ? !load(ctx, ETH_HLEN + 20 + 16, &inner.word[3], 4)
			  : !load(ctx, ETH_HLEN + 40 + 24, &inner, sizeof(inner)))
		return false;
	return is_known(&inner, ADDRESS_PEER | ADDRESS_NODE_PORT | ADDRESS_CLUSTER_IP) ||
	       vips.lookup(&inner);
}

/* The frontend that a handed-over packet was sent to: any node's address is good for node ports. */
static __always_inline struct frontend *served(const struct pkt *pkt)
{
	struct frontend_key key = {};
	struct frontend *frontend;

	key.address = pkt->ends.destination;
	key.port = pkt->ends.destination_port;
	key.protocol = pkt->protocol;
	frontend = frontends.lookup(&key);
	if (frontend || !is_known(&pkt->ends.destination, ADDRESS_PEER | ADDRESS_NODE_PORT))
		return frontend;
	__builtin_memset(&key.address, 0, sizeof(key.address));
	if (pkt->v4)
		key.address.word[2] = V4_PREFIX;
	key.scope = SCOPE_NODE;
	return frontends.lookup(&key);
}

/* The first try whose row has room for a flow that needs no port of this node. Looked for before
 * it is taken: a loop around `begin` was 700,000 instructions to kernels before 6.4. */
static __always_inline __u32 roomy_try(const struct pkt *pkt)
{
	__u32 walk = walk_of(&pkt->ends.source, pkt->ends.source_port, pkt->protocol);
	__u64 now = bpf_ktime_get_ns();

	for (__u32 try = 0; try < ROW_TRIES; try++) {
		__u32 index = row_at(walk, try);
		struct row *row = flows.lookup(&index);

		if (!row)
			break;
		for (__u32 i = 0; i < ROW_WAYS; i++)
			if (is_over(&row->flow[i], now))
				return try;
		row->crowded = 1;
	}
	return ROW_TRIES;
}

/* The flow of what was in the packet, to the very backend that the balancer chose; NULL: there
 * is no room for it. */
static __always_inline struct flow *handed_over(struct __sk_buff *ctx, const struct pkt *pkt,
						const struct backend *backend)
{
	struct flow *flow = find_forth(pkt);

	if (flow && flow->backend_port == backend->port &&
	    same_address(&flow->backend, &backend->address))
		return flow;
	if (flow)
		flow->state = FLOW_FREE;
	flow = begin(ctx, pkt, backend, 0, roomy_try(pkt));
	if (!flow) /* Another CPU was quicker. */
		flow = begin(ctx, pkt, backend, 0, ROW_TRIES);
	if (!flow)
		return NULL;
	flow->mode = FORWARDING_DSR;
	tell_flow(ctx, pkt, flow);
	return flow;
}

/* False: no wrapped packet, or none of a node of this cluster. Else `verdict` is its end. */
static __always_inline bool unwrap(struct __sk_buff *ctx, int *verdict)
{
	struct backend backend = {};
	struct frontend *frontend;
	struct addr from = {};
	struct pkt pkt = {};
	struct flow *flow;
	int room;

	if (!read_outer(ctx, &from, &backend) || !is_known(&from, ADDRESS_PEER))
		return false;
	room = is_v4(&from) ? sizeof(struct iphdr) : sizeof(struct ipv6hdr);
	if (bpf_skb_adjust_room(ctx, -room, BPF_ADJ_ROOM_MAC, 0)) {
		*verdict = drop(REASON_REWRITE);
		return true;
	}
	if (is_icmp(ctx)) {
		ctx->cb[NOTE_WHENCE] = WHENCE_NODE;
		tails.call(ctx, TAIL_ICMP);
	}
	frontend = read_packet(ctx, &pkt) ? served(&pkt) : NULL;
	if (!frontend) {
		*verdict = lose(ctx, &pkt, 0, REASON_NOT_SERVED);
		return true;
	}
	backend.views = BACKEND_HERE;
	backend.service = frontend->service;
	flow = handed_over(ctx, &pkt, &backend);
	if (flow)
		*verdict = send(ctx, &pkt, flow, SIDE_CLIENT);
	else
		*verdict = lose(ctx, &pkt, backend.service, REASON_NO_PORT);
	return true;
}

#endif
