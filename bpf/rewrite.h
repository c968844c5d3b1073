/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* rewrite.h - gives a packet other ends, checksums kept exact, and sends it on.
 * Through the skb helpers, since packets of local senders carry unfinished checksums. */
#ifndef TIDEGATE_REWRITE_H
#define TIDEGATE_REWRITE_H

#include "checksum.h"
#include "odd.h"
#include "route.h"
#include "tell.h"
#include "tunnel.h"

/* bcc's own declaration lacks an argument (include/uapi/linux/bpf.h has four). */
static long (*redirect_to_neighbour)(__u32 device, void *params, int size,
				     __u64 flags) = (void *)BPF_FUNC_redirect_neigh;

/* True: done. The ports count in the checksum, the addresses by the pseudo header (RFC 9293,
 * 3.1; RFC 768), where v4-mapped ones add the same as plain ones: their prefixes cancel out. */
static __always_inline bool replace_l4_checksum(struct __sk_buff *ctx, const struct pkt *pkt,
						struct ends *to)
{
	__u32 at = pkt->l4 + (pkt->protocol == IPPROTO_TCP ? 16 : 6);
	/* UDP: none stays none, and a sum that becomes 0 is written as ffff. */
	__u64 flags = pkt->protocol == IPPROTO_TCP ? 0 : BPF_F_MARK_MANGLED_0;
	struct ends *from = (struct ends *)&pkt->ends;
	__s64 addresses, ports;

	addresses = csum_diff((__be32 *)&from->source, 32, (__be32 *)&to->source, 32, 0);
	ports = csum_diff((__be32 *)&from->source_port, 4, (__be32 *)&to->source_port, 4, 0);
	if (addresses < 0 || ports < 0)
		return false;
	return !bpf_l4_csum_replace(ctx, at, 0, addresses, BPF_F_PSEUDO_HDR | flags) &&
	       !bpf_l4_csum_replace(ctx, at, 0, ports, flags);
}

static __always_inline bool replace_v4(struct __sk_buff *ctx, const struct pkt *pkt,
				       struct ends *to)
{
	__be32 from[2] = { pkt->ends.source.word[3], pkt->ends.destination.word[3] };
	__be32 into[2] = { to->source.word[3], to->destination.word[3] };
	__s64 change = csum_diff(from, sizeof(from), into, sizeof(into), 0);

	if (change < 0)
		return false;
	return !bpf_l3_csum_replace(ctx, ETH_HLEN + 10, 0, change, 0) &&
	       !bpf_skb_store_bytes(ctx, ETH_HLEN + 12, into, sizeof(into), 0);
}

/* True: the packet has these ends now. False: it may be half done, and must not go on. */
static __always_inline bool rewrite(struct __sk_buff *ctx, const struct pkt *pkt, struct ends *to)
{
	if (pkt->l4 && (!replace_l4_checksum(ctx, pkt, to) ||
			bpf_skb_store_bytes(ctx, pkt->l4, &to->source_port, 4, 0)))
		return false;
	if (pkt->v4)
		return replace_v4(ctx, pkt, to);
	return !bpf_skb_store_bytes(ctx, ETH_HLEN + 8, &to->source, 32, 0);
}

/* One hop more. IPv4: TTL is the high byte of a word that the checksum covers. */
static __always_inline bool count_hop(struct __sk_buff *ctx, const struct pkt *pkt)
{
	__u8 hops = pkt->hops - 1;

	if (!pkt->v4)
		return !bpf_skb_store_bytes(ctx, ETH_HLEN + 7, &hops, 1, 0);
	return !bpf_l3_csum_replace(ctx, ETH_HLEN + 10, bpf_htons(pkt->hops << 8),
				    bpf_htons(hops << 8), 2) &&
	       !bpf_skb_store_bytes(ctx, ETH_HLEN + 8, &hops, 1, 0);
}

