/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* odd.h - reads what packet.h leaves: fragments, IPv6 extension headers, ICMP; and plain packets,
 * too. Never changes a packet. */
#ifndef TIDEGATE_ODD_H
#define TIDEGATE_ODD_H

#include "packet.h"

#define OFFSET_MASK bpf_htons(0x1fff) /* of the word that FRAGMENT_MASK is for */
#define EXTENSIONS 4                  /* how many IPv6 extension headers are read at most */

#define ICMP_HEADER 8 /* octets, of either family (RFC 792; RFC 4443, 2.1) */
#define PROTO_ICMP 1
#define PROTO_ICMP6 58

enum extension { /* RFC 8200, 4 */
		 EXTENSION_HOP_BY_HOP = 0,
		 EXTENSION_FRAGMENT = 44,
		 EXTENSION_DESTINATION = 60,
};

enum part {
	PART_WHOLE = 0,
	PART_FIRST = 1, /* with the headers of L4 */
	PART_LATER = 2,
};

struct odd {
	enum part part;
	__u32 id;   /* of the fragments of one packet */
	__u32 icmp; /* where ICMP begins; 0: it is none */
	__u8 type;
	__u8 code;
};

/* Both kinds of extension header, as far as it counts here. */
struct extension_header {
	__u8 next;
	__u8 units; /* of 8 octets, after the first; in a fragment header reserved */
	__be16 place;
	__u32 id;
};

/* Steps over extension headers to TCP, UDP or ICMPv6. False: cut short. A header that is not
 * known here stays as the packet's protocol, and makes it none of ours: with a routing header,
 * the destination is not the last one. */
static __always_inline bool skip_extensions(struct packet_ctx *ctx, struct pkt *pkt,
					    struct odd *odd)
{
	struct extension_header head;

	for (int i = 0; i < EXTENSIONS && odd->part != PART_LATER; i++) {
		__u8 kind = pkt->protocol;

		if (kind != EXTENSION_HOP_BY_HOP && kind != EXTENSION_FRAGMENT &&
		    kind != EXTENSION_DESTINATION)
			return true;
		if (!load(ctx, pkt->l4, &head, sizeof(head)))
			return false;
		pkt->protocol = head.next;
		pkt->l4 += 8;
		if (kind != EXTENSION_FRAGMENT) {
			pkt->l4 += head.units * 8;
			continue;
		}
		odd->id = head.id;
		if (head.place & bpf_htons(0xfff8))
			odd->part = PART_LATER;
		else if (head.place & bpf_htons(1))
			odd->part = PART_FIRST;
	}
	return true;
}

static __always_inline bool read_odd_v4(struct packet_ctx *ctx, struct pkt *pkt, struct odd *odd)
{
	struct fragment_of fragment = {};

	if (!read_v4(ctx, pkt, &fragment))
		return false;
	odd->id = fragment.id;
	if (fragment.place)
		odd->part = fragment.place & OFFSET_MASK ? PART_LATER : PART_FIRST;
	return true;
}

/* False: none of our business. Both come zeroed. A later fragment has no ports yet, and `l4` 0. */
static __always_inline bool read_odd(struct packet_ctx *ctx, struct pkt *pkt, struct odd *odd)
{
	__be16 kind = kind_of(ctx);

	pkt->odd = 1;
	pkt->device = device_of(ctx);
	if (kind == bpf_htons(ETH_P_IP)) {
		if (!read_odd_v4(ctx, pkt, odd))
			return false;
	} else if (kind == bpf_htons(ETH_P_IPV6)) {
		if (!read_v6(ctx, pkt) || !skip_extensions(ctx, pkt, odd))
			return false;
	} else {
		return false;
	}
	if (!read_length(ctx, pkt))
		return false;
	if (odd->part == PART_LATER) {
		pkt->l4 = 0;
		return pkt->protocol == IPPROTO_TCP || pkt->protocol == IPPROTO_UDP;
	}
	if (pkt->protocol != (pkt->v4 ? PROTO_ICMP : PROTO_ICMP6))
		return read_ports(ctx, pkt);
	if (odd->part != PART_WHOLE || ETH_HLEN + pkt->octets < pkt->l4 + ICMP_HEADER)
		return false;
	odd->icmp = pkt->l4;
	pkt->l4 = 0;
	return load(ctx, odd->icmp, &odd->type, 1) && load(ctx, odd->icmp + 1, &odd->code, 1);
}

/* Puts down what was read of a packet, for read_noted to take up. There the verifier sees but
 * numbers, and not all the ways to them, of which each would be followed to its end. */
static __always_inline void note(struct __sk_buff *ctx, const struct pkt *pkt)
{
	ctx->cb[NOTE_L4] = pkt->l4;
	ctx->cb[NOTE_KIND] = pkt->protocol | pkt->tcp << 8 | pkt->odd << 16;
	ctx->cb[NOTE_PORTS] = pkt->ends.source_port | pkt->ends.destination_port << 16;
	ctx->cb[NOTE_TRY] = 0;
}

/* What `note` put down, and the rest from the packet. */
static __always_inline bool read_noted(struct __sk_buff *ctx, struct pkt *pkt)
{
	__u32 ports = ctx->cb[NOTE_PORTS], kind = ctx->cb[NOTE_KIND];
	struct fragment_of fragment;

	pkt->device = device_of(ctx);
	pkt->odd = kind >> 16 & 1;
	if (kind_of(ctx) == bpf_htons(ETH_P_IP) ? !read_v4(ctx, pkt, &fragment)
						: !read_v6(ctx, pkt))
		return false;
	pkt->l4 = ctx->cb[NOTE_L4];
	pkt->protocol = kind;
	pkt->tcp = kind >> 8;
	pkt->ends.source_port = ports;
	pkt->ends.destination_port = ports >> 16;
	return read_length(ctx, pkt);
}

/* An error about a packet, and no question (RFC 792; RFC 4443, 2.1)? */
static __always_inline bool is_icmp_error(const struct pkt *pkt, const struct odd *odd)
{
	if (!odd->icmp)
		return false;
	if (!pkt->v4)
		return odd->type < 128;
	return odd->type == 3 || odd->type == 4 || odd->type == 5 || odd->type == 11 ||
	       odd->type == 12;
}

#endif
