/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* packet.h - reads a packet of a device: who sends what to whom. Never changes it.
 * TCP and UDP right behind an IPv4 header (options included) or an IPv6 header; all else is for
 * odd.h, or none of ours. */
#ifndef TIDEGATE_PACKET_H
#define TIDEGATE_PACKET_H

#include "service.h"

#define FRAGMENT_MASK bpf_htons(0x3fff) /* more fragments, or an offset (RFC 791) */
#define DONT_FRAGMENT bpf_htons(0x4000)

enum tcp_flag {
	TCP_FIN = 1,
	TCP_SYN = 2,
	TCP_RST = 4,
	TCP_ACK = 16,
};

struct pkt {
	struct ends ends;
	__u32 l4;     /* where TCP or UDP begins; 0: it has neither, so no ports to rewrite */
	__u32 octets; /* of the IP packet */
	__u32 device; /* where it is, by index; read once: clang would keep the address of the field,
		       * and the verifier refuses to read a context but by its own offsets */
	__u8 protocol;
	__u8 tcp; /* enum tcp_flag; 0 for UDP */
	__u8 hops;
	__u8 v4;
	__u8 tos;   /* or traffic class */
	__u8 whole; /* it may not be fragmented */
	__u8 odd;   /* odd.h has read it, and packet.h could not */
};

/* Of which packet a fragment is one, and where it belongs. */
struct fragment_of {
	__u32 id;     /* as it is on the wire */
	__be16 place; /* its offset and the bit for more; 0: it is none */
};

static __always_inline bool read_v4(struct packet_ctx *ctx, struct pkt *pkt,
				    struct fragment_of *fragment)
{
	struct iphdr ip;

	if (!load(ctx, ETH_HLEN, &ip, sizeof(ip)) || ip.version != 4 || ip.ihl < 5)
		return false;
	fragment->place = ip.frag_off & FRAGMENT_MASK;
	fragment->id = ip.id;
	pkt->ends.source.word[2] = V4_PREFIX;
	pkt->ends.source.word[3] = ip.saddr;
	pkt->ends.destination.word[2] = V4_PREFIX;
	pkt->ends.destination.word[3] = ip.daddr;
	pkt->protocol = ip.protocol;
	pkt->hops = ip.ttl;
	pkt->tos = ip.tos;
	pkt->whole = !!(ip.frag_off & DONT_FRAGMENT);
	pkt->l4 = ETH_HLEN + ip.ihl * 4;
	pkt->octets = bpf_ntohs(ip.tot_len);
	pkt->v4 = 1;
	return true;
}

/* `protocol` is that of the next header, whatever that is. */
static __always_inline bool read_v6(struct packet_ctx *ctx, struct pkt *pkt)
{
	struct ipv6hdr ip;

	if (!load(ctx, ETH_HLEN, &ip, sizeof(ip)) || ip.version != 6)
		return false;
	__builtin_memcpy(&pkt->ends.source, &ip.saddr, sizeof(ip.saddr));
	__builtin_memcpy(&pkt->ends.destination, &ip.daddr, sizeof(ip.daddr));
	pkt->protocol = ip.nexthdr;
	pkt->hops = ip.hop_limit;
	pkt->tos = ip.priority << 4 | ip.flow_lbl[0] >> 4;
	pkt->whole = 1;
	pkt->l4 = ETH_HLEN + sizeof(ip);
	pkt->octets = sizeof(ip) + bpf_ntohs(ip.payload_len);
	return true;
}

/* The header counts, and not the frame, which may be padded; but a packet put together of many may
 * be too long for its header to say. False: the end is missing. */
static __always_inline bool read_length(struct packet_ctx *ctx, struct pkt *pkt)
{
	__u32 octets = frame_octets(ctx) - ETH_HLEN;

	if (is_merged(ctx))
		pkt->octets = octets;
	return pkt->octets <= octets;
}

/* False: neither TCP nor UDP, or cut short. */
static __always_inline bool read_ports(struct packet_ctx *ctx, struct pkt *pkt)
{
	__u32 end = ETH_HLEN + pkt->octets;

	if (!load(ctx, pkt->l4, &pkt->ends.source_port, 4))
		return false;
	if (pkt->protocol == IPPROTO_TCP) /* a whole header: 13 is where its flags are */
		return load(ctx, pkt->l4 + 13, &pkt->tcp, 1) && end >= pkt->l4 + 20;
	return pkt->protocol == IPPROTO_UDP && end >= pkt->l4 + 8;
}

/* Options of IPv4? One of them may be another node's mark (mark.h). */
static __always_inline bool has_options(const struct pkt *pkt)
{
	return pkt->v4 && pkt->l4 != ETH_HLEN + sizeof(struct iphdr);
}

/* False: nothing plain. `pkt` comes zeroed. */
static __always_inline bool read_packet(struct packet_ctx *ctx, struct pkt *pkt)
{
	struct fragment_of fragment = {};
	__be16 kind = kind_of(ctx);

	pkt->device = device_of(ctx);
	if (kind == bpf_htons(ETH_P_IP)) {
		if (!read_v4(ctx, pkt, &fragment) || fragment.place)
			return false;
	} else if (kind == bpf_htons(ETH_P_IPV6)) {
		if (!read_v6(ctx, pkt))
			return false;
	} else {
		return false;
	}
	return read_length(ctx, pkt) && read_ports(ctx, pkt);
}

#endif
