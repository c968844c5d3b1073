/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* route.h - asks this node's routes for the way from one address to another. */
#ifndef TIDEGATE_ROUTE_H
#define TIDEGATE_ROUTE_H

#include "packet.h"

#define AF_INET 2
#define AF_INET6 10

/* What the kernel says (BPF_FIB_LKUP_RET_*). `octets`: what must fit, 0: anything. */
static __always_inline long look_up_way(struct packet_ctx *ctx, const struct pkt *pkt,
					const struct ends *to, __u16 octets,
					struct bpf_fib_lookup *fib)
{
	fib->ifindex = pkt->device;
	fib->l4_protocol = pkt->protocol;
	fib->tot_len = octets;
	if (pkt->v4) {
		fib->family = AF_INET;
		fib->ipv4_src = to->source.word[3];
		fib->ipv4_dst = to->destination.word[3];
	} else {
		fib->family = AF_INET6;
		__builtin_memcpy(fib->ipv6_src, &to->source, sizeof(to->source));
		__builtin_memcpy(fib->ipv6_dst, &to->destination, sizeof(to->destination));
	}
	return bpf_fib_lookup(ctx, fib, sizeof(*fib), 0);
}

/* A way whose next neighbour is not known yet is one. */
static __always_inline bool is_way(long answer)
{
	return answer == BPF_FIB_LKUP_RET_SUCCESS || answer == BPF_FIB_LKUP_RET_NO_NEIGH;
}

#endif