/* To a backend of this node: the stack finds the way. */
static __always_inline int hand_to_stack(struct __sk_buff *ctx, const struct pkt *pkt,
					 struct ends *to)
{
	return rewrite(ctx, pkt, to) ? PACKET_NEXT : lose(ctx, pkt, 0, REASON_REWRITE);
}

/* Octets of the longest IP packet that goes out, since the device takes a merged one apart. */
static __always_inline __u32 longest(struct __sk_buff *ctx, const struct pkt *pkt)
{
	__u8 words = 0;

	if (!ctx->gso_size)
		return pkt->octets;
	if (pkt->protocol == IPPROTO_UDP)
		words = 2 << 4;
	else if (pkt->l4)
		load(ctx, pkt->l4 + 12, &words, 1);
	return pkt->l4 - ETH_HLEN + (words >> 4) * 4 + ctx->gso_size;
}

/* Rewrites and sends the packet on, past this node's own stack, which would not have it: its
 * source is this node. The kernel finds the neighbour, and keeps the packet until it has. */
static __always_inline int forward(struct __sk_buff *ctx, const struct pkt *pkt, struct ends *to)
{
	struct bpf_fib_lookup fib = {};
	long answer;

	if (pkt->hops <= 1)
		return decline(ctx, REASON_HOP_LIMIT);
	answer = look_up_way(ctx, pkt, to, longest(ctx, pkt), &fib);
	if (answer == BPF_FIB_LKUP_RET_FRAG_NEEDED) {
		ctx->cb[NOTE_MTU] = fib.mtu_result;
		return decline(ctx, REASON_TOO_BIG);
	}
	if (!is_way(answer))
		return lose(ctx, pkt, 0, REASON_NO_ROUTE);
	if (!rewrite(ctx, pkt, to) || !count_hop(ctx, pkt))
		return lose(ctx, pkt, 0, REASON_REWRITE);
	return redirect_to_neighbour(fib.ifindex, NULL, 0, 0);
}

/* A flow begins in a program of its own: kernels before 6.4 would not get through it all in one
 * (they follow a million instructions, and see fewer ways as alike). */
static __always_inline int begin_elsewhere(struct __sk_buff *ctx, const struct pkt *pkt)
{
	note(ctx, pkt);
	tails.call(ctx, TAIL_BEGIN);
	return drop(REASON_NO_PORT);
}

/* The same program once more; what was noted is still there. */
static __always_inline void begin_again(struct __sk_buff *ctx, __u32 try)
{
	ctx->cb[NOTE_TRY] = try;
	tails.call(ctx, TAIL_BEGIN);
}

/* What is wrapped has a program of its own, too. */
static __always_inline int balance_elsewhere(struct __sk_buff *ctx, const struct pkt *pkt)
{
	note(ctx, pkt);
	tails.call(ctx, TAIL_DSR);
	return drop(REASON_NO_PORT);
}

/* What is needed to hand a packet over; beside all the rest it would not fit on the stack. */
struct wrapping {
	struct bpf_fib_lookup fib;
	struct ends to;
	union {
		struct iphdr v4;
		struct ipv6hdr v6;
		struct marked_v4 marked_v4;
		struct marked_v6 marked_v6;
	};
};

/* NULL: never, but the verifier cannot know. */
static __always_inline struct wrapping *wrapping(const struct addr *from,
						 const struct backend *backend)
{
	__u32 zero = 0;
	struct wrapping *room = (struct wrapping *)scratches.lookup(&zero);

	if (!room)
		return NULL;
	__builtin_memset(room, 0, sizeof(*room));
	room->to.source = *from;
	room->to.destination = backend->address;
	return room;
}

/* The way to the backend for the packet once it has grown (BPF_FIB_LKUP_RET_*). A packet put
 * together of many is cut to size when it leaves. */
static __always_inline long way_for_grown(struct __sk_buff *ctx, const struct pkt *pkt,
					  struct wrapping *room, enum dispatch how)
{
	__u32 octets = is_merged(ctx) ? 0 : pkt->octets + overhead(pkt, how);

