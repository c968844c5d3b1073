/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* tell.h - counts and tells what became of a packet of a device.
 * Reads: listening. Writes: loads, counters, events. */
#ifndef TIDEGATE_TELL_H
#define TIDEGATE_TELL_H

#include "event.h"
#include "packet.h"

#define HOOK_HERE (IS_LAST ? HOOK_TC : HOOK_XDP)

static __always_inline struct event *begin_packet(struct listener *listener, __u8 kind,
						  struct packet_ctx *ctx, const struct pkt *pkt)
{
	struct event *event = begin_event(listener, kind, HOOK_HERE);

	if (!event)
		return NULL;
	event->source = pkt->ends.source;
	event->destination = pkt->ends.destination;
	event->source_port = pkt->ends.source_port;
	event->destination_port = pkt->ends.destination_port;
	event->protocol = pkt->protocol;
	event->octets = pkt->octets;
	event->device = pkt->device;
	return event;
}

static __always_inline void describe(struct event *event, const struct flow *flow)
{
	event->backend = flow->backend;
	event->backend_port = flow->backend_port;
	event->port = flow->port;
	event->service = flow->service;
	event->id = flow->id;
	event->mode = flow->mode;
}

/* A flow begins with this packet. */
static __always_inline void tell_flow(struct packet_ctx *ctx, const struct pkt *pkt,
				      const struct flow *flow)
{
	struct listener *listener = heard_by();
	struct event *event;

	count_begun(flow->service, flow->id);
	if (!listener || !is_sampled(listener))
		return;
	event = begin_packet(listener, EVENT_FLOW, ctx, pkt);
	if (!event)
		return;
	describe(event, flow);
	end_event(event);
}

/* A connection begins whose answers do not come by: `dsr_flows` counts no packets of it. */
static __always_inline void tell_dsr(struct packet_ctx *ctx, const struct pkt *pkt,
				     const struct backend *backend, __u32 id)
{
	struct listener *listener = heard_by();
	struct event *event;

	count_begun(backend->service, id);
	if (!listener || !is_sampled(listener))
		return;
	event = begin_packet(listener, EVENT_FLOW, ctx, pkt);
	if (!event)
		return;
	event->backend = backend->address;
	event->backend_port = backend->port;
	event->service = backend->service;
	event->id = id;
	event->mode = FORWARDING_DSR;
	end_event(event);
}

/* A packet that ends here is counted and told, of `service` if that is known. */
static __always_inline void tell_drop(struct packet_ctx *ctx, const struct pkt *pkt, __u32 service,
				      __u32 reason)
{
	struct listener *listener = heard_by();
	struct event *event;

	if (service)
		count_refusal(service);
	if (!listener)
		return;
	event = begin_packet(listener, EVENT_DROP, ctx, pkt);
	if (!event)
		return;
	event->service = service;
	event->reason = reason;
	end_event(event);
}

/* Drops a packet that was read. */
static __always_inline int lose(struct packet_ctx *ctx, const struct pkt *pkt, __u32 service,
				__u32 reason)
{
	tell_drop(ctx, pkt, service, reason);
	return drop(reason);
}

#endif
