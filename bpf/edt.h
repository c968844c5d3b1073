/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* edt.h - when a packet of a limited pod may leave: the arithmetic, and no packet.
 * Writes: its limit. `bandwidth.pacing` is the same in Python; bandwidth/DESIGN.md says why. */
#ifndef TIDEGATE_EDT_H
#define TIDEGATE_EDT_H

#include "types.h"

#define TICKS_PER_SECOND (1000000000ULL * EDT_TICKS)
#define HORIZON ((__u64)EDT_HORIZON * EDT_TICKS)
#define EPOCH_SHIFT 28 /* of ns: 268 ms */
#define TRIES 16

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
 * through, so a packet that fails at all tries has met 15 others. */
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
static __always_inline __u64 sharers(struct limit *limit, __u32 hash, __u64 now)
{
	__u32 present = now >> EPOCH_SHIFT;
	__u64 epoch = *(volatile __u64 *)&limit->epoch;
	__u16 *seen = &limit->seen[hash >> 24 & (EDT_SEEN - 1)];

	if ((__u32)epoch != present) {
		limit->flows = (__u32)epoch + 1 == present ? epoch >> 32 : 0;
		epoch = present;
		limit->epoch = epoch;
	}
	if (*seen != (__u16)present) {
		*seen = present;
		epoch += 1ULL << 32;
		limit->epoch = epoch;
	}
	return later(later(limit->flows, epoch >> 32), 1);
}

/* A flow's place in a row: each row looks at bits of the hash that no other looks at. */
static __always_inline __u64 *place(struct limit *limit, __u32 hash, __u32 row)
{
	return &limit->flow[row * EDT_FLOWS + (hash >> row * 6 & (EDT_FLOWS - 1))];
}

/* When a flow has paid for what it sent. It shares its places with others, hardly all of them
 * with bulk, and the earliest tells. */
static __always_inline __u64 paid(struct limit *limit, __u32 hash)
{
	__u64 result = *place(limit, hash, 0);

	for (__u32 row = 1; row < EDT_ROWS; row++)
		result = earlier(result, *place(limit, hash, row));
	return result;
}

static __always_inline void owes(struct limit *limit, __u32 hash, __u64 until)
{
	for (__u32 row = 0; row < EDT_ROWS; row++)
		*place(limit, hash, row) = later(*place(limit, hash, row), until);
}

/* Packets leave in order at the limit's clock. One of a flow that uses less than two thirds of its
 * fair share overtakes: it leaves once its flow has paid. All that overtake get a quarter of the
 * rate, the lane; what they take, the clock counts, so that the others pay for it and the sum is
 * exact. A small packet does not wait behind full frames in the lane, of which it holds a few.
 * `asked`: ns at which the sender wants it to leave. */
static __always_inline struct departure depart(struct limit *limit, __u32 hash, __u32 length,
					       __u64 now, __u64 asked)
{
	__u64 cost = (length * TICKS_PER_SECOND + limit->rate - 1) / limit->rate;
	__u64 frame = (EDT_FRAME * TICKS_PER_SECOND + limit->rate - 1) / limit->rate;
	__u64 ticks = now * EDT_TICKS;
	/* However large it is, a packet may wait for one of its own size. */
	__u64 wait = earlier(later(limit->longest * EDT_TICKS, cost), HORIZON);
	__u64 due = later(paid(limit, hash), ticks);
	__u64 debt = due + cost * sharers(limit, hash, now) * 3 / 2;
	__u64 at = later(limit->clock, ticks);
	__u64 full = EDT_LANE * frame, room = 0, most = 0, own = 0;
	struct departure result = {};

	if (length <= EDT_FRAME) {
		__u64 lane = later(limit->quick, ticks);

		room = 3 * (full - EDT_LANE * cost);
		most = ticks + room + full + full / 2;
		own = later(due, lane > room ? lane - room : 0);
		result.overtook = own < at && lane <= most;
		/* A small one finds room where a full frame does not. */
		wait = earlier(wait + frame - cost, HORIZON);
	}
	if ((result.overtook ? own : at) > ticks + wait)
		return (struct departure){};
	at = take(&limit->clock, ticks, cost,
		  ticks + (result.overtook ? earlier(2 * wait, HORIZON) : wait));
	if (!at)
		return (struct departure){};
	if (result.overtook) {
		result.overtook = take(&limit->quick, ticks, EDT_LANE * cost, most);
		if (result.overtook)
			at = own;
	}
	owes(limit, hash, later(at, earlier(debt, ticks + (__u64)EDT_DEBT * EDT_TICKS)));
	result.mark = at > ticks + limit->mark * EDT_TICKS;
	result.at = (at + EDT_TICKS - 1) / EDT_TICKS;
	/* The sender's own pacing; beyond the horizon it is no time of our clock. */
	if (asked > result.at && asked <= now + EDT_HORIZON)
		result.at = asked;
	return result;
}

#endif
