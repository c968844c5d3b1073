/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* connect.h - where a new connection of a socket goes. Touches no socket, so that `tidegate explain`
 * runs this very text. Reads: frontends, addresses, node, services, slots, backends.
 * Writes: affinity. */
#ifndef TIDEGATE_CONNECT_H
#define TIDEGATE_CONNECT_H

#include "service.h"

static __always_inline __u32 choose(struct service *service, __u32 id, __u32 view, __u64 netns)
{
	struct affinity_key key = {};

	if (!service->affinity_seconds)
		return any_backend(service->view[view]);
	key.client.word[2] = netns >> 32;
	key.client.word[3] = netns;
	key.service = id;
	key.kind = CLIENT_NETNS;
	return sticky_backend(&key, service, view, bpf_get_prandom_u32());
}

/* The frontend at the address and port that `to` names; NULL: no service's. */
static __always_inline struct frontend *frontend_of(__u8 protocol, const struct peer *to,
						    __u64 netns, __u32 *flags)
{
	struct frontend_key key = {};

	key.address = to->frontend;
	key.port = to->frontend_port;
	key.protocol = protocol;
	return find_frontend(&key, netns, flags);
}

/* Where a new connection to this frontend goes: enum outcome. `to` comes zeroed but for the frontend's
 * address and port. */
static __always_inline int translate(const struct frontend *frontend, __u32 flags, struct peer *to,
				     __u64 netns)
{
	struct service *service;
	struct backend *backend;
	__u32 view, id;
	__u64 list;

	if (!frontend)
		return is_services_own(flags) ? OUTCOME_NO_PORT : OUTCOME_FOREIGN;
	id = frontend->service;
	service = services.lookup(&id);
	if (!service)
		return OUTCOME_FOREIGN;
	to->service = id;
	to->flags = frontend->flags & FRONTEND_RANGES ? PEER_RANGES : 0;
	view = view_of(frontend, true);
	list = service->view[view];
	if (!view_count(list))
		return view_empty(list) == EMPTY_DROP ? OUTCOME_DROP : OUTCOME_REFUSE;
	to->backend = choose(service, id, view, netns);
	id = to->backend;
	backend = backends.lookup(&id);
	if (!backend)
		return OUTCOME_REFUSE;
	to->address = backend->address;
	to->port = backend->port;
	to->generation = backend->generation;
	return OUTCOME_BACKEND;
}

/* A peer that nothing reaches: the address stays the service's, `guard` discards. */
static __always_inline void into_the_void(struct peer *to)
{
	to->address = to->frontend;
	to->port = to->frontend_port;
	to->backend = 0;
	to->flags = PEER_DROP;
}

#endif
