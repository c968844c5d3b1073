/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* tunnel.h - the outer header of a packet on its way to a backend's node: IP in IP (RFC 2003,
 * RFC 2473), addressed to the backend itself. The backend's port travels where nothing else is
 * read: in the Identification of a packet that is never fragmented (RFC 6864, 4.1), or in the
 * flow label. */
#ifndef TIDEGATE_TUNNEL_H
#define TIDEGATE_TUNNEL_H

#include "mark.h"

#define OUTER_HOPS 64

/* How a packet is handed to a backend's node: wrapped, or marked (mark.h). */
enum dispatch {
	DISPATCH_IPIP = 0,
	DISPATCH_OPT = 1,
};

static __always_inline __u32 outer_size(const struct pkt *pkt)
{
	return pkt->v4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr);
}

/* Octets that a packet grows by. */
static __always_inline __u32 overhead(const struct pkt *pkt, enum dispatch how)
{
	return how == DISPATCH_OPT ? mark_size(pkt->v4) : outer_size(pkt);
}

static __always_inline void wrap_v4(struct iphdr *ip, const struct pkt *pkt,
				    const struct addr *from, const struct backend *backend)
{
	__u16 *half = (__u16 *)ip;
	__u32 sum = 0;

	ip->version = 4;
	ip->ihl = sizeof(*ip) / 4;
	ip->tos = pkt->tos;
	ip->tot_len = bpf_htons(pkt->octets + sizeof(*ip));
	ip->id = backend->port;
	ip->frag_off = DONT_FRAGMENT;
	ip->ttl = OUTER_HOPS;
	ip->protocol = IPPROTO_IPIP;
	ip->check = 0;
	ip->saddr = from->word[3];
	ip->daddr = backend->address.word[3];
#pragma unroll
	for (int i = 0; i < sizeof(*ip) / 2; i++)
		sum += half[i];
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	ip->check = ~sum;
}

static __always_inline void wrap_v6(struct ipv6hdr *ip, const struct pkt *pkt,
				    const struct addr *from, const struct backend *backend)
{
	__be32 *words = (__be32 *)ip;

	words[0] = bpf_htonl(6 << 28 | pkt->tos << 20 | bpf_ntohs(backend->port));
	ip->payload_len = bpf_htons(pkt->octets);
	ip->nexthdr = IPPROTO_IPV6;
	ip->hop_limit = OUTER_HOPS;
	__builtin_memcpy(&ip->saddr, from, sizeof(*from));
	__builtin_memcpy(&ip->daddr, &backend->address, sizeof(*from));
}

#endif
