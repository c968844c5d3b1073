/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* peer.h - what a socket remembers of its translations: one peer when connected, a few when not.
 * Reads and writes: connected, unconnected (socket storage, gone with the socket), loads. */
#ifndef TIDEGATE_PEER_H
#define TIDEGATE_PEER_H

#include "counter.h"

static __always_inline bool is_backend_of(const struct peer *peer, const struct addr *address,
					  __be16 port)
{
	return peer->port == port && same_address(&peer->address, address);
}

static __always_inline bool is_frontend_of(const struct peer *peer, const struct addr *address,
					   __be16 port)
{
	return peer->port && peer->frontend_port == port && same_address(&peer->frontend, address);
}

/* The socket no longer talks to its peer. The count belongs to the id's present owner only. */
static __always_inline void hang_up(const struct peer *peer)
{
	__u32 id = peer->backend;
	struct backend *backend = backends.lookup(&id);
	struct load *load = load_of(id);

	if (load && backend && is_alive(backend, peer->generation))
		lock_xadd(&load->closed, 1);
}

/* Also from sock_release, which may not delete storage: an empty place says the same. */
static __always_inline void forget_connected(struct bpf_sock *sk)
{
	struct peer *peer = connected.sk_storage_get(sk, 0, 0);

	if (!peer || !peer->port)
		return;
	hang_up(peer);
	peer->port = 0;
}

/* False: no memory. */
static __always_inline bool remember_connected(struct bpf_sock *sk, const struct peer *peer)
{
	struct peer *memory = connected.sk_storage_get(sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	struct load *load = load_of(peer->backend);

	if (!memory)
		return false;
	if (memory->port)
		hang_up(memory);
	*memory = *peer;
	if (load && peer->backend)
		lock_xadd(&load->opened, 1);
	return true;
}

/* The unconnected socket's peer behind this address; NULL: none. */
static __always_inline struct peer *peer_by_backend(struct peers *peers, const struct addr *address,
						    __be16 port)
{
	for (int i = 0; i < PEERS; i++)
		if (is_backend_of(&peers->peer[i], address, port))
			return &peers->peer[i];
	return NULL;
}

static __always_inline struct peer *peer_by_frontend(struct peers *peers,
						     const struct addr *address, __be16 port)
{
	for (int i = 0; i < PEERS; i++)
		if (is_frontend_of(&peers->peer[i], address, port))
			return &peers->peer[i];
	return NULL;
}

/* Puts a peer where its frontend, or else its backend, stood before, or else in the oldest
 * place. The port goes last and first: a reader meanwhile finds the place empty. */
static __always_inline void remember_unconnected(struct peers *peers, const struct peer *peer)
{
	struct peer *place = peer_by_frontend(peers, &peer->frontend, peer->frontend_port);

	if (!place)
		place = peer_by_backend(peers, &peer->address, peer->port);
	if (!place) {
		place = &peers->peer[peers->next % PEERS];
		peers->next++;
	}
	place->port = 0;
	barrier();
	place->frontend = peer->frontend;
	place->address = peer->address;
	place->frontend_port = peer->frontend_port;
	place->service = peer->service;
	place->backend = peer->backend;
	place->generation = peer->generation;
	place->flags = peer->flags;
	barrier();
	place->port = peer->port;
}

/* connect() with AF_UNSPEC takes a UDP socket's peer away, and no hook sees it. */
static __always_inline bool was_disconnected(const struct bpf_sock *sk)
{
	return sk->protocol == IPPROTO_UDP && sk->state != BPF_TCP_ESTABLISHED;
}

/* The socket's peer behind an address, connected or not; NULL: none of our doing. */
static __always_inline struct peer *peer_of(struct bpf_sock *sk, const struct addr *address,
					    __be16 port)
{
	struct peer *peer = connected.sk_storage_get(sk, 0, 0);
	struct peers *peers;

	if (peer && is_backend_of(peer, address, port) && !was_disconnected(sk))
		return peer;
	peers = unconnected.sk_storage_get(sk, 0, 0);
	return peers ? peer_by_backend(peers, address, port) : NULL;
}

#endif
