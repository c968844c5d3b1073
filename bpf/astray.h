/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* astray.h - ICMP errors about connections whose answers do not come by, so that path MTU discovery
 * works both ways (RFC 2003, 4; RFC 5508, 4.2). About what this node handed to a backend's node:
 * it becomes an error about the client's own packet. About an answer of the backend, which has the
 * service's address: to the backend. Reads: frontends, services, backends. Writes: dsr_flows. */
#ifndef TIDEGATE_ASTRAY_H
#define TIDEGATE_ASTRAY_H

#include "answer.h"
#include "icmp.h"
#include "mark.h"

/* A packet of ours that an error quotes: `asked` is what the client had sent. */
struct handed {
	struct pkt asked;
	struct addr node; /* that handed it over */
	struct addr backend;
	__u32 at; /* where its IP header begins, in the error */
	enum dispatch how;
};

/* Is what an error quotes at `at` wrapped or marked, by whomever? */
static __always_inline bool quotes_handed(struct __sk_buff *ctx, __u32 at, bool v4)
{
	__u8 next = 0;

	return (load(ctx, at + (v4 ? 9 : 6), &next, 1) &&
		next == (v4 ? IPPROTO_IPIP : IPPROTO_IPV6)) ||
	       has_mark(ctx, at, v4);
}

static __always_inline bool read_wire_ends(struct __sk_buff *ctx, struct handed *handed)
{
	if (!handed->asked.v4)
		return load(ctx, handed->at + 8, &handed->node, sizeof(handed->node)) &&
		       load(ctx, handed->at + 24, &handed->backend, sizeof(handed->backend));
	handed->node.word[2] = handed->backend.word[2] = V4_PREFIX;
	return load(ctx, handed->at + 12, &handed->node.word[3], 4) &&
	       load(ctx, handed->at + 16, &handed->backend.word[3], 4);
}

/* The client's packet within the wrapped one. */
static __always_inline bool read_inner(struct __sk_buff *ctx, struct handed *handed)
{
	struct quote inner = {};
	struct ends *back = &inner.back.ends;

	inner.l3 = handed->at + outer_size(&handed->asked);
	if (!(handed->asked.v4 ? read_quote_v4(ctx, &inner) : read_quote_v6(ctx, &inner)))
		return false;
	handed->asked.ends.source = back->destination;
	handed->asked.ends.destination = back->source;
	handed->asked.protocol = inner.back.protocol;
	handed->asked.l4 = inner.back.l4;
	return load(ctx, inner.back.l4, &handed->asked.ends.source_port, 4);
}

/* The client's packet as the mark has it. */
static __always_inline bool read_marked(struct __sk_buff *ctx, struct handed *handed)
{
	struct pkt *asked = &handed->asked;
	__u32 protocol = handed->at + (asked->v4 ? 9 : sizeof(struct ipv6hdr));

	asked->l4 = handed->at + outer_size(asked) + mark_size(asked->v4);
	if (asked->v4)
		asked->ends.source.word[2] = asked->ends.destination.word[2] = V4_PREFIX;
	return read_mark(ctx, handed->at, asked->v4, &asked->ends) &&
	       load(ctx, protocol, &asked->protocol, 1) &&
	       load(ctx, asked->l4, &asked->ends.source_port, 2);
}

/* False: it quotes nothing that was handed over, or too little of it. `handed` comes zeroed. */
static __always_inline bool read_handed(struct __sk_buff *ctx, const struct pkt *pkt,
					const struct odd *odd, struct handed *handed)
{
	handed->at = odd->icmp + ICMP_HEADER;
	handed->asked.v4 = pkt->v4;
	handed->asked.device = pkt->device;
	handed->how = has_mark(ctx, handed->at, pkt->v4) ? DISPATCH_OPT : DISPATCH_IPIP;
	if (!read_wire_ends(ctx, handed))
		return false;
	if (!(handed->how == DISPATCH_OPT ? read_marked(ctx, handed) : read_inner(ctx, handed)))
		return false;
	return ETH_HLEN + pkt->octets >= handed->asked.l4 + 8;
}