	return look_up_way(ctx, pkt, &room->to, octets, &room->fib);
}

/* Does the packet fit through that way? */
static __always_inline bool fits(struct __sk_buff *ctx, const struct pkt *pkt,
				 const struct addr *from, const struct backend *backend,
				 enum dispatch how)
{
	struct wrapping *room = wrapping(from, backend);

	return room && way_for_grown(ctx, pkt, room, how) != BPF_FIB_LKUP_RET_FRAG_NEEDED;
}

static __always_inline bool write_outer(struct __sk_buff *ctx, const struct pkt *pkt,
					const struct addr *from, const struct backend *backend,
					struct wrapping *room)
{
	__u64 flags = pkt->v4 ? BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 : BPF_F_ADJ_ROOM_ENCAP_L3_IPV6;

	if (bpf_skb_adjust_room(ctx, outer_size(pkt), BPF_ADJ_ROOM_MAC, flags))
		return false;
	if (pkt->v4) {
		wrap_v4(&room->v4, pkt, from, backend);
		return store(ctx, ETH_HLEN, &room->v4, sizeof(room->v4));
	}
	wrap_v6(&room->v6, pkt, from, backend);
	return store(ctx, ETH_HLEN, &room->v6, sizeof(room->v6));
}

/* Datagrams put together of many stay as long as each of them is. */
static __always_inline bool write_mark(struct __sk_buff *ctx, const struct pkt *pkt,
				       const struct backend *backend, struct wrapping *room)
{
	__u64 flags = pkt->protocol == IPPROTO_TCP ? 0 : BPF_F_ADJ_ROOM_FIXED_GSO;

	room->to.source_port = pkt->ends.source_port;
	room->to.destination_port = backend->port;
	if (!rewrite(ctx, pkt, &room->to) ||
	    bpf_skb_adjust_room(ctx, mark_size(pkt->v4), BPF_ADJ_ROOM_NET, flags))
		return false;
	if (pkt->v4) {
		if (!load(ctx, ETH_HLEN, &room->marked_v4.ip, sizeof(room->marked_v4.ip)))
			return false;
		mark_v4(&room->marked_v4, &pkt->ends);
		return store(ctx, ETH_HLEN, &room->marked_v4, sizeof(room->marked_v4));
	}
	if (!load(ctx, ETH_HLEN, &room->marked_v6.ip, sizeof(room->marked_v6.ip)))
		return false;
	mark_v6(&room->marked_v6, &pkt->ends);
	return store(ctx, ETH_HLEN, &room->marked_v6, sizeof(room->marked_v6));
}

/* Wraps or marks the packet for the backend's node and sends it. */
static __always_inline int hand_over(struct __sk_buff *ctx, const struct pkt *pkt,
				     const struct addr *from, const struct backend *backend,
				     __u32 id, enum dispatch how)
{
	struct wrapping *room = wrapping(from, backend);
	long answer;

	if (pkt->hops <= 1)
		return decline(ctx, REASON_HOP_LIMIT);
	answer = room ? way_for_grown(ctx, pkt, room, how) : BPF_FIB_LKUP_RET_UNREACHABLE;
	if (room && answer == BPF_FIB_LKUP_RET_FRAG_NEEDED) {
		ctx->cb[NOTE_MTU] = room->fib.mtu_result - overhead(pkt, how);
		return decline(ctx, REASON_TOO_BIG);
	}
	if (!room || !is_way(answer))
		return lose(ctx, pkt, 0, REASON_NO_ROUTE);
	if (!count_hop(ctx, pkt))
		return lose(ctx, pkt, 0, REASON_REWRITE);
	if (how == DISPATCH_OPT ? !write_mark(ctx, pkt, backend, room)
				: !write_outer(ctx, pkt, from, backend, room))
		return lose(ctx, pkt, 0, REASON_REWRITE);
	return redirect_to_neighbour(room->fib.ifindex, NULL, 0, 0);
}

#endif
