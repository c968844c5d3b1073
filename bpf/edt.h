/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* edt.h - when a packet of a limited pod may leave: the arithmetic, and no packet.
 * Writes: its limit. `bandwidth.pacing` is the same in Python; bandwidth/DESIGN.md says why. */
#ifndef TIDEGATE_EDT_H
#define TIDEGATE_EDT_H

#include "types.h"

#define TICKS_PER_SECOND (1000000000ULL * EDT_TICKS)
#define HORIZON ((__u64)EDT_HORIZON * EDT_TICKS)
#define EPOCH_SHIFT 28 /* of ns: 268 ms */
#define TRIES 32

/* What becomes of a packet. */
struct departure {
	__u64 at; /* ns of CLOCK_MONOTONIC; 0: never */
	bool mark;
	bool overtook;
};

static __always_inline __u64 later(__u64 a, __u64 b)
{
	return a > b ? a : b;
}

static __always_inline __u64 earlier(__u64 a, __u64 b)
{
	return a < b ? a : b;
}

/* Moves a clock on by `cost`: from where it stood, or from now if it had fallen behind, for
 * nobody saves up what he did not use. Where it stood; 0: beyond `latest`. One CPU always gets
 * through, so a packet that fails at all tries has met 31 others. */
static __always_inline __u64 take(__u64 *clock, __u64 now, __u64 cost, __u64 latest)
{
	for (int i = 0; i < TRIES; i++) {
		__u64 before = *(volatile __u64 *)clock;
		__u64 start = later(before, now);

		if (start > latest)
			return 0;
		if (__sync_val_compare_and_swap(clock, before, start + cost) == before)
			return start;
	}
	return 0;
}

/* How many flows share the limit, this one included: those seen in this epoch or the one before.
 * A guess, so races do not matter. */
static __always_inline __u64 sharers(struct limit *limit, __u32 slot, __u64 now)
{
	__u32 present = now >> EPOCH_SHIFT;
	__u64 epoch = *(volatile __u64 *)&limit->epoch;

	if ((__u32)epoch != present) {
		limit->flows = (__u32)epoch + 1 == present ? epoch >> 32 : 0;
		epoch = present;
		limit->epoch = epoch;
	}
	if (limit->seen[slot] != present) {
		limit->seen[slot] = present;
		epoch += 1ULL << 32;
		limit->epoch = epoch;
	}
	return later(later(limit->flows, epoch >> 32), 1);
}

/* Packets leave in order at the limit's clock. One of a flow that uses little of its share leaves
 * at the flow's own clock if that is earlier, and all that overtake together at a quarter of the rate;
 * what they take, the clock counts, so that the others pay for it and the sum is exact.
 * `asked`: ns at which the sender wants it to leave. */
static __always_inline struct departure depart(struct limit *limit, __u32 hash, __u32 length,
					       __u64 now, __u64 asked)
{
	__u64 cost = (length * TICKS_PER_SECOND + limit->rate - 1) / limit->rate;
	__u64 ticks = now * EDT_TICKS;
	/* However large it is, a packet may wait for one of its own size. */
	__u64 wait = earlier(later(limit->longest * EDT_TICKS, cost), HORIZON);
	__u32 slot = hash & (EDT_FLOWS - 1);
	__u64 sharing = sharers(limit, slot, now);
	__u64 own = later(later(limit->flow[slot], limit->quick), ticks);
	__u64 at = later(limit->clock, ticks);
	bool single = length <= EDT_FRAME;
	struct departure result = {};

	if ((single ? earlier(own, at) : at) > ticks + wait)
		return result;
	at = take(&limit->clock, ticks, cost, ticks + earlier(2 * wait, HORIZON));
	if (!at)
		return result;
	if (single && own < at) {
		own = take(&limit->quick, ticks, EDT_LANE * cost, at);
		if (own) {
			at = later(own, limit->flow[slot]);
			result.overtook = true;
		}
	}
	limit->flow[slot] = at + cost * sharing * EDT_SHARE;
	result.mark = at > ticks + limit->mark * EDT_TICKS;
	result.at = (at + EDT_TICKS - 1) / EDT_TICKS;
	/* The sender's own pacing; beyond the horizon it is no time of our clock. */
	if (asked > result.at && asked <= now + EDT_HORIZON)
		result.at = asked;
	return result;
}

#endif
