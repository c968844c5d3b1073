/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* event.h - tells whoever listens what happens: new connections, and all that is dropped. Where
 * nobody listens it costs one load and one branch, at new connections and drops only.
 * Reads: listening. Writes: events, and in `listening` how many were lost. */
#ifndef TIDEGATE_EVENT_H
#define TIDEGATE_EVENT_H

#include "counter.h"

/* Whoever listens; NULL: nobody. One who was killed is forgotten when his time is up. */
static __always_inline struct listener *heard_by(void)
{
	__u32 zero = 0;
	struct listener *listener = listening.lookup(&zero);

	if (!listener || !listener->until || listener->until < bpf_ktime_get_ns())
		return NULL;
	return listener;
}

/* Is this new connection one of those to tell of? */
static __always_inline bool is_sampled(const struct listener *listener)
{
	__u32 every = listener->every;

	return every <= 1 || bpf_get_prandom_u32() <= ~0U / every;
}

/* Room for an event, zeroed; NULL: there is none. */
static __always_inline struct event *begin_event(struct listener *listener, __u8 kind, __u8 hook)
{
	struct event *event = events.ringbuf_reserve(sizeof(struct event));

	if (!event) {
		lock_xadd(&listener->lost, 1);
		return NULL;
	}
	__builtin_memset(event, 0, sizeof(*event));
	event->time = bpf_ktime_get_ns();
	event->kind = kind;
	event->hook = hook;
	return event;
}

static __always_inline void end_event(struct event *event)
{
	events.ringbuf_submit(event, 0);
}

#endif