/* Did this node hand it over, in a connection that it knows? */
static __always_inline bool is_ours(const struct handed *handed)
{
	struct backend *backend;
	struct frontend *frontend;
	struct dsr_row *row;
	struct addr own;
	__u32 flags = 0;
	__u64 hash;
	__u32 id;

	frontend = asked_for(&handed->asked, &flags);
	if (!frontend || !(frontend->flags & FRONTEND_DSR))
		return false;
	row = dsr_row_for(&handed->asked, &hash, &own);
	if (!row || !same_address(&own, &handed->node))
		return false;
	id = dsr_recall(row, &handed->asked, hash, frontend->service);
	backend = backends.lookup(&id);
	return id && backend && same_address(&backend->address, &handed->backend);
}

/* The quoted packet loses its mark and gets its ends back, its header right in front of L4. */
static __always_inline bool unmark_quote(struct __sk_buff *ctx, const struct pkt *pkt,
					 const struct handed *handed)
{
	const struct pkt *asked = &handed->asked;
	struct ends wire = asked->ends;
	__u32 room = mark_size(asked->v4);
	bool udp = asked->protocol == IPPROTO_UDP;
	__u32 at = asked->l4 + (udp ? 6 : 16);
	struct ipv6hdr v6;
	struct iphdr v4;
	__u16 sum = 0;
	__s64 change;

	wire.source = handed->node;
	wire.destination = handed->backend;
	if (!load(ctx, asked->l4 + 2, &wire.destination_port, 2))
		return false;
	change = csum_diff((__be32 *)&wire, sizeof(wire), (__be32 *)&asked->ends, sizeof(wire), 0);
	if (change < 0 || !store(ctx, asked->l4 + 2, &asked->ends.destination_port, 2))
		return false;
	if (ETH_HLEN + pkt->octets >= at + 2) {
		if (!load(ctx, at, &sum, 2))
			return false;
		sum = udp && !sum ? 0 : changed(sum, change);
		if (!store(ctx, at, &sum, 2))
			return false;
	}
	if (!asked->v4) {
		if (!load(ctx, handed->at, &v6, sizeof(v6)))
			return false;
		v6.nexthdr = asked->protocol;
		v6.payload_len = bpf_htons(bpf_ntohs(v6.payload_len) - room);
		__builtin_memcpy(&v6.saddr, &asked->ends.source, sizeof(v6.saddr));
		__builtin_memcpy(&v6.daddr, &asked->ends.destination, sizeof(v6.daddr));
		return store(ctx, handed->at + room, &v6, sizeof(v6));
	}
	if (!load(ctx, handed->at, &v4, sizeof(v4)))
		return false;
	v4.ihl = sizeof(v4) / 4;
	v4.tot_len = bpf_htons(bpf_ntohs(v4.tot_len) - room);
	v4.saddr = asked->ends.source.word[3];
	v4.daddr = asked->ends.destination.word[3];
	v4.check = 0;
	v4.check = ~fold((__u32)csum_diff(NULL, 0, (__be32 *)&v4, sizeof(v4), 0));
	return store(ctx, handed->at + room, &v4, sizeof(v4));
}

/* The error becomes one about the client's packet, from the service. False: it may be half done. */
static __always_inline bool make_astray(struct __sk_buff *ctx, const struct pkt *pkt,
					const struct odd *odd, const struct handed *handed,
					const struct ends *to)
{
	__u32 room = overhead(&handed->asked, handed->how);
	__u32 head = outer_size(pkt), most = pkt->v4 ? QUOTE_V4 : QUOTE_V6;
	__u32 quote = pkt->octets - head - ICMP_HEADER - room;
	struct icmp_header icmp;
	__u32 mtu;
	__u64 sum;

	if (!load(ctx, odd->icmp, &icmp, sizeof(icmp)))
		return false;
	if (handed->how == DISPATCH_OPT && !unmark_quote(ctx, pkt, handed))
		return false;
	quote = quote < most ? quote : most;
	if (bpf_skb_change_tail(ctx, handed->at + room + quote, 0) ||
	    bpf_skb_adjust_room(ctx, -(int)room, BPF_ADJ_ROOM_MAC, 0))
		return false;
	mtu = bpf_ntohl(icmp.word);
	if (icmp.type == (pkt->v4 ? 3 : 2) && icmp.code == (pkt->v4 ? 4 : 0) && mtu > room)
		icmp.word = bpf_htonl(mtu - room);
	icmp.checksum = 0;
	sum = sum_of(ctx, ETH_HLEN + head + sizeof(icmp), quote);
	sum += (__u32)csum_diff(NULL, 0, (__be32 *)&icmp, sizeof(icmp), 0);
	if (!pkt->v4)
		sum += pseudo_sum(to, sizeof(icmp) + quote, PROTO_ICMP6);
	icmp.checksum = ~fold(sum);
	return store(ctx, ETH_HLEN + head, &icmp, sizeof(icmp)) &&
	       write_ip(ctx, pkt->v4, to, sizeof(icmp) + quote, pkt->v4 ? PROTO_ICMP : PROTO_ICMP6);
}

