/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* sock.c - east-west: a service's address becomes a backend's in the system call itself, once per
 * connection, and the socket is shown the service's address ever after. Nothing per packet,
 * but for `guard`, which is attached once a service has to drop in silence.
 * Entry points of cgroup programs; what they do is in service.h and peer.h. */

#include <linux/bpf.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

#include "types.h"
#include "maps.h"
#include "reason.h"
#include "service.h"
#include "peer.h"

#define AF_INET 2
#define AF_INET6 10

static __always_inline void load_v4(const struct bpf_sock_addr *ctx, struct addr *address)
{
	address->word[0] = 0;
	address->word[1] = 0;
	address->word[2] = V4_PREFIX;
	address->word[3] = ctx->user_ip4;
}

/* Also right for IPv4-mapped addresses of IPv6 sockets: they are written as the keys are. */
static __always_inline void load_v6(const struct bpf_sock_addr *ctx, struct addr *address)
{
	address->word[0] = ctx->user_ip6[0];
	address->word[1] = ctx->user_ip6[1];
	address->word[2] = ctx->user_ip6[2];
	address->word[3] = ctx->user_ip6[3];
}

static __always_inline void store_v4(struct bpf_sock_addr *ctx, const struct addr *address,
				     __be16 port)
{
	ctx->user_ip4 = address->word[3];
	ctx->user_port = port;
}

static __always_inline void store_v6(struct bpf_sock_addr *ctx, const struct addr *address,
				     __be16 port)
{
	ctx->user_ip6[0] = address->word[0];
	ctx->user_ip6[1] = address->word[1];
	ctx->user_ip6[2] = address->word[2];
	ctx->user_ip6[3] = address->word[3];
	ctx->user_port = port;
}

/* What becomes of a system call; `to` is filled for all but OUTCOME_FOREIGN. */
enum outcome {
	OUTCOME_FOREIGN, /* no service's address: none of our business */
	OUTCOME_BACKEND,
	OUTCOME_REFUSE,
	OUTCOME_DROP,
	OUTCOME_NO_PORT, /* a cluster IP, and no port of its service */
};

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
static __always_inline struct frontend *
frontend_of(const struct bpf_sock_addr *ctx, const struct peer *to, __u64 netns, __u32 *flags)
{
	struct frontend_key key = {};

	key.address = to->frontend;
	key.port = to->frontend_port;
	key.protocol = ctx->protocol;
	return find_frontend(&key, netns, flags);
}

/* Where a new connection to this frontend goes; `flags` are the address's without one. `to` comes
 * zeroed but for the frontend's address and port. */
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
	view = frontend->type == FRONTEND_CLUSTER_IP ? VIEW_CLUSTER_IP : VIEW_INSIDE;
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

static __always_inline bool is_ours(const struct bpf_sock_addr *ctx)
{
	return ctx->protocol == IPPROTO_TCP || ctx->protocol == IPPROTO_UDP;
}

/* connect(): fills `to`; the caller writes its address back on SOCK_PROCEED if it has a port. */
static __always_inline int on_connect(struct bpf_sock_addr *ctx, struct peer *to)
{
	__u64 netns = bpf_get_netns_cookie(ctx);
	struct frontend *frontend;
	__u32 flags = 0;

	if (!ctx->sk)
		return SOCK_PROCEED;
	frontend = frontend_of(ctx, to, netns, &flags);
	switch (translate(frontend, flags, to, netns)) {
	case OUTCOME_FOREIGN:
		forget_connected(ctx->sk);
		return SOCK_PROCEED;
	case OUTCOME_REFUSE:
		return refuse(REASON_NO_BACKEND);
	case OUTCOME_NO_PORT:
		return refuse(REASON_NO_SERVICE_PORT);
	case OUTCOME_DROP:
		into_the_void(to);
		break;
	}
	if (!remember_connected(ctx->sk, to))
		return refuse(REASON_NO_MEMORY);
	return SOCK_PROCEED;
}

int connect4(struct bpf_sock_addr *ctx)
{
	struct peer to = {};
	int verdict;

	if (!is_ours(ctx))
		return SOCK_PROCEED;
	load_v4(ctx, &to.frontend);
	to.frontend_port = ctx->user_port;
	verdict = on_connect(ctx, &to);
	if (to.port)
		store_v4(ctx, &to.address, to.port);
	return verdict;
}

int connect6(struct bpf_sock_addr *ctx)
{
	struct peer to = {};
	int verdict;

	if (!is_ours(ctx))
		return SOCK_PROCEED;
	load_v6(ctx, &to.frontend);
	to.frontend_port = ctx->user_port;
	verdict = on_connect(ctx, &to);
	if (to.port)
		store_v6(ctx, &to.address, to.port);
	return verdict;
}

/* The backend that this socket's datagrams to the frontend went to, while it lives and the
 * frontend leads to the same service. It may have left its list for draining; once it is gone
 * the next datagram goes elsewhere. */
static __always_inline bool same_as_before(struct peers *peers, const struct frontend *frontend,
					   struct peer *to)
{
	struct peer *before = peer_by_frontend(peers, &to->frontend, to->frontend_port);
	struct backend *backend;
	__u32 id;

	if (!before || !before->backend || before->service != frontend->service)
		return false;
	id = before->backend;
	backend = backends.lookup(&id);
	if (!backend || !is_alive(backend, before->generation))
		return false;
	to->address = before->address;
	to->port = before->port;
	return true;
}

