/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* unusual.h - the programs behind the tail calls (tail.h) of what comes in: each text whose hook
 * takes packets in has them, compiled for its own kind of device. */
#ifndef TIDEGATE_UNUSUAL_H
#define TIDEGATE_UNUSUAL_H

#include "balance.h"
#include "odd.h"
#include "unmark.h"
#include "unwrap.h"
#include "answer.h"
#include "astray.h"
#include "fragment.h"
#include "icmp.h"
#include "ping.h"

/* What the hook's own program could not read: ICMP, fragments, IPv6 extension headers. */
int lb_odd_in(struct __sk_buff *ctx)
{
	struct pkt pkt = {};
	struct odd odd = {};

	if (is_tunnel(ctx)) {
		if (may_be_ours(ctx))
			tails.call(ctx, TAIL_UNWRAP);
		return PACKET_NEXT;
	}
	if (!read_odd(ctx, &pkt, &odd))
		return PACKET_NEXT;
	if (odd.icmp) {
		ctx->cb[NOTE_WHENCE] = WHENCE_OUTSIDE;
		tails.call(ctx, TAIL_ICMP);
		return PACKET_NEXT;
	}
	if (!FROM_PODS && odd.part == PART_WHOLE && has_mark(ctx, ETH_HLEN, pkt.v4)) {
		note(ctx, &pkt);
		tails.call(ctx, TAIL_UNMARK);
		return PACKET_NEXT;
	}
	if (odd.part == PART_LATER && !find_ports(&pkt, &odd))
		return find_vip(&pkt.ends.destination) ? lose(ctx, &pkt, 0, REASON_FRAGMENT)
						       : PACKET_NEXT;
	if (odd.part == PART_FIRST)
		keep_ports(&pkt, &odd);
	note(ctx, &pkt);
	tails.call(ctx, TAIL_FLOW);
	return PACKET_NEXT;
}

/* TCP and UDP in fragments, or behind IPv6 extension headers. */
int lb_flow(struct __sk_buff *ctx)
{
	struct pkt pkt = {};

	return read_noted(ctx, &pkt) ? carry(ctx, &pkt) : PACKET_NEXT;
}

/* The first packet of a flow through `flows`, which `balance` did not find; the program runs anew
 * for each further try. */
static __always_inline int begin_here(struct packet_ctx *ctx, const struct pkt *pkt, __u32 try)
{
	struct frontend *frontend;
	struct backend *backend;
	struct flow *flow;
	__u32 flags, id;
	int verdict;

	frontend = asked_for(pkt, &flags);
	if (!frontend)
		return PACKET_NEXT;
	backend = pick(ctx, pkt, frontend, &id, &verdict);
	if (!backend)
		return verdict;
	flow = begin(ctx, pkt, backend, id, try);
	if (!flow && try + 1 < FLOW_TRIES)
		begin_again(ctx, try + 1);
	if (!flow)
		return lose(ctx, pkt, backend->service, REASON_NO_PORT);
	tell_flow(ctx, pkt, flow);
	return send(ctx, pkt, flow, SIDE_CLIENT);
}

/* The first packet of a flow. */
int lb_begin(struct __sk_buff *ctx)
{
	struct pkt pkt = {};

	return read_noted(ctx, &pkt) ? begin_here(ctx, &pkt, ctx->cb[NOTE_TRY]) : PACKET_NEXT;
}

/* Errors about packets of flows, and pings of services. */
int lb_icmp(struct __sk_buff *ctx)
{
	struct pkt pkt = {};
	struct odd odd = {};

	if (!read_odd(ctx, &pkt, &odd))
		return PACKET_NEXT;
	if (is_icmp_error(&pkt, &odd)) {
		if (!FROM_PODS && quotes_handed(ctx, odd.icmp + ICMP_HEADER, pkt.v4)) {
			tails.call(ctx, TAIL_RETURN);
			return PACKET_NEXT;
		}
		return receive_error(ctx, &pkt, &odd);
	}
	return is_echo_request(&pkt, &odd) ? receive_ping(ctx, &pkt, &odd) : PACKET_NEXT;
}

/* A packet that ends here, from whichever of our programs. */
int lb_answer(struct __sk_buff *ctx)
{
	return answer(ctx, ctx->cb[NOTE_REASON], ctx->cb[NOTE_MTU]);
}

#endif
