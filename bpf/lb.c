/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* lb.c - north-south: packets from outside go to a backend, and its answers come back as the
 * service's. Entry points of tc programs, for the devices where such traffic enters; what they
 * do is in packet.h, flow.h and rewrite.h. */

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#define FROM_PODS false
#include "types.h"
#include "maps.h"
#include "ctx_skb.h"
#include "packet.h"
#include "rewrite.h"
#include "balance.h"
#include "unusual.h"
#include "mss.h"

/* tc ingress of a device. */
int lb_in(struct __sk_buff *ctx)
{
	return receive(ctx);
}

/* Does the backend answer this flow, or a client that came straight to it from the same port
 * after the flow was over? A connection that is closing does not begin, and one in its midst is
 * this one, however long it was silent: another would have begun (`forget_straight`). */
static __always_inline bool is_answer(struct flow *flow, const struct pkt *pkt)
{
	if (pkt->protocol == IPPROTO_TCP && !(pkt->tcp & TCP_SYN))
		return true;
	if (flow->state != FLOW_CLOSING && !is_over(flow, bpf_ktime_get_ns()))
		return true;
	flow->state = FLOW_FREE;
	return false;
}

/* Does a packet that is no answer ask for a cluster IP that no service has? What has begun is
 * not looked at any more: TCP pays with its first packet only. */
static __always_inline bool is_lost(const struct pkt *pkt)
{
	if (pkt->protocol == IPPROTO_TCP && !(pkt->tcp & TCP_SYN))
		return false;
	return in_cidr(&pkt->ends.destination, CIDR_SERVICES);
}

/* An answer of a backend on this node gets the service's end. */
static __always_inline int restore(struct __sk_buff *ctx, const struct pkt *pkt, struct flow *flow)
{
	struct ends to = pkt->ends;

	touch(flow, pkt, SIDE_BACKEND);
	if (flow->mode == FORWARDING_DSR && pkt->tcp & TCP_SYN && !clamp_mss(ctx, pkt))
		return lose(ctx, pkt, flow->service, REASON_REWRITE);
	to.source = flow->frontend;
	to.source_port = flow->frontend_port;
	return rewrite(ctx, pkt, &to) ? PACKET_NEXT : lose(ctx, pkt, flow->service, REASON_REWRITE);
}

/* tc egress of a device: answers of backends on this node; and what asks for a cluster IP ends
 * here, which would else follow the default route out of the cluster. */
int lb_out(struct __sk_buff *ctx)
{
	struct pkt pkt = {};
	struct flow *flow;

	if (!read_packet(ctx, &pkt)) {
		tails.call(ctx, TAIL_OUT);
		return PACKET_NEXT;
	}
	flow = find_back_by_client(&pkt);
	if (flow && is_answer(flow, &pkt))
		return restore(ctx, &pkt, flow);
	return is_lost(&pkt) ? lose(ctx, &pkt, 0, REASON_UNALLOCATED) : PACKET_NEXT;
}

/* What is to be wrapped or marked. */
int lb_dsr(struct __sk_buff *ctx)
{
	struct pkt pkt = {};

	return read_noted(ctx, &pkt) ? go_on_dsr(ctx, &pkt) : PACKET_NEXT;
}

/* IP in IP. */
int lb_unwrap(struct __sk_buff *ctx)
{
	int verdict;

	return unwrap(ctx, &verdict) ? verdict : PACKET_NEXT;
}

/* TCP and UDP with a mark. */
int lb_unmark(struct __sk_buff *ctx)
{
	struct pkt pkt = {};

	return read_noted(ctx, &pkt) ? unmark(ctx, &pkt) : PACKET_NEXT;
}

/* Errors about what this node handed to another. */
int lb_return(struct __sk_buff *ctx)
{
	struct pkt pkt = {};
	struct odd odd = {};

	return read_odd(ctx, &pkt, &odd) ? return_error(ctx, &pkt, &odd) : PACKET_NEXT;
}

/* Errors about answers that went past this node. */
int lb_pass(struct __sk_buff *ctx)
{
	struct pkt pkt = {};
	struct odd odd = {};

	return read_odd(ctx, &pkt, &odd) ? pass_error(ctx, &pkt, &odd) : PACKET_NEXT;
}

/* What lb_out could not read. */
int lb_odd_out(struct __sk_buff *ctx)
{
	struct pkt pkt = {};
	struct odd odd = {};
	struct flow *flow;

	if (!read_odd(ctx, &pkt, &odd))
		return PACKET_NEXT;
	if (odd.icmp)
		return is_icmp_error(&pkt, &odd) ? send_error(ctx, &pkt, &odd) : PACKET_NEXT;
	if (odd.part == PART_LATER && !find_ports(&pkt, &odd))
		return PACKET_NEXT;
	if (odd.part == PART_FIRST)
		keep_ports(&pkt, &odd);
	note(ctx, &pkt);
	if (!read_noted(ctx, &pkt))
		return PACKET_NEXT;
	flow = find_back_by_client(&pkt);
	return flow && is_answer(flow, &pkt) ? restore(ctx, &pkt, flow) : PACKET_NEXT;
}