/* sendto() and sendmsg() with an address, on UDP sockets. */
static __always_inline int on_sendmsg(struct bpf_sock_addr *ctx, struct peer *to)
{
	__u64 netns = bpf_get_netns_cookie(ctx);
	struct frontend *frontend;
	struct peers *peers;
	struct peer *stale;
	__u32 flags = 0;

	if (!ctx->sk)
		return SOCK_PROCEED;
	frontend = frontend_of(ctx, to, netns, &flags);
	peers = unconnected.sk_storage_get(ctx->sk, 0, 0);
	if (peers && frontend && same_as_before(peers, frontend, to))
		return SOCK_PROCEED;
	switch (translate(frontend, flags, to, netns)) {
	case OUTCOME_FOREIGN:
		/* Talked to by its own address from now on: replies keep it. */
		stale = peers ? peer_by_backend(peers, &to->frontend, to->frontend_port) : NULL;
		if (stale)
			stale->port = 0;
		return SOCK_PROCEED;
	case OUTCOME_REFUSE:
		return refuse(REASON_NO_BACKEND);
	case OUTCOME_NO_PORT:
		return refuse(REASON_NO_SERVICE_PORT);
	case OUTCOME_DROP:
		into_the_void(to);
		break;
	}
	peers = unconnected.sk_storage_get(ctx->sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!peers)
		return refuse(REASON_NO_MEMORY);
	remember_unconnected(peers, to);
	return SOCK_PROCEED;
}

int sendmsg4(struct bpf_sock_addr *ctx)
{
	struct peer to = {};
	int verdict;

	load_v4(ctx, &to.frontend);
	to.frontend_port = ctx->user_port;
	verdict = on_sendmsg(ctx, &to);
	if (to.port)
		store_v4(ctx, &to.address, to.port);
	return verdict;
}

int sendmsg6(struct bpf_sock_addr *ctx)
{
	struct peer to = {};
	int verdict;

	load_v6(ctx, &to.frontend);
	to.frontend_port = ctx->user_port;
	verdict = on_sendmsg(ctx, &to);
	if (to.port)
		store_v6(ctx, &to.address, to.port);
	return verdict;
}

/* recvfrom() and getpeername(): the service's address in place of the backend's. */
static __always_inline int show_v4(struct bpf_sock_addr *ctx)
{
	struct addr address = {};
	struct peer *peer;

	if (!ctx->sk)
		return SOCK_PROCEED;
	load_v4(ctx, &address);
	peer = peer_of(ctx->sk, &address, ctx->user_port);
	if (peer)
		store_v4(ctx, &peer->frontend, peer->frontend_port);
	return SOCK_PROCEED;
}

static __always_inline int show_v6(struct bpf_sock_addr *ctx)
{
	struct addr address = {};
	struct peer *peer;

	if (!ctx->sk)
		return SOCK_PROCEED;
	load_v6(ctx, &address);
	peer = peer_of(ctx->sk, &address, ctx->user_port);
	if (peer)
		store_v6(ctx, &peer->frontend, peer->frontend_port);
	return SOCK_PROCEED;
}

int recvmsg4(struct bpf_sock_addr *ctx)
{
	return show_v4(ctx);
}

int recvmsg6(struct bpf_sock_addr *ctx)
{
	return show_v6(ctx);
}

int getpeername4(struct bpf_sock_addr *ctx)
{
	return show_v4(ctx);
}

int getpeername6(struct bpf_sock_addr *ctx)
{
	return show_v6(ctx);
}

/* The last descriptor of a socket is closed. */
int sock_release(struct bpf_sock *ctx)
{
	forget_connected(ctx);
	return SOCK_PROCEED;
}

/* Addresses of a packet as it leaves a socket. */
struct packet {
	struct addr source;
	struct addr destination;
	__be16 port; /* of the destination */
	__u16 pad;
};

/* False: not TCP or UDP right behind the IP header, so no doing of ours. */
static __always_inline bool read_packet(struct __sk_buff *skb, struct packet *packet)
{
	struct iphdr v4;
	struct ipv6hdr v6;
	__u32 offset;
	__u8 protocol;

	if (skb->family == AF_INET) {
		if (bpf_skb_load_bytes(skb, 0, &v4, sizeof(v4)))
			return false;
		packet->source.word[2] = V4_PREFIX;
		packet->source.word[3] = v4.saddr;
		packet->destination.word[2] = V4_PREFIX;
		packet->destination.word[3] = v4.daddr;
		protocol = v4.protocol;
		offset = v4.ihl * 4;
	} else {
		if (bpf_skb_load_bytes(skb, 0, &v6, sizeof(v6)))
			return false;
		__builtin_memcpy(&packet->source, &v6.saddr, sizeof(v6.saddr));
		__builtin_memcpy(&packet->destination, &v6.daddr, sizeof(v6.daddr));
		protocol = v6.nexthdr;
		offset = sizeof(v6);
	}
	if (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP)
		return false;
	return !bpf_skb_load_bytes(skb, offset + 2, &packet->port, sizeof(packet->port));
}

/* Egress of this cgroup's sockets. Source ranges are judged here and not at connect(), because
 * the source address is chosen after it. */
int guard(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;
	struct packet packet = {};
	struct peer *peer;

	if (!sk)
		return SKB_PASS;
	sk = bpf_sk_fullsock(sk);
	if (!sk || !read_packet(skb, &packet))
		return SKB_PASS;
	peer = peer_of(sk, &packet.destination, packet.port);
	if (!peer)
		return SKB_PASS;
	if (peer->flags & PEER_DROP)
		return discard(REASON_NO_LOCAL_BACKEND);
	if (peer->flags & PEER_RANGES && !in_ranges(peer->service, &packet.source))
		return discard(REASON_SOURCE_RANGE);
	return SKB_PASS;
}
