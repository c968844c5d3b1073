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
#include "connect.h"
#include "event.h"
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

/* A call of a socket: it was led to a backend, or it met a reason. Counts and tells. */
static __always_inline void tell_call(const struct bpf_sock_addr *ctx, const struct peer *to,
				      __u64 netns, __u32 reason)
{
	struct listener *listener = heard_by();
	struct event *event;

	if (reason)
		count_refusal(to->service);
	else
		count_socket(to->service);
	if (!listener || (!reason && !is_sampled(listener)))
		return;
	event = begin_event(listener, reason ? EVENT_DROP : EVENT_CONNECT, HOOK_SOCKET);
	if (!event)
		return;
	event->netns = netns;
	event->destination = to->frontend;
	event->destination_port = to->frontend_port;
	event->backend = to->address;
	event->backend_port = to->port;
	event->service = to->service;
	event->id = to->backend;
	event->protocol = ctx->protocol;
	event->reason = reason;
	end_event(event);
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
	frontend = frontend_of(ctx->protocol, to, netns, &flags);
	switch (translate(frontend, flags, to, netns)) {
	case OUTCOME_FOREIGN:
		forget_connected(ctx->sk);
		return SOCK_PROCEED;
	case OUTCOME_REFUSE:
		tell_call(ctx, to, netns, REASON_NO_BACKEND);
		return refuse(REASON_NO_BACKEND);
	case OUTCOME_NO_PORT:
		tell_call(ctx, to, netns, REASON_NO_SERVICE_PORT);
		return refuse(REASON_NO_SERVICE_PORT);
	case OUTCOME_DROP:
		into_the_void(to);
		break;
	}
	if (!remember_connected(ctx->sk, to)) {
		tell_call(ctx, to, netns, REASON_NO_MEMORY);
		return refuse(REASON_NO_MEMORY);
	}
	if (to->backend)
		tell_call(ctx, to, netns, REASON_NONE);
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
	frontend = frontend_of(ctx->protocol, to, netns, &flags);
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
		tell_call(ctx, to, netns, REASON_NO_BACKEND);
		return refuse(REASON_NO_BACKEND);
	case OUTCOME_NO_PORT:
		tell_call(ctx, to, netns, REASON_NO_SERVICE_PORT);
		return refuse(REASON_NO_SERVICE_PORT);
	case OUTCOME_DROP:
		into_the_void(to);
		break;
	}
	peers = unconnected.sk_storage_get(ctx->sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!peers) {
		tell_call(ctx, to, netns, REASON_NO_MEMORY);
		return refuse(REASON_NO_MEMORY);
	}
	remember_unconnected(peers, to);
	if (to->backend)
		tell_call(ctx, to, netns, REASON_NONE);
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
	__be16 source_port;
	__be16 port; /* of the destination */
	__u32 protocol;
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
	packet->protocol = protocol;
	return !bpf_skb_load_bytes(skb, offset, &packet->source_port, 4);
}

/* The packet is discarded. Counts and tells. */
static __always_inline void tell_discard(const struct __sk_buff *skb, const struct packet *packet,
					 const struct peer *peer, __u32 reason)
{
	struct listener *listener = heard_by();
	struct event *event;

	count_refusal(peer->service);
	if (!listener)
		return;
	event = begin_event(listener, EVENT_DROP, HOOK_SOCKET);
	if (!event)
		return;
	event->source = packet->source;
	event->source_port = packet->source_port;
	event->destination = peer->frontend;
	event->destination_port = peer->frontend_port;
	if (peer->backend) {
		event->backend = peer->address;
		event->backend_port = peer->port;
	}
	event->service = peer->service;
	event->id = peer->backend;
	event->octets = skb->len;
	event->protocol = packet->protocol;
	event->reason = reason;
	end_event(event);
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
	if (peer->flags & PEER_DROP) {
		tell_discard(skb, &packet, peer, REASON_NO_LOCAL_BACKEND);
		return discard(REASON_NO_LOCAL_BACKEND);
	}
	if (peer->flags & PEER_RANGES && !in_ranges(peer->service, &packet.source)) {
		tell_discard(skb, &packet, peer, REASON_SOURCE_RANGE);
		return discard(REASON_SOURCE_RANGE);
	}
	return SKB_PASS;
}
