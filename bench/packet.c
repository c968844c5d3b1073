/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* packet.c - gives lb_xdp the same packet again and again, of one flow after the other. A program
 * that wraps changes its packet, so each run begins by putting it back. */

#include <linux/bpf.h>
#include <linux/if_ether.h>

struct given {
	__u64 runs;
	__u32 flows; /* a power of two */

	__u32 pad;
	__u8 frame[OCTETS];
};

BPF_ARRAY(given, struct given, 1);
BPF_ARRAY(came, __u64, 1);
BPF_PROG_ARRAY(next, 2);

static __always_inline void *restored(struct xdp_md *ctx, struct given *it)
{
	int more = (int)(ctx->data_end - ctx->data) - OCTETS;
	__u32 flow, source, port;
	__u8 *frame, *end;

	if (more && bpf_xdp_adjust_head(ctx, more))
		return NULL;
	frame = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	if (frame + OCTETS > end)
		return NULL;
	__builtin_memcpy(frame, it->frame, OCTETS);
	/* Odd, so that all flows come, and neighbours in time are none in the table. */
	flow = (it->runs++ * 0x9e3779b1) & (it->flows - 1);
	*(__u16 *)(frame + SOURCE) = bpf_htons(flow >> 14);
	*(__u16 *)(frame + PORT) = bpf_htons(10000 + (flow & 0x3fff));
	return frame;
}

/* Through a device: the frame goes out, and what comes back of it is counted. */
int send(struct xdp_md *ctx)
{
	int zero = 0;
	struct given *it = given.lookup(&zero);

	if (!it || !restored(ctx, it))
		return XDP_ABORTED;
	return XDP_TX;
}

int sink(struct xdp_md *ctx)
{
	int zero = 0;
	__u64 *count = came.lookup(&zero);

	if (count)
		++*count;
	return XDP_DROP;
}

static __always_inline int hand_over(struct xdp_md *ctx, int to)
{
	int zero = 0;
	struct given *it = given.lookup(&zero);

	if (!it || !restored(ctx, it))
		return XDP_ABORTED;
	next.call(ctx, to);
	return XDP_ABORTED;
}

int measure(struct xdp_md *ctx)
{
	return hand_over(ctx, 0);
}

/* All that `measure` does besides what it measures: a tail call, too. */
int around(struct xdp_md *ctx)
{
	return hand_over(ctx, 1);
}

int empty(struct xdp_md *ctx)
{
	return XDP_PASS;
}

/* The least that a balancer could do: read the header, send the frame back. */
int least(struct xdp_md *ctx)
{
	struct ethhdr *frame = (void *)(long)ctx->data;
	__u8 mac[ETH_ALEN];

	if ((void *)(frame + 1) > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	__builtin_memcpy(mac, frame->h_dest, ETH_ALEN);
	__builtin_memcpy(frame->h_dest, frame->h_source, ETH_ALEN);
	__builtin_memcpy(frame->h_source, mac, ETH_ALEN);
	return XDP_TX;
}
