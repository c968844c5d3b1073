/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* icmp.h - ICMP errors about packets of a flow: they go to whoever sent the packet, and quote it
 * as that one sent it, so that path MTU discovery works (RFC 5508, 4.2). Whatever of the
 * quoted packet's checksums is there stays exact; a quote of 8 octets of L4 is enough. */
#ifndef TIDEGATE_ICMP_H
#define TIDEGATE_ICMP_H

#include "balance.h"
#include "checksum.h"
#include "odd.h"

/* The packet that an error quotes. `back` has its ends the other way round: what the receiver
 * of that packet would send. */
struct quote {
	struct pkt back;
	__u32 l3; /* where its IP header begins */
};

static __always_inline bool read_quote_v4(struct packet_ctx *ctx, struct quote *quote)
{
	struct iphdr ip;

	if (!load(ctx, quote->l3, &ip, sizeof(ip)) || ip.version != 4 || ip.ihl < 5 ||
	    ip.frag_off & OFFSET_MASK)
		return false;
	quote->back.ends.source.word[2] = V4_PREFIX;
	quote->back.ends.source.word[3] = ip.daddr;
	quote->back.ends.destination.word[2] = V4_PREFIX;
	quote->back.ends.destination.word[3] = ip.saddr;
	quote->back.protocol = ip.protocol;
	quote->back.l4 = quote->l3 + ip.ihl * 4;
	quote->back.v4 = 1;
	return true;
}

static __always_inline bool read_quote_v6(struct packet_ctx *ctx, struct quote *quote)
{
	struct ipv6hdr ip;

	if (!load(ctx, quote->l3, &ip, sizeof(ip)) || ip.version != 6)
		return false;
	__builtin_memcpy(&quote->back.ends.source, &ip.daddr, sizeof(ip.daddr));
	__builtin_memcpy(&quote->back.ends.destination, &ip.saddr, sizeof(ip.saddr));
	quote->back.protocol = ip.nexthdr;
	quote->back.l4 = quote->l3 + sizeof(ip);
	return true;
}

/* False: it quotes nothing that could be a flow's. `quote` comes zeroed. */
static __always_inline bool read_quote(struct packet_ctx *ctx, const struct pkt *pkt,
				       const struct odd *odd, struct quote *quote)
{
	__be16 ports[2];

	quote->l3 = odd->icmp + ICMP_HEADER;
	if (!(pkt->v4 ? read_quote_v4(ctx, quote) : read_quote_v6(ctx, quote)))
		return false;
	if (quote->back.protocol != IPPROTO_TCP && quote->back.protocol != IPPROTO_UDP)
		return false;
	if (ETH_HLEN + pkt->octets < quote->back.l4 + 8 ||
	    !load(ctx, quote->back.l4, ports, sizeof(ports)))
		return false;
	quote->back.ends.source_port = ports[1];
	quote->back.ends.destination_port = ports[0];
	return true;
}

/* Changes a checksum inside of a packet; what that adds to a sum over it is added to `sum`. */
static __always_inline bool change_inner(struct packet_ctx *ctx, __u32 at, __u64 change, __u64 *sum)
{
	__u16 before, after;

	if (!load(ctx, at, &before, 2))
		return false;
	after = changed(before, change);
	*sum += (__u64)after + (__u16)~before;
	return store(ctx, at, &after, 2);
}

/* The checksum of the quoted TCP or UDP, if there is one and the quote goes so far. */
static __always_inline bool change_quoted_l4(struct packet_ctx *ctx, const struct pkt *pkt,
					     const struct quote *quote, __u64 change, __u64 *sum)
{
	bool udp = quote->back.protocol == IPPROTO_UDP;
	__u32 at = quote->back.l4 + (udp ? 6 : 16);
	__u16 before = 0;

	if (at + 2 > ETH_HLEN + pkt->octets)
		return true;
	if (!load(ctx, at, &before, 2))
		return false;
	return (udp && !before) || change_inner(ctx, at, change, sum);
}

/* The quoted packet gets other ends, given the other way round as in `quote`; the ICMP checksum
 * follows, and for IPv6 also the outer addresses, which it covers. False: it may be half done. */
