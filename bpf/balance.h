/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* balance.h - what becomes of a packet to a service: its flow, known or new, and the way on.
 * Compiled over tc and over XDP, for clients outside or (FROM_PODS) for this node's pods.
 * Reads: node, services, backends, tracked. */
#ifndef TIDEGATE_BALANCE_H
#define TIDEGATE_BALANCE_H

#include "dsr.h"
#include "tell.h"

/* bench/packet.py measures without: each packet by the Maglev table alone. */
#ifndef REMEMBERING
#define REMEMBERING true
#endif

/* This node's address towards backends of other nodes; false: it has none of the family. */
static __always_inline bool own_address(bool v4, bool by_tunnel, struct addr *address)
{
	__u32 zero = 0;
	struct node *self = node.lookup(&zero);

	if (!self)
		return false;
	if (by_tunnel)
		*address = v4 ? self->tunnel_v4 : self->tunnel_v6;
	else
		*address = v4 ? self->v4 : self->v6;
	return address->word[3] || address->word[0];
}

/* Does the way to a backend lead through the tunnel of the pods' network? */
static __always_inline bool is_by_tunnel(struct packet_ctx *ctx, const struct pkt *pkt,
					 const struct backend *backend)
{
	struct bpf_fib_lookup fib = {};
	struct ends to = pkt->ends;
	__u32 zero = 0, device = 0;
	struct node *self = node.lookup(&zero);

	if (self)
		device = pkt->v4 ? self->device_v4 : self->device_v6;
	if (!device)
		return false;
	to.destination = backend->address;
	return is_way(look_up_way(ctx, pkt, &to, 0, &fib)) && fib.ifindex == device;
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

/* Does what comes in by this device come from pods? A device's kind says so, unless detectLocalMode
 * goes by devices: a build of its own is then for those where it says otherwise. From outside, pods
 * of other nodes are known by their addresses. */
#ifndef LOCAL_DEVICE
#define LOCAL_DEVICE FROM_PODS
#endif

/* Where the lists for pods and for clients outside are one, nobody has to look who it is. */
static __always_inline bool is_local(const struct pkt *pkt, const struct service *service)
{
	if (LOCAL_DEVICE)
		return true;
	if (FROM_PODS || service->view[VIEW_INSIDE] == service->view[VIEW_OUTSIDE])
		return false;
	return in_cidr(&pkt->ends.source, CIDR_PODS);
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

/* Was the client chosen to serve itself? It must not see itself as the peer, or it would answer
 * itself. Without branches, which would be as many paths for the verifier. */
static __always_inline bool is_own(const struct pkt *pkt, const struct backend *backend)
{
	const __u32 *a = backend->address.word, *b = pkt->ends.source.word;

	return !((a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3]));
}

/* The client's own address stays where the answers come by on their way to it: those of a backend
 * of this node, and all to a client of this node. */
static __always_inline enum forwarding mode_of(const struct pkt *pkt, const struct backend *backend)
{
	if (FROM_PODS)
		return is_own(pkt, backend) ? FORWARDING_SNAT : FORWARDING_LOCAL;
	return backend->views & BACKEND_HERE ? FORWARDING_LOCAL : FORWARDING_SNAT;
}

/* A flow for the first packet of a connection; NULL: no port is free for it by this try. */
static __always_inline struct flow *begin(struct packet_ctx *ctx, const struct pkt *pkt,
					  const struct backend *backend, __u32 id, __u32 try)
{
	enum forwarding mode = mode_of(pkt, backend);
	bool by_tunnel = false;
	struct ends back = {};
	struct flow *flow;

	back.source = backend->address;
	back.source_port = backend->port;
	back.destination = pkt->ends.source;
	back.destination_port = pkt->ends.source_port;
	if (mode == FORWARDING_SNAT) {
		by_tunnel = is_by_tunnel(ctx, pkt, backend);
		if (!own_address(pkt->v4, by_tunnel, &back.destination))
			return NULL;
	}
	flow = remember(ctx, pkt, backend, id, mode, &back, try);
	if (flow && by_tunnel)
		flow->facts |= FACT_TUNNEL;
	return flow;
}

/* What a packet of the flow has to become; false: this node has no address for it. */
static __always_inline bool translate(const struct pkt *pkt, const struct flow *flow,
				      enum side side, struct ends *to)
{
	*to = pkt->ends;
	if (side == SIDE_BACKEND) {
		to->source = flow->frontend;
		to->source_port = flow->frontend_port;
		to->destination = flow->client;
		to->destination_port = flow->client_port;
		return true;
	}
	to->destination = flow->backend;
	to->destination_port = flow->backend_port;
	if (flow->mode != FORWARDING_SNAT)
		return true;
	to->source_port = flow->port;
	return own_address(pkt->v4, flow->facts & FACT_TUNNEL, &to->source);
}

/* On to the other end of the flow. What XDP hands up is counted when tc has it. */
static __always_inline int send(struct packet_ctx *ctx, const struct pkt *pkt, struct flow *flow,
				enum side side)
{
	struct ends to;
	int verdict;

	if (!translate(pkt, flow, side, &to))
		return lose(ctx, pkt, flow->service, REASON_NO_ROUTE);
	if (side == SIDE_CLIENT && flow->mode != FORWARDING_SNAT)
		verdict = hand_to_stack(ctx, pkt, &to);
	else
		verdict = forward(ctx, pkt, &to);
	if (IS_LAST || verdict != PACKET_NEXT)
		touch(flow, pkt, side);
	return verdict;
}

/* What a view without a backend does with a packet. */
static __always_inline int empty(struct packet_ctx *ctx, const struct pkt *pkt, __u32 service,
				 __u64 view)
{
	if (view_empty(view) == EMPTY_DROP)
		return lose(ctx, pkt, service, REASON_NO_LOCAL_BACKEND);
	return decline(ctx, REASON_NO_BACKEND);
}

/* A backend for a new flow, its id in `chosen`; NULL: `verdict` is the end. */
static __always_inline struct backend *pick(struct packet_ctx *ctx, const struct pkt *pkt,
					    const struct frontend *frontend, __u32 *chosen,
					    int *verdict)
{
	__u32 id = frontend->service;
	struct service *service = services.lookup(&id);
	struct backend *backend;
	__u32 view;

	*verdict = PACKET_NEXT;
	if (!service)
		return NULL;
	view = view_of(frontend, is_local(pkt, service));
	if (!view_count(service->view[view])) {
		*verdict = empty(ctx, pkt, id, service->view[view]);
		return NULL;
	}
	*chosen = choose(pkt, service, id, view);
	backend = backends.lookup(chosen);
	if (backend && *chosen)
		return backend;
	*verdict = decline(ctx, REASON_NO_BACKEND);
	return NULL;
}

/* Can it be the first packet of a connection? */
static __always_inline bool may_begin(const struct pkt *pkt)
{
	return pkt->protocol != IPPROTO_TCP || pkt->tcp & TCP_SYN;
}

/* How a backend's node is told whom a packet is from. */
static __always_inline enum dispatch dispatch_of(const struct frontend *frontend)
{
	return frontend->flags & FRONTEND_OPT ? DISPATCH_OPT : DISPATCH_IPIP;
}

/* Is a packet to be handed over to this backend? Not to one of this node; nor where it would no
 * longer fit and may be cut to pieces: those pieces, which are not handed over, would not either;
 * nor what its receiver would not read. */
static __always_inline bool may_hand_over(struct packet_ctx *ctx, const struct pkt *pkt,
					  const struct addr *own, const struct backend *backend,
					  enum dispatch how)
{
	if (backend->views & BACKEND_HERE || pkt->odd)
		return false;
	return pkt->whole || fits(ctx, pkt, own, backend, how);
}

/* The row of a packet; NULL: this node has no address to hand it over from. */
static __always_inline struct dsr_row *dsr_row_for(const struct pkt *pkt, __u64 *hash,
						   struct addr *own)
{
	if (!own_address(pkt->v4, false, own))
		return NULL;
	*hash = dsr_hash(pkt);
	return dsr_row_of(*hash);
}

/* Does the kernel go on with a connection that it had before we came? Then it knows the backend:
 * kube-proxy's translations outlive its rules. XDP passes to tc what has no flow. */
static __always_inline bool is_tracked(const struct pkt *pkt)
{
	if (FROM_PODS)
		return true;
	return IS_LAST && tracked.lookup((struct ends *)&pkt->ends);
}

/* A packet that is known by `flows`, or will be. */
static __always_inline int balance_flow(struct packet_ctx *ctx, const struct pkt *pkt,
					const struct frontend *frontend)
{
	struct flow *flow = find_forth(pkt);

	if (flow && goes_on(flow, pkt, frontend->service))
		return send(ctx, pkt, flow, SIDE_CLIENT);
	if (flow)
		flow->state = FLOW_FREE;
	/* From outside it may also have come by another node: then Maglev knows. */
	if (!may_begin(pkt) && is_tracked(pkt))
		return PACKET_NEXT;
	return begin_elsewhere(ctx, pkt);
}

/* A packet of a service whose backends elsewhere answer the client themselves. XDP does not look
 * into `flows` for it: a connection that began otherwise is for tc. */
static __always_inline int balance_dsr(struct packet_ctx *ctx, const struct pkt *pkt,
				       const struct frontend *frontend)
{
	enum dispatch how = dispatch_of(frontend);
	const struct backend *backend;
	struct dsr_row *row;
	struct addr own;
	__u64 hash;
	__u32 id;
	int verdict;

	row = dsr_row_for(pkt, &hash, &own);
	if (!row)
		goto otherwise;
	id = REMEMBERING ? dsr_recall(row, pkt, hash, frontend->service) : 0;
	if (id) {
		backend = backends.lookup(&id);
		if (!backend || !may_hand_over(ctx, pkt, &own, backend, how))
			goto otherwise;
		return hand_over(ctx, pkt, &own, backend, id, how);
	}
	if (REMEMBERING && !may_begin(pkt) && (!IS_LAST || find_forth(pkt) || is_tracked(pkt)))
		goto otherwise;
	backend = pick(ctx, pkt, frontend, &id, &verdict);
	if (!backend)
		return verdict;
	if (is_own(pkt, backend) || !may_hand_over(ctx, pkt, &own, backend, how))
		goto otherwise;
	if (REMEMBERING) {
		dsr_remember(row, pkt, hash, backend, id);
		tell_dsr(ctx, pkt, backend, id);
	}
	return hand_over(ctx, pkt, &own, backend, id, how);
otherwise:
	return IS_LAST ? balance_flow(ctx, pkt, frontend) : PACKET_NEXT;
}

/* A packet to a service. */
static __always_inline int balance(struct packet_ctx *ctx, const struct pkt *pkt,
				   const struct frontend *frontend)
{
	if (FROM_PODS || !(frontend->flags & FRONTEND_DSR))
		return balance_flow(ctx, pkt, frontend);
	return IS_LAST ? balance_elsewhere(ctx, pkt) : balance_dsr(ctx, pkt, frontend);
}

/* Is a look at whose the address is to be spared? XDP, which answers nobody, asks only for node
 * ports; what it wrongly passes, tc serves. */
static __always_inline bool is_no_node_port(const struct pkt *pkt)
{
	__u32 zero = 0, port = bpf_ntohs(pkt->ends.destination_port);
	struct node *self = IS_LAST ? NULL : node.lookup(&zero);

	return self && (port < self->first_port || port > self->last_port);
}

/* NULL: no service's; `flags` then says what the address is, at tc. */
static __always_inline struct frontend *asked_for(const struct pkt *pkt, __u32 *flags)
{
	struct frontend_key key = {};
	struct frontend *frontend;

	key.address = pkt->ends.destination;
	key.port = pkt->ends.destination_port;
	key.protocol = pkt->protocol;
	frontend = frontends.lookup(&key);
	if (frontend || is_no_node_port(pkt))
		return frontend;
	return find_node_port(&key, 0, flags);
}

/* A packet that comes from a client, as far as one can see. */
static __always_inline int from_client(struct packet_ctx *ctx, const struct pkt *pkt)
{
	struct frontend *frontend;
	__u32 flags = 0;

	frontend = asked_for(pkt, &flags);
	if (!frontend)
		return is_services_own(flags) ? decline(ctx, REASON_NO_SERVICE_PORT) : PACKET_NEXT;
	if (frontend->flags & FRONTEND_RANGES && !in_ranges(frontend->service, &pkt->ends.source))
		return lose(ctx, pkt, frontend->service, REASON_SOURCE_RANGE);
	return balance(ctx, pkt, frontend);
}

/* What `balance` handed over. */
static __always_inline int go_on_dsr(struct packet_ctx *ctx, const struct pkt *pkt)
{
	struct frontend *frontend;
	__u32 flags;

	frontend = asked_for(pkt, &flags);
	return frontend ? balance_dsr(ctx, pkt, frontend) : PACKET_NEXT;
}

/* A packet from outside that was read. */
static __always_inline int carry(struct packet_ctx *ctx, const struct pkt *pkt)
{
	struct flow *flow = find_back_by_port(pkt);

	return flow ? send(ctx, pkt, flow, SIDE_BACKEND) : from_client(ctx, pkt);
}

/* A packet that comes in, at either hook. */
static __always_inline int receive(struct packet_ctx *ctx)
{
	struct pkt pkt = {};

	if (!is_for_us(ctx))
		return PACKET_NEXT;
	if (!read_packet(ctx, &pkt) || (!FROM_PODS && has_options(&pkt)))
		return receive_odd(ctx);
	if (FROM_PODS)
		forget_straight(&pkt);
	return carry(ctx, &pkt);
}

#endif
