/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* rewrite_xdp.h - gives a packet other ends and sends it on, from XDP: straight into the frame,
 * checksums by difference (RFC 1624), since what comes from a wire carries whole ones.
 * Reads: devices. */
#ifndef TIDEGATE_REWRITE_XDP_H
#define TIDEGATE_REWRITE_XDP_H

#include "checksum.h"
#include "route.h"
#include "tell.h"
#include "tunnel.h"

/* UDP: none stays none, and a sum that becomes 0 is written as ffff (RFC 768). */
static __always_inline bool replace_l4_checksum(struct xdp_md *ctx, const struct pkt *pkt,
						struct ends *to)
{
	struct ends *from = (struct ends *)&pkt->ends;
	bool udp = pkt->protocol == IPPROTO_UDP;
	__u32 at = pkt->l4 + (udp ? 6 : 16);
	__s64 change;
	__u16 *sum;

	/* Where it is added to the packet's start, which clang does before it is compared, the
	 * verifier has to see a bound all the same. */
	asm volatile("" : "+r"(at));
	sum = reach(ctx, at & FARTHEST, sizeof(*sum));

	change = csum_diff((__be32 *)&from->source, 32, (__be32 *)&to->source, 32, 0);
	if (change < 0 || !sum)
		return false;
	change = csum_diff((__be32 *)&from->source_port, 4, (__be32 *)&to->source_port, 4, change);
	if (change < 0)
		return false;
	if (udp && !*sum)
		return true;
	*sum = changed(*sum, change);
	if (udp && !*sum)
		*sum = 0xffff;
	return true;
}

static __always_inline bool replace_v4(struct xdp_md *ctx, const struct pkt *pkt, struct ends *to)
{
	__be32 from[2] = { pkt->ends.source.word[3], pkt->ends.destination.word[3] };
	__be32 into[2] = { to->source.word[3], to->destination.word[3] };
	__s64 change = csum_diff(from, sizeof(from), into, sizeof(into), 0);
	struct iphdr *ip = reach(ctx, ETH_HLEN, sizeof(*ip));

	if (change < 0 || !ip)
		return false;
	ip->check = changed(ip->check, change);
	ip->saddr = into[0];
	ip->daddr = into[1];
	return true;
}

/* May its checksum still be the sum of the pseudo header alone, which the sending device was to
 * finish (CHECKSUM_PARTIAL)? XDP is not told, and a frame that it sends has no place to say so:
 * such a packet is for tc. A whole one looks like it once in 2^16, and is well served there. */
static __always_inline bool is_unfinished(struct xdp_md *ctx, const struct pkt *pkt)
{
	__u32 at = pkt->l4 + (pkt->protocol == IPPROTO_UDP ? 6 : 16);
	struct device *device = find_device(pkt->device);
	__u16 *sum = reach(ctx, at, sizeof(*sum));
	__s64 pseudo;

	if (!device || !(device->flags & DEVICE_VIRTUAL) || !sum)
		return false;
	pseudo = csum_diff(NULL, 0, (__be32 *)&pkt->ends.source, 32,
			   bpf_htons(pkt->octets + ETH_HLEN - pkt->l4) + bpf_htons(pkt->protocol));
	return pseudo >= 0 && *sum == fold(pseudo);
}

/* True: the packet has these ends now. False: it may be half done, and must not go on. */
static __always_inline bool rewrite(struct xdp_md *ctx, const struct pkt *pkt, struct ends *to)
{
	if (!replace_l4_checksum(ctx, pkt, to) || !store(ctx, pkt->l4, &to->source_port, 4))
		return false;
	if (pkt->v4)
		return replace_v4(ctx, pkt, to);
	return store(ctx, ETH_HLEN + 8, &to->source, 32);
}

/* One hop more. IPv4: TTL is the high byte of a word that the checksum covers. */
static __always_inline bool count_hop(struct xdp_md *ctx, const struct pkt *pkt)
{
	struct ipv6hdr *v6 = reach(ctx, ETH_HLEN, sizeof(*v6));
	struct iphdr *v4 = reach(ctx, ETH_HLEN, sizeof(*v4));

	if (!pkt->v4) {
		if (v6)
			v6->hop_limit--;
		return v6;
	}
	if (!v4)
		return false;
	v4->ttl--;
	v4->check = changed(v4->check, (__u16)~bpf_htons(0x100));
	return true;
}

