/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* ctx_skb.h - what a tc program is given, under the names that ctx_xdp.h has, too: the rest of
 * the text is compiled over either. Touches packets only through helpers, since much of a packet
 * may lie outside its linear part. */
#ifndef TIDEGATE_CTX_SKB_H
#define TIDEGATE_CTX_SKB_H

#include "reason.h"
#include "tail.h"

#define packet_ctx __sk_buff
#define IS_LAST true /* no hook of ours comes after it */

/* Verdicts of tc programs (include/uapi/linux/pkt_cls.h): the next filter's turn, or the end. */
enum packet_verdict {
	PACKET_NEXT = -1,
	PACKET_DROP = 2,
};

/* The packet ends here. */
static __always_inline int drop(__u32 reason)
{
	count(reason);
	return PACKET_DROP;
}

/* It ends here, and its sender is told so as far as that is allowed. */
static __always_inline int decline(struct __sk_buff *ctx, __u32 reason)
{
	ctx->cb[NOTE_REASON] = reason;
	tails.call(ctx, TAIL_ANSWER);
	return drop(reason);
}

/* What packet.h does not read, of a packet that comes in. */
static __always_inline int receive_odd(struct __sk_buff *ctx)
{
	tails.call(ctx, TAIL_IN);
	return PACKET_NEXT;
}

static __always_inline bool load(struct __sk_buff *ctx, __u32 at, void *to, __u32 size)
{
	return !bpf_skb_load_bytes(ctx, at, to, size);
}

static __always_inline bool store(struct __sk_buff *ctx, __u32 at, const void *from, __u32 size)
{
	return !bpf_skb_store_bytes(ctx, at, (void *)from, size, 0);
}

/* Octets of the frame. */
static __always_inline __u32 frame_octets(struct __sk_buff *ctx)
{
	return ctx->len;
}

/* Is it several packets put together, longer than the header may say? */
static __always_inline bool is_merged(struct __sk_buff *ctx)
{
	return ctx->gso_size;
}

static __always_inline __u32 device_of(struct __sk_buff *ctx)
{
	return ctx->ifindex;
}

/* The kind of packet (ETH_P_*), network byte order; 0: it has a VLAN tag, so it is none of ours. */
static __always_inline __be16 kind_of(struct __sk_buff *ctx)
{
	return ctx->vlan_present ? 0 : ctx->protocol;
}

/* A device that hears all brings other machines' packets too, which the stack ignores. To a port
 * of a bridge all packets are another's: those for this node carry the bridge's own address. */
static __always_inline bool is_for_us(struct __sk_buff *ctx)
{
	return ctx->pkt_type == PACKET_HOST || (FROM_PODS && ctx->pkt_type == PACKET_OTHERHOST);
}

#endif
