/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* ctx_xdp.h - what an XDP program is given, under the names that ctx_skb.h has, too.
 * Reads: devices. */
#ifndef TIDEGATE_CTX_XDP_H
#define TIDEGATE_CTX_XDP_H

#include "reason.h"

#define packet_ctx xdp_md
#define IS_LAST false /* what it hands up meets tc */

/* Verdicts (include/uapi/linux/bpf.h): on to the stack and the tc programs, or the end. */
enum packet_verdict {
	PACKET_NEXT = XDP_PASS,
	PACKET_DROP = XDP_DROP,
};

/* The packet ends here. */
static __always_inline int drop(__u32 reason)
{
	count(reason);
	return PACKET_DROP;
}

/* It would end here, but its sender may be told so, which is for tc. */
static __always_inline int decline(struct xdp_md *ctx, __u32 reason)
{
	return PACKET_NEXT;
}

/* What packet.h does not read is for tc, too. */
static __always_inline int receive_odd(struct xdp_md *ctx)
{
	return PACKET_NEXT;
}

/* Headers end before it: Ethernet, an IPv4 header at its longest, and L4 within it. The verifier
 * has to see a bound at each use of an offset that was read from the packet. */
#define FARTHEST 127

/* Where `size` octets lie; NULL: not in the packet. */
static __always_inline void *reach(struct xdp_md *ctx, __u32 at, __u32 size)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;

	if (at > FARTHEST)
		return NULL;
	data += at;
	return data + size > end ? NULL : data;
}

static __always_inline bool load(struct xdp_md *ctx, __u32 at, void *to, const __u32 size)
{
	void *from = reach(ctx, at, size);

	if (!from)
		return false;
	__builtin_memcpy(to, from, size);
	return true;
}

static __always_inline bool store(struct xdp_md *ctx, __u32 at, const void *from, const __u32 size)
{
	void *to = reach(ctx, at, size);

	if (!to)
		return false;
	__builtin_memcpy(to, from, size);
	return true;
}

/* Octets of the frame. */
static __always_inline __u32 frame_octets(struct xdp_md *ctx)
{
	return ctx->data_end - ctx->data;
}

/* A wire carries no packets put together. */
static __always_inline bool is_merged(struct xdp_md *ctx)
{
	return false;
}

static __always_inline __u32 device_of(struct xdp_md *ctx)
{
	return ctx->ingress_ifindex;
}

/* The kind of packet (ETH_P_*), network byte order; with a VLAN tag it is that of the tag. */
static __always_inline __be16 kind_of(struct xdp_md *ctx)
{
	struct ethhdr *frame = reach(ctx, 0, sizeof(*frame));

	return frame ? frame->h_proto : 0;
}

static __always_inline struct device *find_device(__u32 index)
{
	return devices.lookup(&index);
}

/* A device that hears all brings other machines' packets too, which the stack ignores. */
static __always_inline bool is_for_us(struct xdp_md *ctx)
{
	struct device *device = find_device(ctx->ingress_ifindex);
	struct ethhdr *frame = reach(ctx, 0, sizeof(*frame));

	__u16 *to, *own;

	if (!device || !frame)
		return false;
	to = (__u16 *)frame->h_dest;
	own = (__u16 *)device->mac;
	return to[0] == own[0] && to[1] == own[1] && to[2] == own[2];
}

#endif