static __always_inline bool rewrite_quote(struct packet_ctx *ctx, const struct pkt *pkt,
					  const struct odd *odd, struct quote *quote,
					  struct ends *back, struct ends *outer)
{
	struct ends *from = &quote->back.ends;
	__be16 ports[2] = { back->destination_port, back->source_port };
	__s64 addresses, both, around = 0;
	__u64 sum = 0;

	addresses = csum_diff((__be32 *)&from->source, 32, (__be32 *)&back->source, 32, 0);
	both = csum_diff((__be32 *)&from->source_port, 4, (__be32 *)&back->source_port, 4,
			 addresses);
	if (!pkt->v4)
		around =
			csum_diff((__be32 *)&pkt->ends.source, 32, (__be32 *)&outer->source, 32, 0);
	if (addresses < 0 || both < 0 || around < 0)
		return false;
	sum = (__u64)both + around;
	if (!change_quoted_l4(ctx, pkt, quote, both, &sum) ||
	    !store(ctx, quote->back.l4, ports, sizeof(ports)))
		return false;
	if (pkt->v4) {
		__be32 pair[2] = { back->destination.word[3], back->source.word[3] };

		if (!change_inner(ctx, quote->l3 + 10, addresses, &sum) ||
		    !store(ctx, quote->l3 + 12, pair, sizeof(pair)))
			return false;
	} else if (!store(ctx, quote->l3 + 8, &back->destination, sizeof(struct addr)) ||
		   !store(ctx, quote->l3 + 24, &back->source, sizeof(struct addr))) {
		return false;
	}
	sum = fold(sum);
	return change_inner(ctx, odd->icmp + 2, sum, &sum);
}

/* One about no flow of this node's: perhaps its answers went past. */
static __always_inline int receive_astray(struct __sk_buff *ctx, const struct pkt *pkt)
{
	if (ctx->cb[NOTE_WHENCE] == WHENCE_NODE)
		return lose(ctx, pkt, 0, REASON_NOT_SERVED);
	if (!FROM_PODS)
		tails.call(ctx, TAIL_PASS);
	return PACKET_NEXT;
}

/* An error that came in. About what this node sent on for the client, it goes to the client as
 * from the service, whose address it knows; about an answer, to the backend. */
static __always_inline int receive_error(struct __sk_buff *ctx, const struct pkt *pkt,
					 const struct odd *odd)
{
	struct ends back, outer = pkt->ends;
	struct quote quote = {};
	struct flow *flow;

	if (!read_quote(ctx, pkt, odd, &quote))
		return PACKET_NEXT;
	flow = find_back_by_port(&quote.back);
	if (flow) {
		translate(&quote.back, flow, SIDE_BACKEND, &back);
		outer.source = flow->frontend;
		outer.destination = flow->client;
	} else {
		flow = find_forth(&quote.back);
		if (!flow)
			return receive_astray(ctx, pkt);
		if (!translate(&quote.back, flow, SIDE_CLIENT, &back))
			return lose(ctx, pkt, 0, REASON_NO_ROUTE);
		outer.destination = flow->backend;
		if (flow->mode == FORWARDING_SNAT)
			outer.source = back.source;
	}
	if (!rewrite_quote(ctx, pkt, odd, &quote, &back, &outer))
		return lose(ctx, pkt, 0, REASON_REWRITE);
	if (same_address(&outer.destination, &flow->backend) && flow->mode != FORWARDING_SNAT)
		return hand_to_stack(ctx, pkt, &outer);
	return forward(ctx, pkt, &outer);
}

/* An error that a backend of this node, or this node itself, sends to a client about what the
 * client sent: it comes from the service. */
static __always_inline int send_error(struct __sk_buff *ctx, const struct pkt *pkt,
				      const struct odd *odd)
{
	struct ends back, outer = pkt->ends;
	struct quote quote = {};
	struct flow *flow;

	if (!read_quote(ctx, pkt, odd, &quote))
		return PACKET_NEXT;
	flow = find_back_by_client(&quote.back);
	if (!flow)
		return PACKET_NEXT;
	translate(&quote.back, flow, SIDE_BACKEND, &back);
	outer.source = flow->frontend;
	if (!rewrite_quote(ctx, pkt, odd, &quote, &back, &outer))
		return lose(ctx, pkt, 0, REASON_REWRITE);
	return rewrite(ctx, pkt, &outer) ? PACKET_NEXT : lose(ctx, pkt, 0, REASON_REWRITE);
}

#endif