/* An error about what was handed over. */
static __always_inline int return_error(struct __sk_buff *ctx, const struct pkt *pkt,
					const struct odd *odd)
{
	struct bpf_fib_lookup fib = {};
	struct handed handed = {};
	struct ends to = {};

	if (odd->icmp != ETH_HLEN + outer_size(pkt) || !read_handed(ctx, pkt, odd, &handed) ||
	    !is_ours(&handed))
		return PACKET_NEXT;
	to.source = handed.asked.ends.destination;
	to.destination = handed.asked.ends.source;
	if (!is_way(look_up_way(ctx, pkt, &to, 0, &fib)))
		return lose(ctx, pkt, 0, REASON_NO_ROUTE);
	if (!make_astray(ctx, pkt, odd, &handed, &to))
		return lose(ctx, pkt, 0, REASON_REWRITE);
	return redirect_to_neighbour(fib.ifindex, NULL, 0, 0);
}

/* The backend of a connection, remembered or as it would be chosen; 0: none. */
static __always_inline __u32 backend_of(struct dsr_row *row, const struct pkt *pkt, __u64 hash,
					const struct frontend *frontend)
{
	__u32 service = frontend->service;
	__u32 id = dsr_recall(row, pkt, hash, service);
	struct service *found = services.lookup(&service);
	__u32 view;

	if (id || !found)
		return id;
	view = view_of(frontend, is_local(pkt, found));
	if (!view_count(found->view[view]))
		return 0;
	return hashed_backend(found, view, hash_of(pkt, found->affinity_seconds));
}

/* An error about an answer that went past this node. Wrapped, it goes as it is: the backend's node
 * knows the flow, and a plain server has the service's address itself. With marks, the quote
 * becomes what the backend sent. */
static __always_inline int pass_error(struct __sk_buff *ctx, const struct pkt *pkt,
				      const struct odd *odd)
{
	struct ends back, outer = pkt->ends;
	struct frontend *frontend;
	struct backend *backend;
	struct quote quote = {};
	struct dsr_row *row;
	__u32 flags = 0;
	__u64 hash;
	__u32 id;

	if (!read_quote(ctx, pkt, odd, &quote))
		return PACKET_NEXT;
	frontend = asked_for(&quote.back, &flags);
	if (!frontend || !(frontend->flags & FRONTEND_DSR))
		return PACKET_NEXT;
	row = dsr_row_for(&quote.back, &hash, &outer.source);
	if (!row)
		return PACKET_NEXT;
	id = backend_of(row, &quote.back, hash, frontend);
	backend = backends.lookup(&id);
	if (!id || !backend || backend->views & BACKEND_HERE)
		return PACKET_NEXT;
	if (dispatch_of(frontend) == DISPATCH_IPIP)
		return hand_over(ctx, pkt, &outer.source, backend, id, DISPATCH_IPIP);
	back = quote.back.ends;
	back.destination = outer.destination = backend->address;
	back.destination_port = backend->port;
	if (!rewrite_quote(ctx, pkt, odd, &quote, &back, &outer))
		return lose(ctx, pkt, 0, REASON_REWRITE);
	return forward(ctx, pkt, &outer);
}

#endif