/* To a backend of this node: the stack finds the way, tc rewrites. */
static __always_inline int hand_to_stack(struct xdp_md *ctx, const struct pkt *pkt, struct ends *to)
{
	return PACKET_NEXT;
}

/* May a frame go back to where it came from without a redirect? A veth leaves it lying until the
 * next one comes, unless its other end has an XDP program, too (veth_xdp_flush). */
static __always_inline bool returns(const struct pkt *pkt)
{
	struct device *device = find_device(pkt->device);

	return device && device->flags & (DEVICE_RETURNS | DEVICE_GENERIC);
}

/* Can XDP send a frame from where it came to this device? */
static __always_inline bool can_send(const struct pkt *pkt, __u32 index)
{
	struct device *from = find_device(pkt->device);
	struct device *to = find_device(index);

	if (!from || !to)
		return false;
	if (from->flags & DEVICE_GENERIC)
		return to->flags & DEVICE_ETHERNET;
	return to->flags & DEVICE_SENDS || (index == pkt->device && returns(pkt));
}

/* Out of the device that the routes named, to the neighbour that they named. */
static __always_inline int transmit(struct xdp_md *ctx, const struct pkt *pkt,
				    const struct bpf_fib_lookup *fib)
{
	struct ethhdr *frame = reach(ctx, 0, sizeof(*frame));

	if (!frame)
		return lose(ctx, pkt, 0, REASON_REWRITE);
	__builtin_memcpy(frame->h_dest, fib->dmac, ETH_ALEN);
	__builtin_memcpy(frame->h_source, fib->smac, ETH_ALEN);
	if (fib->ifindex == pkt->device && returns(pkt))
		return XDP_TX;
	return bpf_redirect(fib->ifindex, 0);
}

/* Rewrites and sends the packet on. Whatever stands in the way, an unknown neighbour, a packet
 * too long, a device that XDP cannot send through, is for tc: the packet goes up as it came. */
static __always_inline int forward(struct xdp_md *ctx, const struct pkt *pkt, struct ends *to)
{
	struct bpf_fib_lookup fib = {};
	long answer;

	if (pkt->hops <= 1 || is_unfinished(ctx, pkt))
		return PACKET_NEXT;
	answer = look_up_way(ctx, pkt, to, pkt->octets, &fib);
	if (answer != BPF_FIB_LKUP_RET_SUCCESS || !can_send(pkt, fib.ifindex))
		return PACKET_NEXT;
	if (!rewrite(ctx, pkt, to) || !count_hop(ctx, pkt))
		return lose(ctx, pkt, 0, REASON_REWRITE);
	return transmit(ctx, pkt, &fib);
}

/* A flow begins in tc. */
static __always_inline int begin_elsewhere(struct xdp_md *ctx, const struct pkt *pkt)
{
	return PACKET_NEXT;
}

/* Never called: XDP hands over in its one program. */
static __always_inline int balance_elsewhere(struct xdp_md *ctx, const struct pkt *pkt)
{
	return PACKET_NEXT;
}

/* How long a way is taken without asking the routes again. */
#define HOP_NS (NSEC_PER_SEC / 4)

/* The way to a backend; NULL: XDP has none. */
static __always_inline struct hop *find_hop(struct xdp_md *ctx, const struct pkt *pkt,
					    const struct addr *from, const struct backend *backend,
					    __u32 id)
{
	__u64 now = bpf_ktime_get_coarse_ns();
	struct bpf_fib_lookup fib = {};
	struct hop *hop = hops.lookup(&id);
	struct ends to;

	if (!hop || (__s64)(hop->until - now) > 0)
		return hop;
	to.source = *from;
	to.destination = backend->address;
	if (look_up_way(ctx, pkt, &to, 0, &fib) != BPF_FIB_LKUP_RET_SUCCESS ||
	    !can_send(pkt, fib.ifindex))
		return NULL;
	hop->device = fib.ifindex;
	hop->octets = fib.mtu_result;
	__builtin_memcpy(hop->source, fib.smac, ETH_ALEN);
	__builtin_memcpy(hop->destination, fib.dmac, ETH_ALEN);
	barrier();
	hop->until = now + HOP_NS;
	return hop;
}

