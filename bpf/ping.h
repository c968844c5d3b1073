/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* ping.h - answers echo requests to a service's address while a backend is usable, and nobody
 * else does: this node's stack has no such address, and would send them away, or round and round.
 * Reads: vips. */
#ifndef TIDEGATE_PING_H
#define TIDEGATE_PING_H

#include "answer.h"

static __always_inline struct vip *find_vip(const struct addr *address)
{
	return vips.lookup((struct addr *)address);
}

/* RFC 792; RFC 4443, 4.1. */
static __always_inline bool is_echo_request(const struct pkt *pkt, const struct odd *odd)
{
	return odd->icmp && odd->type == (pkt->v4 ? 8 : 128) && !odd->code;
}

/* The request becomes its reply. False: it may be half done. */
static __always_inline bool make_reply(struct __sk_buff *ctx, const struct pkt *pkt,
				       const struct odd *odd, const struct ends *to)
{
	__u16 before = odd->type, after = pkt->v4 ? 0 : 129; /* with code 0, as a word */
	__u32 octets = pkt->octets - (odd->icmp - ETH_HLEN);
	__u16 sum;

	if (!load(ctx, odd->icmp + 2, &sum, 2))
		return false;
	sum = changed(sum, (__u64)after + (__u16)~before);
	return store(ctx, odd->icmp, &after, 2) && store(ctx, odd->icmp + 2, &sum, 2) &&
	       write_ip(ctx, pkt->v4, to, octets, pkt->v4 ? PROTO_ICMP : PROTO_ICMP6);
}

static __always_inline int receive_ping(struct __sk_buff *ctx, const struct pkt *pkt,
					const struct odd *odd)
{
	struct vip *vip = find_vip(&pkt->ends.destination);
	struct bpf_fib_lookup fib = {};
	struct ends to = {};

	if (!vip)
		return PACKET_NEXT;
	if (!(vip->flags & VIP_SERVES) || !may_answer(pkt, odd, REASON_NO_BACKEND))
		return lose(ctx, pkt, 0, REASON_NO_BACKEND);
	to.source = pkt->ends.destination;
	to.destination = pkt->ends.source;
	if (odd->icmp != ETH_HLEN + (pkt->v4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr)) ||
	    !is_way(look_up_way(ctx, pkt, &to, pkt->octets, &fib)))
		return lose(ctx, pkt, 0, REASON_NO_ROUTE);
	if (!make_reply(ctx, pkt, odd, &to))
		return lose(ctx, pkt, 0, REASON_REWRITE);
	return redirect_to_neighbour(fib.ifindex, NULL, 0, 0);
}

#endif
