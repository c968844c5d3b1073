/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* mss.h - asks a client for smaller segments (RFC 9293, 3.7.1): what it sends grows on the
 * way, and has to fit all the same. The client hears it from the backend's SYN, which leaves by
 * the backend's node. */
#ifndef TIDEGATE_MSS_H
#define TIDEGATE_MSS_H

#include "rewrite.h"

#define OPTION_END 0
#define OPTION_NOTHING 1
#define OPTION_MSS 2
#define OPTION_MSS_SIZE 4
#define TCP_SIZE 20
#define OPTIONS_AT_MOST 10 /* of real ones MSS is among the first */

/* The largest segment that still fits, octets; 0: unknown. */
static __always_inline __u32 largest_segment(struct __sk_buff *ctx, const struct pkt *pkt)
{
	__u32 headers = 2 * outer_size(pkt) + TCP_SIZE;
	__u32 octets = 0;

	/* Only the MTU of the device is asked for: no packet is longer than none. */
	if (bpf_check_mtu(ctx, 0, &octets, 0, 0) < 0 || octets <= headers)
		return 0;
	return octets - headers;
}

static __always_inline bool lower(struct __sk_buff *ctx, const struct pkt *pkt, __u32 at,
				  __u16 most)
{
	__be16 to = bpf_htons(most);
	__be16 from;

	if (!load(ctx, at, &from, sizeof(from)))
		return false;
	if (bpf_ntohs(from) <= most)
		return true;
	if (!store(ctx, at, &to, sizeof(to)))
		return false;
	/* A sum is taken by pairs of octets from the start of the header. */
	if ((at - pkt->l4) & 1) {
		from = from << 8 | from >> 8;
		to = to << 8 | to >> 8;
	}
	return !bpf_l4_csum_replace(ctx, pkt->l4 + 16, from, to, sizeof(to));
}

/* False: half done. */
static __always_inline bool clamp_mss(struct __sk_buff *ctx, const struct pkt *pkt)
{
	__u32 most = largest_segment(ctx, pkt);
	__u32 at = pkt->l4 + TCP_SIZE, end;
	__u8 words, option[2];

	if (!most || !load(ctx, pkt->l4 + 12, &words, 1))
		return true;
	end = pkt->l4 + (words >> 4) * 4;
	for (int i = 0; i < OPTIONS_AT_MOST; i++) {
		if (at + 2 > end || !load(ctx, at, option, 2) || option[0] == OPTION_END)
			return true;
		if (option[0] == OPTION_NOTHING) {
			at++;
			continue;
		}
		if (option[0] == OPTION_MSS && option[1] == OPTION_MSS_SIZE)
			return lower(ctx, pkt, at + 2, most);
		if (option[1] < 2)
			return true;
		at += option[1];
	}
	return true;
}

#endif