/* The frame begins anew, so many octets before. */
static __always_inline bool begin_anew(struct xdp_md *ctx, const struct pkt *pkt,
				       const struct hop *hop, int octets)
{
	struct ethhdr *frame;

	if (bpf_xdp_adjust_head(ctx, -octets))
		return false;
	frame = reach(ctx, 0, sizeof(*frame));
	if (!frame)
		return false;
	__builtin_memcpy(frame->h_dest, hop->destination, ETH_ALEN);
	__builtin_memcpy(frame->h_source, hop->source, ETH_ALEN);
	frame->h_proto = bpf_htons(pkt->v4 ? ETH_P_IP : ETH_P_IPV6);
	return true;
}

/* With the outer header in it. */
static __always_inline bool write_outer(struct xdp_md *ctx, const struct pkt *pkt,
					const struct addr *from, const struct backend *backend,
					const struct hop *hop)
{
	void *outer;

	if (!begin_anew(ctx, pkt, hop, outer_size(pkt)))
		return false;
	if (pkt->v4) {
		outer = reach(ctx, ETH_HLEN, sizeof(struct iphdr));
		if (outer)
			wrap_v4(outer, pkt, from, backend);
	} else {
		outer = reach(ctx, ETH_HLEN, sizeof(struct ipv6hdr));
		if (outer)
			wrap_v6(outer, pkt, from, backend);
	}
	return outer;
}

/* With the header of the packet before the mark. */
static __always_inline bool write_mark(struct xdp_md *ctx, const struct pkt *pkt,
				       const struct addr *from, const struct backend *backend,
				       const struct hop *hop)
{
	struct marked_v6 v6;
	struct marked_v4 v4;
	struct ends to;

	to.source = *from;
	to.source_port = pkt->ends.source_port;
	to.destination = backend->address;
	to.destination_port = backend->port;
	if (!rewrite(ctx, pkt, &to))
		return false;
	if (pkt->v4) {
		if (!load(ctx, ETH_HLEN, &v4.ip, sizeof(v4.ip)))
			return false;
		mark_v4(&v4, &pkt->ends);
		return begin_anew(ctx, pkt, hop, sizeof(v4.mark)) &&
		       store(ctx, ETH_HLEN, &v4, sizeof(v4));
	}
	if (!load(ctx, ETH_HLEN, &v6.ip, sizeof(v6.ip)))
		return false;
	mark_v6(&v6, &pkt->ends);
	return begin_anew(ctx, pkt, hop, sizeof(v6.mark)) && store(ctx, ETH_HLEN, &v6, sizeof(v6));
}

/* Wraps or marks the packet for the backend's node and sends it; what stands in the way is for
 * tc. */
static __always_inline int hand_over(struct xdp_md *ctx, const struct pkt *pkt,
				     const struct addr *from, const struct backend *backend,
				     __u32 id, enum dispatch how)
{
	struct hop *hop;

	if (pkt->hops <= 1 || is_unfinished(ctx, pkt))
		return PACKET_NEXT;
	hop = find_hop(ctx, pkt, from, backend, id);
	if (!hop || pkt->octets + overhead(pkt, how) > hop->octets)
		return PACKET_NEXT;
	if (!count_hop(ctx, pkt))
		return lose(ctx, pkt, 0, REASON_REWRITE);
	if (how == DISPATCH_OPT ? !write_mark(ctx, pkt, from, backend, hop)
				: !write_outer(ctx, pkt, from, backend, hop))
		return lose(ctx, pkt, 0, REASON_REWRITE);
	if (hop->device == pkt->device && returns(pkt))
		return XDP_TX;
	return bpf_redirect(hop->device, 0);
}

/* Is there a way for a packet that will not fit? XDP leaves that to tc, too. */
static __always_inline bool fits(struct xdp_md *ctx, const struct pkt *pkt, const struct addr *from,
				 const struct backend *backend, enum dispatch how)
{
	return true;
}

#endif
