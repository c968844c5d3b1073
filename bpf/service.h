/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* service.h - finds the frontend behind an address and chooses a backend for a new connection.
 * Reads: frontends, addresses, node, services, slots, backends. Writes: affinity.
 * Never touches a socket or a packet. */
#ifndef TIDEGATE_SERVICE_H
#define TIDEGATE_SERVICE_H

#include "maps.h"

#define V4_PREFIX bpf_htonl(0xffff)
#define NSEC_PER_SEC 1000000000ULL

static __always_inline bool same_address(const struct addr *a, const struct addr *b)
{
	return a->word[3] == b->word[3] && a->word[2] == b->word[2] && a->word[1] == b->word[1] &&
	       a->word[0] == b->word[0];
}

static __always_inline bool is_v4(const struct addr *address)
{
	return !address->word[0] && !address->word[1] && address->word[2] == V4_PREFIX;
}

/* 127.0.0.0/8. ::1 is none of ours: it never accepts node ports. */
static __always_inline bool is_v4_loopback(const struct addr *address)
{
	return is_v4(address) &&
	       (address->word[3] & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000);
}

static __always_inline bool in_node_netns(__u64 netns)
{
	__u32 zero = 0;
	struct node *self = node.lookup(&zero);

	return self && self->netns == netns;
}

/* Node ports: `key` names an address of this node. A loopback address is the node's own only
 * for the node's own processes; to a pod it is the pod, and no packet may ask for it (`netns` 0).
 * `flags`: enum address_flag. */
static __always_inline struct frontend *find_node_port(struct frontend_key *key, __u64 netns,
						       __u32 *flags)
{
	struct node_address *local;
	struct frontend *frontend;

	if (is_v4_loopback(&key->address)) {
		if (!netns || !in_node_netns(netns))
			return NULL;
		key->address.word[3] = bpf_htonl(0x7f000001);
		key->scope = SCOPE_LOOPBACK;
		frontend = frontends.lookup(key);
		if (frontend)
			return frontend;
	}
	local = addresses.lookup(&key->address);
	if (!local)
		return NULL;
	*flags = local->flags;
	if (!(local->flags & ADDRESS_NODE_PORT))
		return NULL;
	key->address.word[3] = 0;
	if (!is_v4(&key->address)) {
		key->address.word[0] = 0;
		key->address.word[1] = 0;
		key->address.word[2] = 0;
	}
	key->scope = SCOPE_NODE;
	return frontends.lookup(key);
}

/* May this source reach the service's load balancer addresses? */
static __always_inline bool in_ranges(__u32 service, const struct addr *source)
{
	struct range_key key = {};

	key.prefix = 160;
	key.service = service;
	key.source = *source;
	return ranges.lookup(&key) != NULL;
}

/* NULL: no service's; `flags`, which comes zeroed, then says what the address is (enum
 * address_flag). Leaves `key` changed. */
static __always_inline struct frontend *find_frontend(struct frontend_key *key, __u64 netns,
						      __u32 *flags)
{
	struct frontend *frontend = frontends.lookup(key);

	return frontend ? frontend : find_node_port(key, netns, flags);
}

/* Is an address without a frontend a service's, so that only the port is wrong? Where it is
 * this node's, too, whoever listens there answers. */
static __always_inline bool is_services_own(__u32 flags)
{
	return flags & ADDRESS_CLUSTER_IP && !(flags & ADDRESS_LOCAL);
}

/* Could it be the address of such a one? */
static __always_inline bool in_cidr(const struct addr *address, enum cidr_kind kind)
{
	struct cidr_key key = {};
	struct cidr *cidr;

	key.prefix = 128;
	key.address = *address;
	cidr = cidrs.lookup(&key);
	return cidr && cidr->kinds & kind;
}

/* Which of a service's lists a client may choose from. `is_inside`: its socket is seen, or it is a
 * pod of any node; it passes by an external policy. */
static __always_inline __u32 view_of(const struct frontend *frontend, bool is_inside)
{
	if (frontend->type == FRONTEND_CLUSTER_IP)
		return VIEW_CLUSTER_IP;
	return is_inside ? VIEW_INSIDE : VIEW_OUTSIDE;
}

static __always_inline __u32 view_count(__u64 view)
{
	return (__u32)view;
}

static __always_inline __u32 view_line(__u64 view)
{
	return view >> 32;
}

/* What a view without backends does with a connect: enum empty. */
static __always_inline __u32 view_empty(__u64 view)
{
	return view >> 32;
}

/* The backend at a position of a view; 0: none. */
static __always_inline __u32 backend_at(__u64 view, __u32 position)
{
	__u32 index = view_line(view) + position / LINE_SLOTS;
	struct line_of_slots *line = slots.lookup(&index);

	return line ? line->backend[position % LINE_SLOTS] : 0;
}

/* Uniform over the view (kube-proxy's promise), without a division. */
static __always_inline __u32 any_backend(__u64 view)
{
	return backend_at(view, ((__u64)bpf_get_prandom_u32() * view_count(view)) >> 32);
}

/* The backend at a place of a service's Maglev table; 0: none. */
static __always_inline __u32 backend_in_ring(__u64 ring, __u32 place)
{
	__u32 index = view_line(ring) + place;
	__u32 half = index & 1;
	struct ring_slot *slot;

	index >>= 1;
	slot = rings.lookup(&index);
	if (!slot)
		return 0;
	return half ? slot->pair >> 32 : (__u32)slot->pair;
}

/* The backend that a hash of 32 bits leads to, the same at each call while the view stays. */
static __always_inline __u32 hashed_backend(const struct service *service, __u32 view, __u32 hash)
{
	__u64 list = service->view[view];
	__u64 ring = service->ring;

	if (view == VIEW_OUTSIDE && ring)
		return backend_in_ring(ring, ((__u64)hash * view_count(ring)) >> 32);
	return backend_at(list, ((__u64)hash * view_count(list)) >> 32);
}

/* Is the backend the one that was remembered, and not another under its id? */
static __always_inline bool is_alive(const struct backend *backend, __u32 generation)
{
	return backend->state != BACKEND_FREE && backend->generation == generation;
}

/* The backend this client had, if its time is not up and it is still in the view; 0: none. */
static __always_inline __u32 remembered(const struct affinity_key *key,
					const struct service *service, __u32 view, __u64 now)
{
	struct affinity *last = affinity.lookup((struct affinity_key *)key);
	struct backend *backend;
	__u32 id;

	if (!last || last->epoch != service->affinity_epoch)
		return 0;
	if (now - last->used >= service->affinity_seconds * NSEC_PER_SEC)
		return 0;
	id = last->backend;
	backend = backends.lookup(&id);
	if (!backend || !is_alive(backend, last->generation) || !(backend->views & (1 << view)))
		return 0;
	return id;
}

/* Session affinity: the timer starts again at every new connection, and only then. */
static __always_inline __u32 sticky_backend(struct affinity_key *key, const struct service *service,
					    __u32 view, __u32 hash)
{
	__u64 now = bpf_ktime_get_ns();
	struct affinity memory = {};
	struct backend *backend;
	__u32 id = remembered(key, service, view, now);

	if (!id)
		id = hashed_backend(service, view, hash);
	backend = backends.lookup(&id);
	if (!backend)
		return 0;
	memory.used = now;
	memory.backend = id;
	memory.generation = backend->generation;
	memory.epoch = service->affinity_epoch;
	affinity.update(key, &memory);
	return id;
}

#endif
