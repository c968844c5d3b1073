/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* unmark.h - takes packets that other nodes marked for backends of this one (mark.h), as unwrap.h
 * takes wrapped ones. A mark of anybody else would have a pod answer with an address of his choice:
 * where it names a service, the packet ends here. Reads: addresses, frontends. */
#ifndef TIDEGATE_UNMARK_H
#define TIDEGATE_UNMARK_H

#include "mark.h"
#include "unwrap.h"

/* The packet without its mark, `pkt` as well. False: it may be half done. */
static __always_inline bool remove_mark(struct __sk_buff *ctx, struct pkt *pkt)
{
	__u64 flags = pkt->protocol == IPPROTO_TCP ? 0 : BPF_F_ADJ_ROOM_FIXED_GSO;
	int room = mark_size(pkt->v4);
	struct ipv6hdr v6;
	struct iphdr v4;
	__u8 next;

	if (!pkt->v4 && !load(ctx, ETH_HLEN + sizeof(v6), &next, 1))
		return false;
	if (bpf_skb_adjust_room(ctx, -room, BPF_ADJ_ROOM_NET, flags))
		return false;
	pkt->l4 -= room;
	pkt->octets -= room;
	if (!pkt->v4) {
		if (!load(ctx, ETH_HLEN, &v6, sizeof(v6)))
			return false;
		v6.nexthdr = next;
		v6.payload_len = bpf_htons(bpf_ntohs(v6.payload_len) - room);
		return !bpf_skb_store_bytes(ctx, ETH_HLEN, &v6, sizeof(v6), BPF_F_RECOMPUTE_CSUM);
	}
	if (!load(ctx, ETH_HLEN, &v4, sizeof(v4)))
		return false;
	v4.ihl = sizeof(v4) / 4;
	v4.tot_len = bpf_htons(bpf_ntohs(v4.tot_len) - room);
	v4.check = 0;
	v4.check = ~fold((__u32)csum_diff(NULL, 0, (__be32 *)&v4, sizeof(v4), 0));
	return !bpf_skb_store_bytes(ctx, ETH_HLEN, &v4, sizeof(v4), BPF_F_RECOMPUTE_CSUM);
}

/* A packet with a mark. */
static __always_inline int unmark(struct __sk_buff *ctx, struct pkt *pkt)
{
	struct ends wire = pkt->ends, to;
	struct backend backend = {};
	struct frontend *frontend;
	struct flow *flow;

	if (!read_mark(ctx, ETH_HLEN, pkt->v4, &pkt->ends))
		return PACKET_NEXT;
	frontend = served(pkt);
	if (!is_known(&wire.source, ADDRESS_PEER)) {
		pkt->ends = wire;
		if (frontend)
			return lose(ctx, pkt, frontend->service, REASON_STRANGER);
		tails.call(ctx, TAIL_FLOW);
		return PACKET_NEXT;
	}
	if (!frontend)
		return lose(ctx, pkt, 0, REASON_NOT_SERVED);
	backend.address = wire.destination;
	backend.port = wire.destination_port;
	backend.views = BACKEND_HERE;
	backend.service = frontend->service;
	if (!remove_mark(ctx, pkt))
		return lose(ctx, pkt, backend.service, REASON_REWRITE);
	flow = handed_over(ctx, pkt, &backend);
	if (!flow)
		return lose(ctx, pkt, backend.service, REASON_NO_PORT);
	touch(flow, pkt, SIDE_CLIENT);
	to = wire;
	to.source = pkt->ends.source;
	pkt->ends = wire;
	return hand_to_stack(ctx, pkt, &to);
}

#endif
